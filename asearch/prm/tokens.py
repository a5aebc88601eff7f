"""How many tokens a verifier will read: a bound that costs nothing, and the exact number where the bound is too coarse.

A budget of tokens is hard, so a request may be sent only when what it can cost is still there. A text has at most as
many tokens as bytes, which is four times what it has in truth: near the end of a budget the server's own tokenizer is
asked, so that what is left can be spent.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from asearch.concurrency import Memo, together
from asearch.errors import BadRequest, NotFound, ProtocolError
from asearch.transport import cached_tokens
from asearch.usage import ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from asearch.transport import Endpoint, Json

SPECIAL = 2  # tokens that a tokenizer may put around a text: a beginning and an end
TEMPLATE = 256  # tokens that a chat template may put around the turns; Llama 3.1's, with its dates, takes 40


@dataclass(frozen=True, slots=True)
class Solution:
    """What this project's PRM server is sent: problem and steps as they are, which it lays out itself.

    Args:
        problem: its text.
        steps: the texts of the steps, none of them blank.
        text: the layout as the client knows it; the server's may have a chat template of its own.
    """

    problem: str
    steps: tuple[str, ...]
    text: str = field(compare=False)


Prompt = str | Solution | tuple[tuple[str, str], ...]  # a text, a solution, or the turns of a chat as (role, content)


def as_prompt(messages: Sequence[Mapping[str, str]]) -> Prompt:
    """The turns of a chat, as a key."""
    return tuple((turn["role"], turn["content"]) for turn in messages)


class Counter:
    """Counts the tokens of prompts for one model, and makes room for them in the budget of the search that asks.

    Args:
        endpoint: the server; the number comes from its `/tokenize` where it has that route.
        model: the name to ask for, once it is known.
    """

    def __init__(self, endpoint: Callable[[], Endpoint], model: Callable[[], str | None]) -> None:
        self._endpoint, self._model = endpoint, model
        self._counts: Memo[tuple[Prompt, bool], int] = Memo(self._ask)

    def room(self, prompts: Sequence[Prompt], *, special: bool = False) -> AbstractAsyncContextManager[int]:
        """Set aside what reading these prompts costs; nothing is computed or asked where no budget of tokens is set.

        Raises:
            BudgetSpent: on entry, when there is not as much left.
        """
        book = ledger.get()
        if book.budget.tokens is None:
            return book.reserved(0)

        async def exact() -> int:
            return sum(await together(self._counts.get((prompt, special)) for prompt in prompts))

        return book.reserved(sum(map(most_tokens, prompts)), exact=exact)

    def most(self, prompt: Prompt, *, special: bool = False) -> int:
        """At most as many tokens as that: exactly as many where somebody has asked already."""
        known = self._counts.known((prompt, special))
        return most_tokens(prompt) if known is None else known

    async def _ask(self, key: tuple[Prompt, bool]) -> int:
        prompt, special = key
        body: dict[str, Any] = {"model": self._model()}
        if isinstance(prompt, str):
            body |= {"prompt": prompt, "add_special_tokens": special}
        elif isinstance(prompt, Solution):
            body |= {"problem": prompt.problem, "steps": prompt.steps}
        else:
            turns = [{"role": role, "content": content} for role, content in prompt]
            body |= {"messages": turns, "add_generation_prompt": prompt[-1][0] == "user"}
        try:
            tokens = (await self._endpoint().post("/tokenize", body)).get("tokens")
        except (NotFound, BadRequest, ProtocolError):  # no such route, or not for this text: the bound must do
            return most_tokens(prompt)
        return len(tokens) if isinstance(tokens, list) and tokens else most_tokens(prompt)


def most_tokens(prompt: Prompt) -> int:
    """The bound: one token per byte, and those that tokenizer and template add."""
    if not isinstance(prompt, tuple):
        text = prompt if isinstance(prompt, str) else prompt.text
        return (len(text) if text.isascii() else len(text.encode())) + SPECIAL  # the former looks at no character
    return sum(len(content.encode()) for _, content in prompt) + TEMPLATE


class Read(NamedTuple):
    """Tokens that a server read, of which some came from its prefix cache."""

    tokens: int
    cached: int


def read_in(reply: Json, sizes: Sequence[int] = (1,), most: Sequence[int] | None = None) -> list[Read]:
    """What a server says it has read for a batch, shared out among its items; what it does not say is 0.

    Args:
        reply: with `usage`, as OpenAI-like servers give it.
        sizes: of the items, by any measure.
        most: what each of them can have taken at most; None: anything.
    """
    usage = reply.get("usage")
    total = int(usage.get("prompt_tokens") or 0) if isinstance(usage, dict) else 0
    tokens = share_out(total, sizes, [total] * len(sizes) if most is None else most)
    cached = min(cached_tokens(usage) or 0, total)
    if not cached:
        return [Read(share, 0) for share in tokens]
    return [Read(*read) for read in zip(tokens, share_out(cached, tokens, tokens), strict=True)]


def share_out(total: int, sizes: Sequence[int], most: Sequence[int]) -> list[int]:
    """Share out the tokens that a server counted for a batch, in whole numbers that add up to the total.

    In proportion to sizes, but to nobody more than `most`: each share is booked for another search, perhaps, which has
    set aside no more than that for it. (Only a total beyond the sum of `most` leaves no choice.)
    """
    sizes = [max(1, size) for size in sizes]
    shares = [0] * len(sizes)
    open_ = list(range(len(sizes)))
    while open_ and total > sum(shares):
        parts = divide(total - sum(shares), [sizes[i] for i in open_])
        for i, part in zip(open_, parts, strict=True):
            shares[i] = min(most[i], shares[i] + part)
        open_ = [i for i in open_ if shares[i] < most[i]]
    if (left := total - sum(shares)) == 0:
        return shares
    return [share + more for share, more in zip(shares, divide(left, sizes), strict=True)]


def divide(total: int, sizes: Sequence[int]) -> list[int]:
    """Share out a total in proportion to sizes, in whole numbers that add up to it."""
    shares: list[int] = []
    done = so_far = 0
    everything = sum(sizes) or 1
    for size in sizes:
        so_far += size
        shares.append(total * so_far // everything - done)
        done += shares[-1]
    return shares
