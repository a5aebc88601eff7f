"""The checks of a policy. What each found is judged in `judgements`."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from asearch.client import as_client
from asearch.concurrency import together
from asearch.doctor.judgements import (
    judge_beginning,
    judge_burst,
    judge_cache,
    judge_context,
    judge_dates,
    judge_defaults,
    judge_seeds,
    judge_steps,
)
from asearch.doctor.report import Finding
from asearch.doctor.servers import card_of, describe, leading, read_twice
from asearch.errors import BadRequest, NotFound, ProtocolError
from asearch.path import Path, Sampling
from asearch.problem import STEP_SEPARATOR, Problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from asearch.client import Client
    from asearch.doctor.report import Patient

PROBE = Problem(r"What is $12 - 3 \cdot (4 + 5)$?")
MOST_STEPS, MOST_TOKENS = 12, 640
SAMPLES, SAMPLE_TOKENS = 4, 64
BURST, BURST_TOKENS = 16, 32
CACHED_PROMPT = 320  # tokens: more than two blocks of any engine's cache (vLLM on a CPU has blocks of 128)
# What neutral sampling is; all of them are sent but the one that is looked at.
NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
HOT = 2.0  # makes what cuts off the unlikely tokens show
NOT_HERE = (NotFound, BadRequest, ProtocolError)
WHOLE_ONLY = "only majority, best-of-n and greedy work; to search over steps use vLLM, SGLang or TGI"


class PolicyPatient:
    """A policy under examination, and what is known about it so far.

    Args:
        policy: a URL or whatever else `as_client` takes.
        model: served name, if not the first.
        wire: retries and timeouts for the endpoint.
    """

    role: Patient = "policy"

    def __init__(self, policy: Any, model: str | None, wire: Mapping[str, Any]) -> None:
        self.client: Client = as_client(policy, model=model, **wire)
        self.seeded = False  # its samples are what their seeds say

    async def connect(self) -> Finding:
        """Reach it, and find out which server it is."""
        await self.client.connect()
        where = await describe(self.endpoint) if self.endpoint is not None else repr(self.client)
        return Finding("policy", "server", "pass", where)

    async def aclose(self) -> None:
        await self.client.aclose()

    @property
    def endpoint(self) -> Any:
        """Its endpoint; None for a client of the user's own."""
        return getattr(self.client, "endpoint", None)

    @property
    def model(self) -> str:
        return str(getattr(self.client, "model", None))

    @property
    def mode(self) -> str:
        """How it is spoken to: "tokens", "text", "prefill", "chat"; "tgi"; or "own" for a client of the user's own."""
        if self.endpoint is None:
            return "own"
        return str(getattr(self.client, "mode", None) or "tgi")

    @property
    def can_continue(self) -> bool:
        return getattr(self.client, "can_continue", True)

    async def rendered(self) -> tuple[list[int] | None, str | None]:
        """The prompt of the probe as the model reads it, as ids and as text, as far as the server tells."""
        if self.mode == "tgi":
            reply = await self.endpoint.post("/chat_tokenize", {"messages": PROBE.messages})
            written = [t["id"] for t in reply["tokenize_response"] if t["stop"] > t["start"]]
            return written, str(reply["templated_text"])
        if self.mode not in ("tokens", "text"):
            return None, None
        ids = await self.tokenize(messages=PROBE.messages, add_generation_prompt=True)
        reply = await self.endpoint.post("/detokenize", {"model": self.model, "tokens": ids})
        return ids, str(reply.get("prompt"))

    async def tokenize(self, **what: Any) -> list[int]:
        """The ids of a text or a chat."""
        if self.mode == "tgi":
            return [token["id"] for token in await self.endpoint.post_list("/tokenize", {"inputs": what["prompt"]})]
        tokens = (await self.endpoint.post("/tokenize", {"model": self.model, **what})).get("tokens")
        if not isinstance(tokens, list):
            raise ProtocolError("/tokenize answered without tokens", endpoint=self.endpoint.url)
        return tokens


async def check_model(patient: PolicyPatient) -> Finding:
    """Its name, and whether solutions fit into its context."""
    length = getattr(patient.client, "max_model_len", None)
    card = await card_of(patient.endpoint, patient.model) if patient.endpoint is not None else {}
    ids, _ = await patient.rendered()
    return judge_context(patient.model, length, len(ids) if ids else None, short=card.get("owned_by") == "asearch")


