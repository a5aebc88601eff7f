"""Strategies that make trouble for the process that runs them; the workers of a cluster import them by this name."""

import os
import pathlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from asearch import Majority


@dataclass(frozen=True, kw_only=True)
class Trouble(Majority):
    """A majority vote that does what some problems say.

    Args:
        mark: a file that says that this has happened once already.
    """

    name: ClassVar[str] = "majority"
    mark: str = ""

    async def run(self, search) -> Sequence:
        self.trouble(search.problem.text)
        return await super().run(search)

    def trouble(self, text):
        if "kill the process" in text:
            os._exit(7)
        if "block the process" in text and not pathlib.Path(self.mark).exists():
            pathlib.Path(self.mark).touch()
            time.sleep(3600)  # nothing else runs there any more
