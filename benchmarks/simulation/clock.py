"""The tests' virtual clock: an event loop whose time jumps to the next timer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

sys.path.append(str(Path(__file__).parents[2] / "tests"))

import virtual_clock

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns, on a virtual clock."""
    result: T = virtual_clock.run(coroutine)[0]
    return result