async def check_mode(patient: PolicyPatient) -> Finding | None:
    """How a solution can be continued there."""
    how = {
        "tokens": ("pass", "by token ids: exact"),
        "text": ("pass", "by text: exact up to how the tokenizer reads its own output back"),
        "prefill": ("pass", "by the assistant's unfinished turn, whose blank line the template keeps"),
        "tgi": ("pass", "by text over /generate"),
        "chat": ("warn", "not at all: it writes whole solutions only"),
    }
    if patient.mode not in how:
        return None
    status, found = how[patient.mode]
    return Finding(
        "policy", "continuing", "warn" if status == "warn" else "pass", found, WHOLE_ONLY * (status == "warn")
    )


async def check_beginning(patient: PolicyPatient) -> Finding | None:
    """Whether the prompt begins once."""
    ids, _ = await patient.rendered()
    if ids is None:
        return None
    if patient.mode == "tgi":
        added = (await patient.tokenize(prompt="1"))[:1]
        return judge_beginning(ids if ids[:1] == added else [*added, *ids], added)
    plain = await patient.tokenize(prompt="1", add_special_tokens=False)
    return judge_beginning(await _as_read(patient, ids), leading(await patient.tokenize(prompt="1"), plain))


async def _as_read(patient: PolicyPatient, ids: list[int]) -> list[int]:
    """The ids that the engine says it has read for a rendered prompt; where it does not say, those that were sent."""
    prompt: Any = ids
    if patient.mode == "text":
        prompt = (await patient.endpoint.post("/detokenize", {"model": patient.model, "tokens": ids}))["prompt"]
    body = {"model": patient.model, "prompt": prompt, "max_tokens": 1, "temperature": 0.0}
    reply = await patient.endpoint.post(
        "/v1/completions", {**body, "add_special_tokens": False, "return_token_ids": True}
    )
    read = reply["choices"][0].get("prompt_token_ids") if reply.get("choices") else None
    if isinstance(read, list):
        return read
    more = int((reply.get("usage") or {}).get("prompt_tokens") or 0) - len(ids)
    return [*ids[:1] * max(0, more), *ids]  # it counts more tokens than were sent: it has put some before them


async def check_blank_line(patient: PolicyPatient) -> Finding | None:
    """Whether the chat template keeps the blank line at the end of the assistant's unfinished turn."""
    if patient.mode in ("tgi", "own"):
        return None
    try:
        bare, blank = [await _continued(patient, text) for text in ("A", f"A{STEP_SEPARATOR}")]
    except NOT_HERE:
        return None  # a hosted API: nothing can be said
    if len(blank) > len(bare):
        return Finding("policy", "blank line", "pass", "the chat template keeps the blank line that ends a step")
    found = "the chat template trims the blank line that ends a step"
    if patient.can_continue:
        return Finding("policy", "blank line", "pass", f"{found}; harmless, since no chat turn is continued")
    return Finding(
        "policy",
        "blank line",
        "warn",
        f"{found}, so the model would write it again: an empty step",
        "serve the model with a template that does not trim the assistant's turn (vLLM --chat-template FILE)",
    )


async def _continued(patient: PolicyPatient, text: str) -> list[int]:
    messages = [{"role": "user", "content": "1"}, {"role": "assistant", "content": text}]
    return await patient.tokenize(messages=messages, add_generation_prompt=False, continue_final_message=True)


async def check_date(patient: PolicyPatient) -> Finding | None:
    """Whether the prompt depends on the day."""
    _, text = await patient.rendered()
    if text is None:
        return None
    said = "\n".join(message["content"] for message in PROBE.messages)
    return judge_dates(text, said, datetime.now(UTC).date())


async def check_steps(patient: PolicyPatient) -> Finding | None:
    """Whether a solution comes in steps, and ends."""
    if not patient.can_continue:
        return None
    path, sampling = Path(PROBE), Sampling(temperature=0.0, max_tokens=MOST_TOKENS)
    while not path.finished and path.depth < MOST_STEPS:
        (step,) = await patient.client.extend(path, 1, sampling=sampling, seed=0)
        path = path.grow(step, 0)
    return judge_steps(path, STEP_SEPARATOR, MOST_TOKENS)


