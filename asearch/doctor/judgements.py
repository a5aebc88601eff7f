"""From what was seen to a verdict: plain functions, without a server in sight."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import TYPE_CHECKING

from asearch.doctor.report import Finding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asearch.doctor.report import Patient, Status
    from asearch.path import Path

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WRITTEN = (
    re.compile(r"\b(?P<y>\d{4})[-/.](?P<m>\d{1,2})[-/.](?P<d>\d{1,2})\b"),
    re.compile(r"\b(?P<d>\d{1,2})(?:st|nd|rd|th)?\s+(?P<n>[a-z]{3,9})\.?,?\s+(?P<y>\d{4})\b", re.IGNORECASE),
    re.compile(r"\b(?P<n>[a-z]{3,9})\.?\s+(?P<d>\d{1,2})(?:st|nd|rd|th)?,?\s+(?P<y>\d{4})\b", re.IGNORECASE),
)
FIXED_DATE = (
    'give the template a fixed one: vLLM --default-chat-template-kwargs \'{"date_string": "26 Jul 2024"}\' for Llama 3, '
    "or --chat-template FILE"
)
ROOM = 2048  # tokens of a solution at most, as the searches' default max_tokens is


def dates_in(text: str) -> list[date]:
    """The dates that a text names, whichever way they are written with the year in full."""
    found = []
    for pattern in WRITTEN:
        for match in pattern.finditer(text):
            parts = match.groupdict()
            name = (parts.get("n") or "")[:3].lower()
            month = MONTHS.index(name) + 1 if name in MONTHS else int(parts.get("m") or 0)
            try:
                found.append(date(int(parts["y"]), month, int(parts["d"])))
            except ValueError:  # no such day
                continue
    return found


def judge_dates(rendered: str, said: str, today: date) -> Finding:
    """Whether the rendered prompt names a date that nobody said.

    Args:
        rendered: the prompt as the model reads it.
        said: the messages that went in.
        today: by this machine; the server may live in another time zone.
    """
    own = set(dates_in(said))
    added = [day for day in dates_in(rendered) if day not in own]
    if any(abs(day - today) <= timedelta(days=1) for day in added):
        return Finding(
            "policy",
            "date",
            "warn",
            "the chat template writes today's date into the system prompt, so the same search differs from day to day",
            FIXED_DATE,
        )
    if added:
        return Finding("policy", "date", "pass", f"the chat template writes a fixed date ({added[0].isoformat()})")
    return Finding("policy", "date", "pass", "the chat template writes no date")


def judge_beginning(ids: Sequence[int], added: Sequence[int]) -> Finding:
    """How often the prompt has its beginning of text.

    Args:
        ids: the prompt as the model reads it.
        added: the tokens that the tokenizer puts before a plain text.
    """
    if not added:
        return Finding(
            "policy", "one BOS", "pass", "the tokenizer puts no BOS before a text, and the prompt has no second"
        )
    bos, leading = added[0], 0
    for token in ids:
        if token != bos:
            break
        leading += 1
    if leading > 1:
        return Finding(
            "policy",
            "one BOS",
            "fail",
            f"the prompt begins with {leading} BOS tokens (id {bos}): answers get worse, and nothing says so",
            "the server adds one to what the chat template has written: turn that off, or take the BOS out of the template",
        )
    if not leading:
        return Finding(
            "policy",
            "one BOS",
            "warn",
            f"the prompt has no BOS (id {bos}), which this tokenizer puts before every plain text",
            "check the chat template against the model's own: most write the BOS themselves",
        )
    return Finding("policy", "one BOS", "pass", f"the prompt begins with one BOS (id {bos})")


def judge_context(model: str, length: int | None, prompt: int | None, *, short: bool) -> Finding:
    """Whether a solution of usual length fits.

    Args:
        model: its served name.
        length: tokens of the context, where the server says.
        prompt: tokens of the probe's prompt, where they can be counted.
        short: the model is one whose solutions are known to be short.
    """
    if length is None:
        return Finding("policy", "model", "pass", f"{model}; it does not say how long its context is")
    needed = (prompt or 0) + (ROOM // 8 if short else ROOM)
    if length >= needed:
        return Finding("policy", "model", "pass", f"{model}, a context of {length} tokens")
    return Finding(
        "policy",
        "model",
        "warn",
        f"{model} has a context of {length} tokens; solutions longer than {max(0, length - (prompt or 0))} are cut off "
        "and have no vote",
        f"serve it with room for {needed}, such as vLLM --max-model-len 4096, or pass --max-tokens {ROOM // 4}",
    )


def judge_steps(path: Path, separator: str, budget: int) -> Finding:
    """Whether a solution that was written step by step came in steps.

    Args:
        path: how far it came.
        separator: what ends a step.
        budget: tokens or steps that it was given, for the message.
    """
    steps = [step.text for step in path.chain]
    inside = next((i for i, text in enumerate(steps, 1) if separator in text.strip()), None)
    if inside is not None:
        return _steps(
            "fail",
            f"step {inside} goes on beyond a blank line: the server does not stop where it is told to",
            "a gateway in between may drop `stop`: connect to the engine itself",
        )
    blank = next((i for i, text in enumerate(steps, 1) if not text.strip()), None)
    if blank is not None:
        return _steps(
            "fail",
            f"step {blank} is blank: the model writes the blank line again that it has already written",
            "the end of the assistant's turn is trimmed on its way: use a server that continues token ids (vLLM)",
        )
    if path.finish == "length":
        return _steps(
            "warn",
            f"an easy problem is not solved within {budget} tokens: {len(steps)} steps, and no end of text",
            "is this an instruction-tuned model, and are the end-of-text ids of its generation_config right?",
        )
    if path.finish == "step":
        return _steps(
            "warn",
            f"an easy problem is not solved within {len(steps)} steps",
            "the model rambles: is it instruction-tuned, is its chat template the right one?",
        )
    if len(steps) == 1:
        return _steps(
            "warn",
            "the model writes its solution in one piece, without blank lines: there are no steps to search over",
            "ask for steps in the system prompt, or use best-of-n",
        )
    return _steps("pass", f"{len(steps)} steps, each up to its blank line, and the end of the text")


def _steps(status: Status, found: str, advice: str = "") -> Finding:
    return Finding("policy", "steps", status, found, advice)


def judge_seeds(first: list[str], again: list[str], others: list[str], single: str) -> Finding:
    """Whether samples are what their seeds say.

    Args:
        first: the texts of n samples with seeds s, s+1, ...
        again: of the same request once more.
        others: of n samples with other seeds.
        single: of one sample with seed s+1.
    """
    if len({*first, *others}) == 1:
        return Finding(
            "policy",
            "seeds",
            "fail",
            f"{len(first) + len(others)} samples at temperature 1 are all the same: more samples bring nothing",
            "something between here and the model fixes seed or temperature: connect to the engine itself",
        )
    if first == others:
        return Finding(
            "policy",
            "seeds",
            "fail",
            "other seeds give the same samples: each round of a search would draw what it has already",
            "something between here and the model fixes the seed: connect to the engine itself",
        )
    if first != again:
        differ = sum(a != b for a, b in zip(first, again, strict=True))
        return Finding(
            "policy",
            "seeds",
            "warn",
            f"the same seeds give other samples ({differ} of {len(first)}): searches cannot be repeated exactly",
            "where results must be repeatable, use an engine that takes seeds; half-precision kernels may depend on the "
            "batch (vLLM: VLLM_BATCH_INVARIANT=1)",
        )
    if single != first[1]:
        return Finding(
            "policy",
            "seeds",
            "warn",
            "a sample depends on how many are asked for at once: the same seed gives another text alone",
            "results can be repeated with the same n only",
        )
    return Finding("policy", "seeds", "pass", "the same seeds give the same samples, other seeds others")


def judge_defaults(changed: Sequence[str]) -> Finding:
    """Whether leaving a sampling parameter out changes what is sampled."""
    if changed:
        return Finding(
            "policy",
            "sampling defaults",
            "warn",
            f"the server has defaults of its own for {', '.join(changed)} (from the checkpoint's generation_config); "
            "asearch sends every parameter, other clients sample differently",
            "vLLM: --generation-config vllm",
        )
    return Finding("policy", "sampling defaults", "pass", "what is left out of a request is neutral")


def judge_cache(server: Patient, prompt: int, cached: float | None) -> Finding | None:
    """Whether a prompt that was sent before is read from the cache; None where the server does not tell."""
    if cached is None:
        return None
    if cached > 0:
        return Finding(server, "prefix cache", "pass", f"on: {cached:.0f} of {prompt} tokens of a repeated prompt")
    return Finding(
        server,
        "prefix cache",
        "warn",
        f"off: a prompt of {prompt} tokens that was just read is read again, and so is every path at every step",
        "vLLM: leave out --no-enable-prefix-caching",
    )


def judge_burst(
    server: Patient,
    what: str,
    count: int,
    alone: tuple[int, float],
    at_once: tuple[int, float],
    refused: int,
) -> Finding:
    """What a short burst says about throughput.

    Args:
        server: whose.
        what: the unit of the amounts.
        count: how many were at once.
        alone: how much a single one brought, and its seconds.
        at_once: how much all of them brought together, and their seconds.
        refused: answers that asked to come back later.
    """
    single, rate = (amount / max(seconds, 1e-9) for amount, seconds in (alone, at_once))
    speed = f"{rate:,.0f} {what}/s with {count} at once, {single:,.0f} alone"
    if refused:
        return Finding(
            server,
            "burst",
            "warn",
            f"{speed}, but {refused} requests were refused for being too many",
            "raise the server's limit (vLLM --max-num-queued-reqs), or lower ours (limit=)",
        )
    # Writing waits for memory, so several cost hardly more than one. Reading is arithmetic: a verifier may well be no
    # faster with several, and a CPU is not.
    if server == "policy" and rate < 1.2 * single:
        return Finding(
            server,
            "burst",
            "warn",
            f"{speed}: it does one after another",
            "raise the sequences that run at once (vLLM --max-num-seqs), or look what stands in between",
        )
    return Finding(server, "burst", "pass", speed)


def judge_scores(good: Sequence[float], bad: Sequence[float], wrong: int) -> Finding:
    """Whether a right solution is scored above a wrong one.

    Args:
        good: step scores of the right one.
        bad: those of the wrong one.
        wrong: the step with the mistake, from 1.
    """
    seen = f"a right solution gets {good[-1]:.3f}, a wrong one {bad[-1]:.3f} (its mistake, step {wrong}: {bad[wrong - 1]:.3f})"
    if not good[-1] > bad[-1]:
        return Finding(
            "prm",
            "good above bad",
            "fail",
            f"{seen}: it would lead the search astray",
            "the family does not fit the model, or the model does not fit mathematics: see --prm-family",
        )
    if good[-1] - bad[-1] < 0.1:
        return Finding("prm", "good above bad", "warn", f"{seen}: hardly apart", "is the family right for this model?")
    return Finding("prm", "good above bad", "pass", seen)


def judge_increments(whole: Sequence[float], stepwise: Sequence[float]) -> Finding:
    """Whether steps get the same scores one by one as in one go."""
    worst = max(abs(a - b) for a, b in zip(whole, stepwise, strict=True))
    if worst > 0.05:
        return Finding(
            "prm",
            "step by step",
            "warn",
            f"a step's score depends on when it is asked for (by {worst:.2f}), so a tree search ranks by other numbers",
            "the model reads on beyond the step, or the server lays steps out differently: is the family right?",
        )
    return Finding("prm", "step by step", "pass", f"scores are the same one by one and in one go (within {worst:.4f})")


def judge_family(given: str | None, known: str | None, model: str) -> Finding:
    """Whether the family is the one that the model's name says.

    Args:
        given: the family in use.
        known: the one that the name of the model stands for.
        model: its name.
    """
    if known is None:
        return Finding("prm", "family", "pass", f"{given}, as you say; the name {model!r} does not tell")
    if given != known:
        return Finding(
            "prm",
            "family",
            "fail",
            f"{model} is of the family {known}, and would be read as {given}",
            "leave --prm-family out",
        )
    return Finding("prm", "family", "pass", f"{given}")
