"""The laws that every client and every verifier must satisfy, for ours and for those that users write.

from asearch.testing import assert_client_laws

async def test_my_client():
    await assert_client_laws(MyClient("http://localhost:8000"))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asearch.testing.clients import assert_client_laws
    from asearch.testing.prms import assert_prm_laws

__all__ = ["assert_client_laws", "assert_prm_laws"]

_ROOMS = {"assert_client_laws": "clients", "assert_prm_laws": "prms"}


def __getattr__(name: str) -> Any:
    """Each law book is loaded when it is asked for: the one does not need the other."""
    if name not in _ROOMS:
        raise AttributeError(f"asearch.testing has no {name!r}")
    return getattr(import_module(f"asearch.testing.{_ROOMS[name]}"), name)
