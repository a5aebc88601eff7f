"""Where the URLs of an endpoint come from: given once, a file that is read again when it changes, a name in the DNS."""

from __future__ import annotations

import asyncio
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from asearch.errors import Unreachable, UsageError
from asearch.transport.urls import parse_url

if TYPE_CHECKING:
    from collections.abc import Iterable

FILE_SCHEME, DNS_SCHEME, TGI_SCHEME = "file:", "dns+", "tgi+"
NAMES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Address:
    """One server: its base URL, and, where a name has several, at which IP address it is.

    Args:
        url: the root, without `/v1`, credentials and query.
        query: query parameters of the given URL.
        basic: an Authorization header from credentials in it.
        ip: connect there instead of where the DNS says.
    """

    url: str
    query: tuple[tuple[str, str], ...] = ()
    basic: str | None = None
    ip: str | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.url} ({self.ip})" if self.ip else self.url


class Source(Protocol):
    """Says where the servers are, now."""

    name: str
    every: float | None  # seconds between two looks; None: it never changes
    patience: int  # looks in a row that may miss a server before it counts as gone

    def known(self) -> list[Address]:
        """What can be said without waiting; possibly nothing yet."""
        ...

    async def look(self) -> list[Address]:
        """All addresses, as of now."""
        ...


class Fixed:
    """URLs that were given once."""

    every: float | None = None
    patience = 1

    def __init__(self, urls: Iterable[str]) -> None:
        self._addresses = addresses(urls)
        if not self._addresses:
            raise UsageError("the list of URLs is empty: pass at least one, such as 'http://localhost:8000'")
        self.name = listed([address.url for address in self._addresses])

    def known(self) -> list[Address]:
        return self._addresses

    async def look(self) -> list[Address]:
        return self._addresses


class FromFile:
    """A text file with one URL per line, read again when it changes; `#` begins a comment.

    A file that cannot be read any longer, or says nothing that makes sense, leaves what was known.
    """

    every: float | None = 1.0
    patience = 1

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self.name = f"{FILE_SCHEME}{path}"
        self._seen: tuple[int, int, int] | None = None
        self._addresses = self._read()

    def known(self) -> list[Address]:
        return self._addresses

    async def look(self) -> list[Address]:
        return await asyncio.to_thread(self._read)

    def _read(self) -> list[Address]:
        try:
            state = self._path.stat()
            mark = (state.st_mtime_ns, state.st_size, state.st_ino)
            if mark == self._seen:
                return self._addresses
            text = self._path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as failure:
            raise UsageError(f"the endpoints cannot be read from {self._path}: {reason(failure)}") from failure
        lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines())
        found = addresses(line for line in lines if line)
        if not found:
            raise UsageError(f"{self._path} lists no endpoints: write one URL per line")
        self._seen, self._addresses = mark, found
        return found


class FromDNS:
    """A name with several addresses, looked up again from time to time: `docker compose --scale policy=2`, or a headless
    service of Kubernetes.

    An answer may lack an address for once (name servers give subsets), so one that is missing twice is gone.
    """

    every: float | None = 10.0
    patience = 2

    def __init__(self, url: str) -> None:
        (self._address,) = addresses([url])
        self.name = f"{DNS_SCHEME}{self._address.url}"
        parts = urlsplit(self._address.url)
        self._host, self._port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    def known(self) -> list[Address]:
        return []

    async def look(self) -> list[Address]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        except OSError as failure:
            raise Unreachable(
                f"no address for {self._host!r} ({reason(failure)}); is the name right, the service running?",
                endpoint=self.name,
            ) from failure
        ips = sorted({str(entry[4][0]) for entry in found})
        given = self._address
        return [Address(given.url, given.query, given.basic, ip) for ip in ips]


def source_of(given: Any) -> Source:
    """The source that a user means: a URL, several (a list, or with commas between), a file, a DNS name.

    Raises:
        UsageError: it is none of these, or the file cannot be read.
    """
    if isinstance(given, Path):
        return FromFile(given)
    if isinstance(given, str):
        bare = given.removeprefix(TGI_SCHEME)
        if bare.startswith(FILE_SCHEME):
            return FromFile(re.sub(r"^file:(//(?=/))?", "", bare))
        if bare.startswith(DNS_SCHEME):
            return FromDNS(bare.removeprefix(DNS_SCHEME))
        return Fixed(cut(bare))
    if isinstance(given, list | tuple):
        return Fixed(given)
    raise UsageError(f"a URL is a string such as 'http://localhost:8000', not {type(given).__name__}")


def is_source(given: Any) -> bool:
    """Whether something says where servers are, and is no client of somebody's."""
    return isinstance(given, str | list | tuple | Path)


def cut(urls: str) -> list[str]:
    """URLs with commas between them; a comma inside of one is written %2C."""
    return [url.strip() for url in urls.split(",") if url.strip()] or [urls]


def addresses(urls: Iterable[str]) -> list[Address]:
    """Addresses from URLs as people write them, each once."""
    found: dict[str, Address] = {}
    for url in urls:
        root, query, basic = parse_url(url.removeprefix(TGI_SCHEME) if isinstance(url, str) else url)
        found.setdefault(root, Address(root, tuple(query.items()), basic))
    return list(found.values())


def listed(urls: list[str]) -> str:
    """URLs for a message, the first few of many."""
    more = f" and {len(urls) - NAMES_SHOWN} more" if len(urls) > NAMES_SHOWN else ""
    return ",".join(urls[:NAMES_SHOWN]) + more


def reason(failure: Exception) -> str:
    """What the system said, in its few words."""
    return getattr(failure, "strerror", None) or str(failure) or type(failure).__name__
