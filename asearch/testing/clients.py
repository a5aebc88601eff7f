"""The laws of policy clients. Each is a small function that says what it checks; a broken one names itself.

They are run against fakes, the embedded server, real vLLM and the TGI stand-in alike.
"""

# ruff: noqa: S101 - laws are assertions

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from asearch.errors import NotFound, UsageError
from asearch.path import Path, Sampling, Step
from asearch.problem import Problem, as_problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from asearch.client import Client

PROBLEM = Problem("What is $12 - 3 \\cdot (4 + 5)$?")
MAX_STEPS = 12
POLLS = 2000


@dataclass(frozen=True, slots=True)
class Case:
    """What the laws are checked on.

    Args:
        client: under test, connected.
        root: an empty path.
        sampling: with a temperature above 0.
        seed: the first seed used.
        running: counts the sequences under way on the server, where a test can look there.
    """

    client: Client
    root: Path
    sampling: Sampling
    seed: int
    running: Callable[[], Awaitable[int]] | None = None

    @property
    def steps(self) -> bool:
        """Whether this client continues steps at all."""
        return bool(getattr(self.client, "can_continue", True))

    async def draw(self, path: Path, n: int, *, seed: int | None = None, **options: Any) -> list[Step]:
        """N continuations, of the kind that the client can write."""
        options = {"sampling": self.sampling, "whole": not self.steps, **options}
        return await self.client.extend(path, n, seed=self.seed if seed is None else seed, **options)

    @property
    def greedy(self) -> Sampling:
        return replace(self.sampling, temperature=0.0)


async def assert_client_laws(
    client: Client,
    *,
    problem: str | Problem = PROBLEM,
    sampling: Sampling | None = None,
    seed: int = 7,
    lossless: bool = True,
    running: Callable[[], Awaitable[int]] | None = None,
) -> None:
    """Check all laws on a client, one after another.

    Args:
        client: connected here, and left open.
        problem: something that the model answers in at least one step.
        sampling: with a temperature above 0; keep `max_tokens` small for slow servers.
        seed: of the first draw.
        lossless: whether greedy steps must add up to the greedy whole, token by token. So it is over token ids, and over
            text where the tokenizer reads its own output back as it wrote it; kernels whose results depend on the batch
            (bf16 on a GPU) may break ties differently.
        running: returns how many sequences run on the server, to see that a cancelled call ends there, too.

    Raises:
        AssertionError: naming the law that is broken, and what was seen.
    """
    await client.connect()
    root = Path(as_problem(problem))
    case = Case(client, root, sampling or Sampling(temperature=1.0, max_tokens=160), seed, running)
    for law in LAWS:
        if law is not whole_is_the_sum_of_its_steps or lossless:
            try:
                await law(case)
            except AssertionError as broken:
                raise AssertionError(f"law {law.__name__!r}: {law.__doc__} {broken}") from broken


async def n_continuations(case: Case) -> None:
    """extend(path, n) gives n steps, one for n=1 and several for more."""
    for n in (1, 3):
        steps = await case.draw(case.root, n)
        assert len(steps) == n, f"asked for {n}, got {len(steps)}"
        assert all(isinstance(step, Step) for step in steps), steps


async def the_prefix_is_the_parent(case: Case) -> None:
    """A step holds only what is new: its path is the parent and then the step, and no step tells the prompt again."""
    path = case.root
    for depth in range(3 if case.steps else 1):
        step = (await case.draw(path, 1, seed=case.seed + 100 * depth))[0]
        child = path.grow(step, 0)
        assert child.parent is path, child
        assert child.text == path.text + step.text, child.text
        assert case.root.problem.text not in step.text, f"the step repeats the prompt: {step.text!r}"
        assert depth < 2 or not step.text.startswith(path.text), f"the step repeats its parent: {step.text!r}"
        if child.finished:
            break
        path = child


async def a_step_ends_where_it_says(case: Case) -> None:
    """A `step` ends with the separator and holds no other; `eos` and `length` were not ended by one."""
    if not case.steps:
        return
    separator = case.sampling.separator
    for step in await case.draw(case.root, 4, whole=False):
        if step.finish == "step":
            assert step.text.endswith(separator), step
            assert separator not in step.text.removesuffix(separator), step
        else:
            assert separator not in step.text, step


