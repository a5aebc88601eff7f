"""A run against real servers, recorded, and the same run against the model of them.

The library asks the same again, because its seeds come from the place in the tree; the replies are looked up, and only
their time is the model's. So a prediction can be held against the clock.
"""

from __future__ import annotations

import asyncio
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import orjson

from simulation.engine import Engine, Task
from simulation.servers import Ideal, generated, nobody

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from simulation.cache import Piece
    from simulation.hardware import Machine

Json = dict[str, Any]
ROUTE = "/v1/completions"


class Recording:
    """What one server was asked, and what it said."""

    def __init__(self) -> None:
        self.replies: dict[bytes, Json] = {}
        self.choices: dict[bytes, Json] = {}  # by single prompt, of requests that carry several

    def note(self, route: str, body: Mapping[str, Any], reply: Json) -> None:
        """A hook for an endpoint's exchanges."""
        if route == ROUTE and several(body["prompt"]):
            for prompt, choice in zip(body["prompt"], sorted(reply["choices"], key=lambda c: c["index"]), strict=True):
                self.choices[orjson.dumps(prompt)] = choice
        else:
            self.replies[key(route, body)] = reply


def key(route: str, body: Mapping[str, Any]) -> bytes:
    """A request as one value."""
    return orjson.dumps([route, body], option=orjson.OPT_SORT_KEYS)


def several(prompt: Any) -> bool:
    """Whether a request carries a list of prompts."""
    return isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)


class Hands:
    """The client's one thread: each exchange costs it some time, and there is one at a time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._free = 0.0

    async def work(self) -> None:
        """Take the time of one exchange."""
        now = asyncio.get_running_loop().time()
        self._free = max(now, self._free) + self._seconds
        await asyncio.sleep(self._free - now)


class Replayed:
    """A server that says what was recorded, in the time that the model takes for it.

    Args:
        machine: the model.
        recording: what to say.
        tokens: token ids of a prompt that was sent as text.
        hands: the client's time.
    """

    def __init__(
        self, machine: Machine, recording: Recording, tokens: Callable[[str], Sequence[int]], hands: Hands
    ) -> None:
        self.machine = machine
        self.engine = Engine(machine)
        self.ideal = Ideal()
        self._recording = recording
        self._tokens = tokens
        self._hands = hands

    async def answer(self, route: str, body: Json) -> Json:
        """The reply to one request."""
        if route != ROUTE:
            return self._recording.replies[key(route, body)]
        await self._hands.work()
        await asyncio.sleep(self.machine.latency)
        if not several(body["prompt"]):
            reply = self._recording.replies[key(route, body)]
            await self._run([(body["prompt"], choice) for choice in reply["choices"]])
            return reply
        choices = [self._recording.choices[orjson.dumps(prompt)] for prompt in body["prompt"]]
        read = await self._run(list(zip(body["prompt"], choices, strict=True)))
        return {"choices": [{**c, "index": i} for i, c in enumerate(choices)], "usage": {"prompt_tokens": read}}

    async def _run(self, asked: Sequence[tuple[Any, Json]]) -> int:
        tasks: list[Task] = []
        read = 0
        for prompt, choice in asked:
            ids = list(self._tokens(prompt) if isinstance(prompt, str) else prompt)
            # of what is generated the last token's keys and values are not there, and only whole blocks are found again
            new = len(choice.get("token_ids") or ()) or 1
            grown = ids + (choice.get("token_ids") or [])[:-1]
            pieces = blocks(ids, self.machine.block)
            kept = blocks(grown, self.machine.block) if new > 1 else ()
            tasks.append(Task(pieces, new, nobody, kept, first=not tasks))
            read += len(ids)
        await generated(self.engine, self.ideal, self.machine.block, tasks)
        return read


def blocks(ids: Sequence[int], block: int) -> list[Piece]:
    """A prompt in pieces of one block each, and what is left; each is named by all up to its end."""
    pieces, digest = [], blake2b(digest_size=7)
    for start in range(0, len(ids), block):
        part = ids[start : start + block]
        digest.update(orjson.dumps(part))
        pieces.append((int.from_bytes(digest.digest(), "big"), start + len(part)))
    return pieces
