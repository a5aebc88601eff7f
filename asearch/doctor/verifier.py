"""The checks of a verifier. What each found is judged in `judgements`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asearch.client import make_endpoint, served_model
from asearch.concurrency import together
from asearch.doctor.judgements import judge_burst, judge_cache, judge_family, judge_increments, judge_scores
from asearch.doctor.policy import PROBE, timed
from asearch.doctor.report import Finding
from asearch.doctor.servers import card_of, describe, read_twice
from asearch.errors import EndpointError, UsageError
from asearch.families import FAMILIES, Family
from asearch.path import Path, Step
from asearch.prm import as_prm
from asearch.prm.base import ServedPRM, as_family, identify
from asearch.prm.detect import prm_of
from asearch.problem import Problem
from asearch.transport import is_source

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from asearch.doctor.report import Patient
    from asearch.prm.base import Identity

GOOD = (
    "## Step 1: Add\n$4 + 5 = 9$, which leaves $12 - 3 \\cdot 9$.\n\n",
    "## Step 2: Multiply\n$3 \\cdot 9 = 27$, which leaves $12 - 27$.\n\n",
    "## Step 3: Subtract\n$12 - 27 = -15$.\n\n",
    "Therefore, the final answer is: $\\boxed{-15}$. I hope it is correct.",
)
BAD = (
    GOOD[0],
    "## Step 2: Multiply\n$3 \\cdot 9 = 24$, which leaves $12 - 24$.\n\n",
    "## Step 3: Subtract\n$12 - 24 = -12$.\n\n",
    "Therefore, the final answer is: $\\boxed{-12}$. I hope it is correct.",
)
WRONG = 2  # the step of BAD with the mistake
BURST = 16


class VerifierPatient:
    """A verifier under examination, and what is known about it so far.

    Args:
        prm: a URL or whatever else `as_prm` takes.
        model: served name, if not the first.
        family: how it reads solutions, if its name does not tell.
        wire: retries and timeouts for the endpoint.
    """

    role: Patient = "prm"

    def __init__(self, prm: Any, model: str | None, family: Family | str | None, wire: Mapping[str, Any]) -> None:
        self._given, self._wire = prm, wire
        self.model, self.family = model, as_family(family)
        self.length: int | None = None
        self.known: Family | None = None  # by the name of the model
        self.endpoint = make_endpoint(prm, role="prm", **wire) if is_source(prm) else None
        self.prm: Any = None if self.endpoint is not None else as_prm(prm)

    async def connect(self) -> Finding:
        """Reach it, and find out which server it is."""
        if self.endpoint is None:
            await self.prm.connect()
            return Finding("prm", "server", "pass", "a verifier of your own")
        served = await served_model(self.endpoint, self.model) if not await self._is_tgi() else None
        if served is not None:
            self.model, self.length = served
        return Finding("prm", "server", "pass", await describe(self.endpoint))

    async def _is_tgi(self) -> bool:
        assert self.endpoint is not None  # noqa: S101 - asked of servers only
        try:
            return "max_client_batch_size" in await self.endpoint.get("/info", patient=False)
        except EndpointError:
            return False

    async def aclose(self) -> None:
        if self.prm is not None:
            await self.prm.aclose()
        if self.endpoint is not None:
            await self.endpoint.aclose()

    def open(self, found: Identity) -> None:
        """Make the client for what the server turned out to be, on the same connections."""
        self.model, self.family = found.model, found.family
        self.prm = prm_of(self._given, found.family, own=found.server == "own", model=found.model, **self._wire)
        self.prm.endpoint = self.endpoint

    async def score(self, path: Path) -> Sequence[float]:
        """The scores of a path's unscored steps."""
        scores: Sequence[float] = await self.prm.score(path)
        return scores


def path_of(problem: Problem, steps: Sequence[str]) -> Path:
    """A finished solution."""
    path = Path(problem)
    for i, text in enumerate(steps):
        path = path.grow(Step(text, "eos" if i == len(steps) - 1 else "step", tokens=1), 0)
    return path


async def check_model(patient: VerifierPatient) -> Finding | None:
    """Its name and context."""
    if patient.endpoint is None or patient.model is None:
        return None
    card = await card_of(patient.endpoint, patient.model)
    root = card.get("root")
    of = f" ({root})" if root and root != patient.model else ""
    context = f", a context of {patient.length} tokens" if patient.length else ""
    return Finding("prm", "model", "pass", f"{patient.model}{of}{context}")


