"""API keys: where they come from, and the comparison. They are kept as hashes, and appear in no message."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from asearch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

VARIABLE = "ASEARCH_API_KEYS"
SCHEME = "bearer "


class Keys:
    """The keys that open the proxy; none: it is open to everybody who reaches it.

    Args:
        keys: in plain text; only their hashes are kept.
    """

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._digests = tuple(_digest(key) for key in keys)

    def __len__(self) -> int:
        return len(self._digests)

    def __repr__(self) -> str:
        return f"Keys({len(self)})"

    def admit(self, authorization: str | None) -> bool:
        """Whether an Authorization header carries one of the keys, in a time that does not depend on which, or how nearly."""
        given = authorization or ""
        bearer = given[: len(SCHEME)].lower() == SCHEME
        digest = _digest(given[len(SCHEME) :].strip())
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return bearer and any(matches)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def load_keys(file: Path | None, environ: Mapping[str, str]) -> Keys:
    """The keys of a file (one in a line; `#` begins a comment) and of the environment (separated by commas).

    Raises:
        UsageError: the file cannot be read or has no key, or a key could not stand in a header. Nothing of it is repeated.
    """
    keys = [] if file is None else _of_file(file)
    given = environ.get(VARIABLE, "")
    if given.strip():
        keys += _checked([key.strip() for key in given.replace("\n", ",").split(",") if key.strip()], VARIABLE)
    return Keys(dict.fromkeys(keys))


def _of_file(file: Path) -> list[str]:
    try:
        lines = [line.split("#", 1)[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "it is not text"
        raise UsageError(f"the API keys in {file} cannot be read: {reason}") from None
    return _checked([line for line in lines if line], str(file))


def _checked(keys: list[str], source: str) -> list[str]:
    if not keys:
        raise UsageError(f"{source} has no API key, which would leave the proxy open: put one into each line")
    for number, key in enumerate(keys, 1):
        if not key.isascii() or not key.isprintable() or " " in key:
            raise UsageError(f"API key {number} of {source} has blanks or letters that a header cannot carry")
    return keys