async def tokens_are_counted(case: Case) -> None:
    """Every generated token is counted, there is one id for each where ids are given, and limits are kept."""
    few = replace(case.sampling, max_tokens=5)
    steps = await case.draw(case.root, 3)
    short = await case.draw(case.root, 3, sampling=few, whole=True)
    for step in (*steps, *short):
        assert step.tokens >= (1 if step.text else 0), step
        assert step.token_ids is None or len(step.token_ids) == step.tokens, step
    for step in short:
        assert step.tokens <= few.max_tokens, f"max_tokens={few.max_tokens}, and {step}"
        assert step.finish in ("length", "eos"), step
    for step in await case.draw(case.root, 2, whole=True, max_new=3):
        assert step.tokens <= 3, f"max_new=3, and {step}"


async def text_and_ids_agree(case: Case) -> None:
    """The ids of a step decode to its text (where the server can be asked)."""
    endpoint = getattr(case.client, "endpoint", None)
    for step in await case.draw(case.root, 2):
        if endpoint is None or not step.token_ids:
            return
        try:
            body = {"model": getattr(case.client, "model", None), "tokens": list(step.token_ids)}
            decoded = (await endpoint.post("/detokenize", body))["prompt"]
        except NotFound:
            return
        # the end-of-text token is in the ids and not in the text; a token may hold more line breaks than the separator
        rest = decoded.removeprefix(step.text)
        assert decoded.startswith(step.text), f"{decoded!r} is not {step.text!r}"
        assert step.finish == "eos" or not rest.strip(), f"ids say {decoded!r}, text says {step.text!r}"


async def one_beginning(case: Case) -> None:
    """The prompt that the server reads begins once (no second BOS), and a continuation's is the parent's and its step."""
    endpoint = getattr(case.client, "endpoint", None)
    if endpoint is None or not case.steps:
        return
    read: list[list[int]] = []

    def look(_route: str, body: Mapping[str, Any], reply: dict[str, Any]) -> None:
        ids = (reply.get("choices") or [{}])[0].get("prompt_token_ids")
        if ids:
            read.append(ids)
            assert ids[:1] != ids[1:2], f"the prompt begins twice: {ids[:4]}"
            assert not isinstance(body["prompt"], list) or ids == body["prompt"], "the server changed the prompt"

    endpoint.stats.on_exchange.append(look)
    try:
        step = (await case.draw(case.root, 1))[0]
        child = case.root.grow(replace(step, finish="step"), 0)
        await case.draw(child, 1)
    finally:
        endpoint.stats.on_exchange.remove(look)
    if len(read) == 2 and step.token_ids is not None:
        assert read[1] == [*read[0], *step.token_ids], f"{read[1]} does not go on from {read[0]} and {step.token_ids}"


async def whole_is_the_sum_of_its_steps(case: Case) -> None:
    """Greedy steps add up to the greedy whole: no second BOS, and the blank line between steps survives."""
    if not case.steps:
        return
    whole = (await case.draw(case.root, 1, sampling=case.greedy, whole=True))[0]
    path = case.root
    for _ in range(MAX_STEPS):
        step = (await case.draw(path, 1, sampling=case.greedy))[0]
        path = path.grow(step, 0)
        if path.finished:
            break
    pieces = [step.text for step in path.chain]
    assert whole.text.startswith(path.text), f"whole {whole.text!r}, in steps {pieces!r}"
    if whole.token_ids is not None and path.token_ids is not None:
        assert whole.token_ids[: path.tokens] == path.token_ids, f"whole {whole.token_ids}, in steps {path.token_ids}"
    if path.finished:
        assert (path.text, path.finish) == (whole.text, whole.finish), f"whole {whole!r}, in steps {pieces!r}"


async def same_seed_same_result(case: Case) -> None:
    """The same seed gives the same continuations."""
    first, again = [await case.draw(case.root, 3) for _ in range(2)]
    assert said(first) == said(again), f"{first} and {again}"


async def seeds_are_consecutive(case: Case) -> None:
    """Choice i of n is what n=1 gives with seed + i."""
    together = await case.draw(case.root, 3)
    alone = [(await case.draw(case.root, 1, seed=case.seed + i))[0] for i in range(3)]
    assert said(together) == said(alone), f"{together} and {alone}"


