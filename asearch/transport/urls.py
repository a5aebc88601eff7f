"""URLs, headers and secrets, as users pass them; and what their environment says about the way to a URL."""

from __future__ import annotations

import ipaddress
import logging
import netrc
import os
import re
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

from asearch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

SHORTEST_SECRET = 6  # a shorter word would black out ordinary text
SENSITIVE = re.compile(r"auth|key|token|cookie|secret", re.IGNORECASE)

log = logging.getLogger("asearch.transport")


def parse_url(url: str) -> tuple[str, dict[str, str], str | None]:
    """What a user may pass as base URL, in parts: the root without `/v1`, the query, and basic credentials."""
    if not isinstance(url, str):
        raise UsageError(f"a URL is a string such as 'http://localhost:8000', not {type(url).__name__}")
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = None
    if host is None or not host or parts.scheme not in ("http", "https") or re.search(r"\s", url):
        shown = re.sub(r"//[^/@]*@", "//", url)
        raise UsageError(f"{shown!r} is not an http(s) URL such as http://localhost:8000")
    basic = None
    if parts.username is not None:
        basic = basic_credentials(unquote(parts.username), unquote(parts.password or ""))
    bare = f"[{host}]" if ":" in host else host
    place = bare if port is None else f"{bare}:{port}"
    root = urlunsplit((parts.scheme, place, parts.path.rstrip("/").removesuffix("/v1").rstrip("/"), "", ""))
    return root, dict(parse_qsl(parts.query, keep_blank_values=True)), basic


def basic_credentials(user: str, password: str) -> str:
    """The value of an Authorization header."""
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


def proxy_for(url: str) -> str | None:
    """The proxy that the environment names for a URL (HTTP_PROXY, HTTPS_PROXY, NO_PROXY), with its login from .netrc.

    aiohttp finds out the same with `trust_env`, but for each request anew, in two threads: more work than the request.
    """
    from urllib.request import getproxies, proxy_bypass  # takes longer to import than the rest of the room

    parts = urlsplit(url)
    named = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
    if not named:
        return None
    proxy = urlsplit(named if "://" in named else f"http://{named}")
    if proxy.scheme != "http":
        log.warning("proxies that speak %s themselves are not supported: %s is ignored", proxy.scheme, proxy.hostname)
        return None
    login = login_for(proxy.hostname) if proxy.username is None else None
    user = f"{quote(login[0], safe='')}:{quote(login[1], safe='')}@" if login else ""
    return urlunsplit(proxy._replace(netloc=user + proxy.netloc))


def login_for(host: str | None) -> tuple[str, str] | None:
    """User and password for a host from the file that NETRC names, by default ~/.netrc."""
    named = os.environ.get("NETRC")
    path = Path(named or ("~/_netrc" if os.name == "nt" else "~/.netrc")).expanduser()
    if host is None or not (named or path.is_file()):
        return None
    try:
        found = netrc.netrc(path).authenticators(host)
    except (OSError, netrc.NetrcParseError) as failure:
        log.warning("%s cannot be read: %s", path, failure)
        return None
    return (found[0] or found[1] or "", found[2] or "") if found else None


def is_loopback(url: str) -> bool:
    """Whether a URL points to this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def merge_headers(*layers: Mapping[str, str]) -> dict[str, str]:
    """Headers of several layers as one, the later ones winning whatever the case of their names."""
    merged: dict[str, tuple[str, str]] = {}
    for layer in layers:
        merged.update({name.lower(): (name, value) for name, value in layer.items()})
    return dict(merged.values())


def secrets_of(headers: Mapping[str, str], query: Mapping[str, str]) -> tuple[str, ...]:
    """The values that must never be shown, longest first; of `Bearer KEY` the key by itself, too."""
    values = {value for named in (headers, query) for name, value in named.items() if SENSITIVE.search(name)}
    bare = {value.split()[-1] for value in values if value.strip()}
    return tuple(sorted((word for word in values | bare if len(word) >= SHORTEST_SECRET), key=lambda w: (-len(w), w)))
