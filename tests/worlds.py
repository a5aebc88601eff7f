"""Scripted worlds: a policy and a verifier without models, whose every possible text and score is known beforehand."""

import asyncio
import hashlib
import itertools

import virtual_clock
from asearch import Step
from asearch.usage import ledger


def run(coroutine):
    """What a coroutine returns, on a virtual clock."""
    return virtual_clock.run(coroutine)[0]


def number(*parts):
    """A whole number that the parts determine, the same in every process."""
    return int.from_bytes(hashlib.blake2b("|".join(map(str, parts)).encode(), digest_size=6).digest(), "big")


class World:
    """A tree of texts: each beginning has `branching` continuations, each solution has `depth` steps.

    The last step states an answer. Scores are hashes of texts, and so are the answers.
    """

    def __init__(self, *, branching=3, depth=3, answers=4, name=""):
        self.branching, self.depth, self.answers, self.name = branching, depth, answers, name

    def step(self, before, choice):
        """The text of a step and why it ends, after the steps `before`."""
        mark = number(self.name, *before, choice) % 10**6
        if len(before) + 1 < self.depth:
            return f"## Step {len(before) + 1}: {mark}\n\n", "step"
        return f"Mark {mark}: the answer is $\\boxed{{{mark % self.answers}}}$.", "eos"

    def score(self, steps):
        """The verifier's verdict on the last of these steps."""
        return (number(self.name, "score", *steps) % 9973 + 1) / 9975

    def solutions(self):
        """Every complete solution, as a tuple of step texts."""
        for choices in itertools.product(range(self.branching), repeat=self.depth):
            steps = ()
            for choice in choices:
                steps += (self.step(steps, choice)[0],)
            yield steps


class ScriptedClient:
    """A policy that lives in a world.

    Args:
        world: what it can say.
        enumerate: choice i of a request is continuation i (modulo the branching), instead of one drawn by its seed.
        latency: (path, seed) -> seconds before the reply.
        fail: (path, seed) -> an exception to raise, or None.
        tokens: of each step.
    """

    can_continue = True

    def __init__(self, world, *, enumerate=False, latency=None, fail=None, tokens=10):  # noqa: A002
        self.world, self.enumerate, self.latency, self.fail, self.tokens = world, enumerate, latency, fail, tokens
        self.requests = self.steps = self.open = self.cancelled = self.connected = 0
        self.asked = []

    async def connect(self):
        self.connected += 1

    async def aclose(self):
        pass

    async def extend(self, path, n, *, sampling, seed, whole=False, max_new=None):
        book = ledger.get()
        async with book.reserved(self.tokens * n, at_least=n) as granted:
            book.open_call()
            self.requests += 1
            self.asked.append((path, n, seed, sampling))
            await self._wait(path, seed)
            steps = [self._write(path, i, seed + i, sampling, whole) for i in range(n)]
            if granted < self.tokens * n:
                steps = [Step(step.text[:3], "length", None, granted // n) for step in steps]
            self.steps += n
            book.book(requests=1, policy_tokens=sum(step.tokens for step in steps))
            return steps

    async def _wait(self, path, seed):
        self.open += 1
        try:
            if self.latency is not None:
                await asyncio.sleep(self.latency(path, seed))
            if self.fail is not None and (failure := self.fail(path, seed)) is not None:
                raise failure
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.open -= 1

    def _write(self, path, i, seed, sampling, whole):
        steps = tuple(step.text for step in path.chain)
        said, finish = "", "step"
        while finish == "step":
            choice = self._choose(i, seed, len(steps), sampling)
            text, finish = self.world.step(steps, choice % self.world.branching)
            steps += (text,)
            said += text
            if not whole:
                break
        return Step(said, finish, None, self.tokens)

    def _choose(self, i, seed, level, sampling):
        if sampling.temperature == 0:
            return 0
        return i if self.enumerate else number("choice", seed, level)


class ScriptedPRM:
    """A verifier that knows a world.

    Args:
        world: whose scores it gives.
        latency: path -> seconds before the reply.
        fail: path -> an exception to raise, or None.
        tokens: that it reads per step.
    """

    def __init__(self, world, *, latency=None, fail=None, tokens=0):
        self.world, self.latency, self.fail, self.tokens = world, latency, fail, tokens
        self.requests = self.steps = self.open = self.connected = 0

    async def connect(self):
        self.connected += 1

    async def aclose(self):
        pass

    async def score(self, path):
        book = ledger.get()
        new = len(path.unscored)
        async with book.reserved(self.tokens * new, at_least=self.tokens * new):
            book.open_call()
            self.requests += 1
            self.open += 1
            try:
                if self.latency is not None:
                    await asyncio.sleep(self.latency(path))
                if self.fail is not None and (failure := self.fail(path)) is not None:
                    raise failure
            finally:
                self.open -= 1
            texts = tuple(step.text for step in path.chain)
            self.steps += new
            book.book(prm_requests=1, scored=new, prm_tokens=self.tokens * new)
            return [self.world.score(texts[: i + 1]) for i in range(len(texts) - new, len(texts))]


class ListedClient:
    """A policy that reads its solutions from a list: sample i of the root is solution i (by the order of requests).

    Args:
        texts: what sample i says; a pair (text, finish) where it does not end by itself.
        latency: i -> seconds before the reply.
    """

    can_continue = True

    def __init__(self, texts, *, latency=None):
        self.texts, self.latency = texts, latency
        self.requests = self.open = self.cancelled = 0
        self._first = None

    async def connect(self):
        pass

    async def aclose(self):
        pass

    async def extend(self, path, n, *, sampling, seed, whole=False, max_new=None):
        self._first = seed if self._first is None else self._first  # seeds of siblings are consecutive
        ledger.get().open_call()
        self.requests += 1
        self.open += 1
        try:
            if self.latency is not None:
                await asyncio.sleep(self.latency(seed - self._first))
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.open -= 1
        ledger.get().book(requests=1)
        return [self._step(self.texts[seed - self._first + i]) for i in range(n)]

    @staticmethod
    def _step(text):
        text, finish = (text, "eos") if isinstance(text, str) else text
        return Step(text, finish, None, len(text))


def boxed(answer):
    """A one-step solution."""
    return f"The answer is $\\boxed{{{answer}}}$."
