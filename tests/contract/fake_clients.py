"""A policy without a server: a tiny world of words, drawn by hashes. And clients that break one law each."""

import asyncio
import hashlib
from dataclasses import replace
from types import SimpleNamespace

from asearch.concurrency import Limiter
from asearch.errors import UsageError
from asearch.path import Step

WORDS = ("add", "take", "times", "seven", "twelve", "is", "so")
SEPARATOR = "\n\n"


class FakeClient:
    """Writes words of four tokens at most, one id each; the third step is the last."""

    can_continue = True
    max_model_len = 64
    prompt_tokens = 10

    def __init__(self):
        self.endpoint = SimpleNamespace(
            limiter=Limiter(64), stats=SimpleNamespace(requests=0, on_exchange=[]), post=self._post
        )
        self.under_way = 0

    async def connect(self):
        pass

    async def aclose(self):
        pass

    async def extend(self, path, n, *, sampling, seed, whole=False, max_new=None):
        room = min(sampling.max_tokens - path.tokens, self.max_model_len - self.prompt_tokens - path.tokens)
        if room < 1:
            return [Step("", "length", ())] * n
        limit = room if max_new is None else min(room, max_new)
        seeds = [seed + i if sampling.temperature > 0 else None for i in range(n)]
        async with self.endpoint.limiter.hold(n):
            self.under_way += 1
            try:
                await asyncio.sleep(0)
                return [self.write(path, s, limit, whole=whole) for s in seeds]
            finally:
                self.under_way -= 1

    def write(self, path, seed, limit, *, whole):
        """One continuation."""
        text = path.text
        written = []
        while len(written) < limit:
            word = self.next_word(text, seed)
            written.append(word)
            text += word
            if word == "<end>" or (word == SEPARATOR and not whole):
                break
        finish = {"<end>": "eos", SEPARATOR: "length" if whole else "step"}.get(written[-1], "length")
        said = "".join(written).removesuffix("<end>")
        return Step(said, finish, tuple(map(self.id_of, written)), len(written))

    def next_word(self, text, seed):
        if text.count(SEPARATOR) == 2:
            return "<end>" if text.endswith("9") else "9"
        done = len(text.rpartition(SEPARATOR)[2].split())
        if done >= 2:
            return SEPARATOR
        number = hashlib.blake2b(f"{text}|{seed}".encode(), digest_size=4).digest()
        return f" {WORDS[int.from_bytes(number, 'big') % len(WORDS)]}"

    def id_of(self, word):
        return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=3).digest(), "big")

    async def _post(self, route, body, **_):
        assert route == "/detokenize"
        known = [f" {word}" for word in WORDS] + [SEPARATOR, "9", "<end>"]
        names = {self.id_of(word): word for word in known}
        return {"prompt": "".join(names[token] for token in body["tokens"])}


def altered(change):
    """A client whose steps are changed after they were written; `change` gets (step, path, options, index)."""

    class Altered(FakeClient):
        async def extend(self, path, n, **options):
            steps = await super().extend(path, n, **options)
            return [change(step, path, options, i) for i, step in enumerate(steps)]

    return Altered


class OneTooMany(FakeClient):
    async def extend(self, path, n, **options):
        return await super().extend(path, n + (n > 1), **options)


class SecondBOS(FakeClient):
    async def extend(self, path, n, **options):
        for look in self.endpoint.stats.on_exchange:
            look("/v1/completions", {"prompt": "text"}, {"choices": [{"prompt_token_ids": [1, 1, 5]}]})
        return await super().extend(path, n, **options)


class Trimmed(FakeClient):
    """Loses the blank line at the end of a prompt, as many chat templates do."""

    def next_word(self, text, seed):
        fresh = text.endswith(SEPARATOR) and text.count(SEPARATOR) == 1
        return " so" if fresh and self.prompted else super().next_word(text, seed)

    def write(self, path, seed, limit, *, whole):
        self.prompted = path.step is not None
        return super().write(path, seed, limit, whole=whole)


class SharedSeed(FakeClient):
    async def extend(self, path, n, *, seed, **options):
        return [(await super(SharedSeed, self).extend(path, 1, seed=seed, **options))[0] for _ in range(n)]


class NoSeed(FakeClient):
    def __init__(self):
        super().__init__()
        self.calls = 0

    async def extend(self, path, n, *, seed, **options):
        self.calls += 1
        return await super().extend(path, n, seed=seed + 1000 * self.calls, **options)


class Unseeded(FakeClient):
    def next_word(self, text, seed):
        return super().next_word(text, None)


class Overflows(FakeClient):
    max_model_len = 64

    async def extend(self, path, n, **options):
        steps = await super().extend(path, n, **options)
        full = path.tokens + self.prompt_tokens >= self.max_model_len
        return [Step(" cut", "step", (1,), 1)] * n if full else steps


class WholeOnlySilently(FakeClient):
    can_continue = False


class WholeOnly(FakeClient):
    can_continue = False

    async def extend(self, path, n, *, whole=False, **options):
        if not whole:
            raise UsageError("whole solutions only")
        return await super().extend(path, n, whole=True, **options)


class Leaky(FakeClient):
    async def extend(self, path, n, **options):
        self.endpoint.limiter.in_use += 1
        steps = await super().extend(path, n, **options)
        self.endpoint.limiter.in_use -= 1
        return steps


def repeats_the_prompt(step, path, options, i):
    return replace(step, text=path.problem.text + step.text)


def runs_on(step, path, options, i):
    return step if options.get("whole") else replace(step, text=step.text + " more", finish="step")


def miscounts(step, path, options, i):
    return replace(step, tokens=step.tokens + 1)


def varies_when_greedy(step, path, options, i):
    return step if options["sampling"].temperature or not i else replace(step, text=f" so{step.text}")


def misspells(step, path, options, i):
    return replace(step, text=step.text.replace(" ", "_"))


BREAKAGES = {
    "n_continuations": OneTooMany,
    "the_prefix_is_the_parent": altered(repeats_the_prompt),
    "a_step_ends_where_it_says": altered(runs_on),
    "tokens_are_counted": altered(miscounts),
    "text_and_ids_agree": altered(misspells),
    "one_beginning": SecondBOS,
    "whole_is_the_sum_of_its_steps": Trimmed,
    "same_seed_same_result": NoSeed,
    "seeds_are_consecutive": SharedSeed,
    "seeds_matter": Unseeded,
    "greedy_samples_are_equal": altered(varies_when_greedy),
    "no_room_is_length": Overflows,
    "whole_only_says_so": WholeOnlySilently,
    "cancelled_calls_leave_nothing": Leaky,
}