async def check_family(patient: VerifierPatient) -> Finding | None:
    """Whether it is read as it was trained; opens the client that fits."""
    if patient.endpoint is None:
        return None
    try:
        known: Family | None = (await identify(patient.endpoint, patient.model, None)).family
    except UsageError:
        known = None
    if known is None and patient.family is None:
        return Finding(
            "prm",
            "family",
            "fail",
            f"{patient.model!r} is no process reward model that is known by its name",
            f"pass --prm-family, one of {', '.join(FAMILIES)}, or serve a PRM there",
        )
    found = await identify(patient.endpoint, patient.model, patient.family)
    patient.open(found)
    return judge_family(found.family.name, known.name if known else None, found.model)


async def check_rows(patient: VerifierPatient) -> Finding | None:
    """Whether every step gets a score."""
    if patient.prm is None:
        return None
    scores = await patient.score(path_of(PROBE, GOOD))
    if len(scores) != len(GOOD):
        return Finding(
            "prm", "rows per step", "fail", f"{len(scores)} scores for {len(GOOD)} steps", "see docs/prms.md"
        )
    return Finding("prm", "rows per step", "pass", f"{len(scores)} scores for {len(GOOD)} steps")


async def check_scores(patient: VerifierPatient) -> Finding | None:
    """Whether a right solution is scored above a wrong one."""
    if patient.prm is None:
        return None
    good, bad = await together(patient.score(path_of(PROBE, steps)) for steps in (GOOD, BAD))
    return judge_scores(good, bad, WRONG)


async def check_increments(patient: VerifierPatient) -> Finding | None:
    """Whether a step's score depends on what comes after it.

    Of a verifier that reads a verdict after each prefix it cannot.
    """
    if patient.prm is None or getattr(patient.prm, "bounded", None) is not None:
        return None
    whole = await patient.score(path_of(PROBE, BAD))
    path, stepwise = Path(PROBE), []
    for i, text in enumerate(BAD):
        path = path.grow(Step(text, "eos" if i == len(BAD) - 1 else "step", tokens=1), 0)
        (score,) = await patient.score(path)
        path = path.with_scores([score])
        stepwise.append(score)
    return judge_increments(whole, stepwise)


async def check_exact(patient: VerifierPatient) -> Finding | None:
    """Whether both verdicts were among the tokens that the server returns."""
    bounded = getattr(patient.prm, "bounded", None)
    if bounded is None:
        return None
    if bounded:
        return Finding(
            "prm",
            "exact scores",
            "warn",
            f"{bounded} scores are bounds only: a verdict was not among the likeliest tokens that the server returns",
            "use vLLM 0.32 or later, which singles out tokens (logprob_token_ids)",
        )
    return Finding("prm", "exact scores", "pass", "both verdicts were there each time")


async def check_cache(patient: VerifierPatient) -> Finding | None:
    """Whether a prefix that was read is kept: for verdicts each step is a prompt of its own."""
    prm = patient.prm
    if not isinstance(prm, ServedPRM) or getattr(prm, "bounded", None) is None or prm.server == "tgi":
        return None
    text = " ".join(GOOD) * 3
    if patient.length is not None:  # a token has more than one character nearly everywhere
        text = text[: patient.length // 2]
    return judge_cache("prm", *await read_twice(prm.endpoint, str(prm.model), text))


async def check_burst(patient: VerifierPatient) -> Finding | None:
    """How fast it is alone, and with several at once."""
    if patient.prm is None:
        return None

    async def score(number: int) -> int:
        problem = Problem(PROBE.text.replace("12", str(10 + number)))  # what was asked before is not asked again
        return len(await patient.score(path_of(problem, GOOD)))

    async def several() -> int:
        return sum(await together(score(1 + i) for i in range(BURST)))

    before = patient.endpoint.stats.refusals if patient.endpoint is not None else 0
    alone, at_once = await timed(lambda: score(0)), await timed(several)
    refused = patient.endpoint.stats.refusals - before if patient.endpoint is not None else 0
    return judge_burst("prm", "steps", BURST, alone, at_once, refused)


VERIFIER_CHECKS: tuple[tuple[str, Callable[[VerifierPatient], Awaitable[Finding | None]]], ...] = (
    ("model", check_model),
    ("family", check_family),
    ("rows per step", check_rows),
    ("good above bad", check_scores),
    ("step by step", check_increments),
    ("exact scores", check_exact),
    ("prefix cache", check_cache),
    ("burst", check_burst),
)