async def seeds_matter(case: Case) -> None:
    """Different seeds give different solutions: a client that ignores them makes every sample the same."""
    drawn = await case.draw(case.root, 12, whole=True)
    assert len({step.text for step in drawn}) > 1, f"12 seeds gave only {drawn[0]}"


async def greedy_samples_are_equal(case: Case) -> None:
    """At temperature 0 n may still be asked for, and all n are the same."""
    steps = await case.draw(case.root, 3, sampling=case.greedy)
    assert len(steps) == 3, steps
    assert len({(step.text, step.finish) for step in steps}) == 1, steps


async def no_room_is_length(case: Case) -> None:
    """A path that has used up its tokens, or the model's context, ends as `length` instead of being cut in silence."""
    if not case.steps:
        return
    steps = await case.draw(case.root, 1)
    path = case.root.grow(replace(steps[0], finish="step"), 0)
    spent = await case.draw(path, 2, sampling=replace(case.sampling, max_tokens=path.tokens))
    assert [(step.finish, step.text, step.tokens) for step in spent] == [("length", "", 0)] * 2, spent
    context = getattr(case.client, "max_model_len", None)
    if context is None or context > 32_768 or not path.tokens:
        return
    room = replace(case.sampling, max_tokens=10 * context)
    while path.tokens <= context:
        path = path.grow(replace(steps[0], finish="step"), 0)
    overflown = await case.draw(path, 2, sampling=room)
    assert [(step.finish, step.text) for step in overflown] == [("length", "")] * 2, overflown


async def whole_only_says_so(case: Case) -> None:
    """A client that cannot continue steps refuses before anything is sent."""
    if case.steps:
        return
    endpoint = getattr(case.client, "endpoint", None)
    before = endpoint.stats.requests if endpoint is not None else 0
    try:
        await case.draw(case.root, 1, whole=False)
    except UsageError:
        assert endpoint is None or endpoint.stats.requests == before, "a request was sent before the refusal"
        return
    raise AssertionError("extend(whole=False) was not refused")


async def cancelled_calls_leave_nothing(case: Case) -> None:
    """A cancelled call gives back what it held, here and on the server, and the next call works."""
    limiter = getattr(getattr(case.client, "endpoint", None), "limiter", None)
    task = asyncio.ensure_future(case.draw(case.root, 4, whole=True))
    await _until_under_way(case, task, limiter)
    task.cancel()
    await asyncio.wait([task])
    if limiter is not None:
        assert (limiter.in_use, limiter.waiting) == (0, 0), f"in use {limiter.in_use}, waiting {limiter.waiting}"
    if case.running is not None:
        left = await _settled(case.running)
        assert left == 0, f"{left} sequences still run on the server"
    assert len(await case.draw(case.root, 1)) == 1


def said(steps: Sequence[Step]) -> list[tuple[str, str, tuple[int, ...] | None]]:
    """What was written. Token counts are left out: without ids a server counts for all choices together."""
    return [(step.text, step.finish, step.token_ids) for step in steps]


async def _until_under_way(case: Case, task: asyncio.Future[Any], limiter: Any) -> None:
    """Wait until the call has got somewhere, so that there is something to cancel."""
    for _ in range(POLLS):
        if task.done():
            return
        if case.running is not None:
            if await case.running() > 0:
                return
        elif limiter is None or limiter.in_use:
            return
        await asyncio.sleep(0)


async def _settled(running: Callable[[], Awaitable[int]]) -> int:
    """How many run once the server has had time to notice."""
    left = 0
    for _ in range(POLLS):
        left = await running()
        if left == 0:
            break
    return left


LAWS: tuple[Callable[[Case], Awaitable[None]], ...] = (
    n_continuations,
    the_prefix_is_the_parent,
    a_step_ends_where_it_says,
    tokens_are_counted,
    text_and_ids_agree,
    one_beginning,
    whole_is_the_sum_of_its_steps,
    same_seed_same_result,
    seeds_are_consecutive,
    seeds_matter,
    greedy_samples_are_equal,
    no_room_is_length,
    whole_only_says_so,
    cancelled_calls_leave_nothing,
)