async def check_seeds(patient: PolicyPatient) -> Finding:
    """Whether samples are what their seeds say."""
    first, again, others = [await _samples(patient, SAMPLES, seed) for seed in (7, 7, 1007)]
    (single,) = await _samples(patient, 1, 8)
    patient.seeded = first == again
    return judge_seeds(first, again, others, single)


async def _samples(patient: PolicyPatient, n: int, seed: int) -> list[str]:
    sampling = Sampling(temperature=1.0)
    steps = await patient.client.extend(Path(PROBE), n, sampling=sampling, seed=seed, whole=True, max_new=SAMPLE_TOKENS)
    return [step.text for step in steps]


async def check_defaults(patient: PolicyPatient) -> Finding | None:
    """Whether leaving out a sampling parameter changes the samples of a seed."""
    if patient.mode not in ("tokens", "text") or not patient.seeded:
        return None
    prompt = await patient.tokenize(prompt=PROBE.text, add_special_tokens=False)

    async def texts(options: Mapping[str, Any]) -> list[str]:
        body = {"model": patient.model, "prompt": prompt, "n": 8, "max_tokens": 32, "seed": 11, **options}
        reply = await patient.endpoint.post("/v1/completions", body, units=8)
        return [str(choice.get("text")) for choice in sorted(reply["choices"], key=lambda choice: choice["index"])]

    warm, hot = await texts(NEUTRAL), await texts({**NEUTRAL, "temperature": HOT})
    changed = []
    for name in NEUTRAL:
        given = NEUTRAL if name == "temperature" else {**NEUTRAL, "temperature": HOT}
        left = {key: value for key, value in given.items() if key != name}
        if await texts(left) != (warm if name == "temperature" else hot):
            changed.append(name)
    return judge_defaults(changed)


async def check_cache(patient: PolicyPatient) -> Finding | None:
    """Whether what has been read is kept."""
    if patient.mode not in ("tokens", "text"):
        return None
    once = await patient.tokenize(prompt=PROBE.text + "\n\n", add_special_tokens=False)
    longest = (getattr(patient.client, "max_model_len", None) or 2 * CACHED_PROMPT) // 2
    wanted = min(CACHED_PROMPT, longest)
    ids = (once * (wanted // len(once) + 1))[:wanted]
    prompt: Any = ids
    if patient.mode == "text":
        prompt = (PROBE.text + "\n\n") * (wanted // len(once))
    return judge_cache("policy", *await read_twice(patient.endpoint, patient.model, prompt))


async def check_burst(patient: PolicyPatient) -> Finding:
    """How fast it is alone, and with several at once."""
    several = BURST if patient.can_continue else 4  # hosted APIs are billed by the token
    sampling = Sampling(temperature=0.8)
    before = patient.endpoint.stats.refusals if patient.endpoint is not None else 0

    async def write(n: int, seed: int) -> int:
        steps = await patient.client.extend(
            Path(PROBE), n, sampling=sampling, seed=seed, whole=True, max_new=BURST_TOKENS
        )
        return sum(step.tokens for step in steps)

    alone = await timed(lambda: write(1, 1))
    at_once = await timed(lambda: _sum(write(1, 2 + i) for i in range(several)))
    refused = patient.endpoint.stats.refusals - before if patient.endpoint is not None else 0
    return judge_burst("policy", "tokens", several, alone, at_once, refused)


async def _sum(works: Any) -> int:
    return sum(await together(works))


async def timed(work: Callable[[], Awaitable[int]]) -> tuple[int, float]:
    """How much some work brought, and the seconds that it took."""
    began = time.perf_counter()
    amount = await work()
    return amount, time.perf_counter() - began


POLICY_CHECKS: tuple[tuple[str, Callable[[PolicyPatient], Awaitable[Finding | None]]], ...] = (
    ("model", check_model),
    ("continuing", check_mode),
    ("one BOS", check_beginning),
    ("blank line", check_blank_line),
    ("date", check_date),
    ("steps", check_steps),
    ("seeds", check_seeds),
    ("sampling defaults", check_defaults),
    ("prefix cache", check_cache),
    ("burst", check_burst),
)
