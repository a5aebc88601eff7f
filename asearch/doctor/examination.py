"""The visit: open what is to be examined, go through the checks, and keep going when one of them breaks."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

from asearch.doctor.policy import POLICY_CHECKS, PolicyPatient
from asearch.doctor.report import Finding, Report
from asearch.doctor.verifier import VERIFIER_CHECKS, VerifierPatient
from asearch.errors import (
    AsearchError,
    AuthError,
    ModelNotFound,
    NotFound,
    Overloaded,
    ProtocolError,
    RequestTimeout,
    TLSFailed,
    Unreachable,
    UsageError,
)
from asearch.transport import Retry, Timeouts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from asearch.doctor.report import Patient
    from asearch.families import Family

# Patience of an examination, not of a search: two tries, and no request goes on for minutes.
WIRE = {
    "retry": Retry(attempts=2, total=5.0),
    "timeouts": Timeouts(connect=5.0, read=60.0, first=15.0),
}
ADVICE: tuple[tuple[type[AsearchError], str], ...] = (
    (TLSFailed, "check http or https, and the certificate"),
    (Unreachable, "start the server, or correct host and port (inside containers: the service's name)"),
    (RequestTimeout, "look into the server's log; a model that is still being loaded answers later"),
    (Overloaded, "wait until others are done, or let it take more at once"),
    (AuthError, "pass the server's key in OPENAI_API_KEY"),
    (ModelNotFound, "pass --policy-model or --prm-model as the server lists it"),
    (NotFound, "is it the right server, and the right one of the two?"),
    (ProtocolError, "is it the right server, and its version one that the docs name?"),
    (UsageError, ""),
)


async def diagnose(
    policy: Any = None,
    prm: Any = None,
    *,
    policy_model: str | None = None,
    prm_model: str | None = None,
    prm_family: Family | str | None = None,
    patience: float = 120.0,
    tell: Callable[[Finding], None] | None = None,
) -> Report:
    """Examine a policy, a verifier, or both.

    Args:
        policy: a URL or whatever else `as_client` takes.
        prm: a URL or whatever else `as_prm` takes.
        policy_model: served name, if not the first.
        prm_model: served name, if not the first.
        prm_family: how the verifier reads solutions, if its name does not tell.
        patience: seconds for each check.
        tell: is told each finding as it is made.

    Raises:
        UsageError: there is nothing to examine.
    """
    if policy is None and prm is None:
        raise UsageError("nothing to examine: pass a policy, a verifier, or both")
    findings: list[Finding] = []
    visits = []
    if policy is not None:
        visits.append(_visit(PolicyPatient(policy, policy_model, WIRE), POLICY_CHECKS, patience))
    if prm is not None:
        visits.append(_visit(VerifierPatient(prm, prm_model, prm_family, WIRE), VERIFIER_CHECKS, patience))
    for visit in visits:
        async for finding in visit:
            findings.append(finding)
            if tell is not None:
                tell(finding)
    return Report(tuple(findings))


async def _visit(
    patient: Any, checks: Sequence[tuple[str, Callable[[Any], Awaitable[Finding | None]]]], patience: float
) -> AsyncIterator[Finding]:
    """One server: if it cannot be reached or understood at all, that is the only finding."""
    try:
        for i, (name, check) in enumerate([("server", type(patient).connect), *checks]):
            finding = await _careful(patient.role, name, functools.partial(check, patient), patience)
            if finding is not None:
                yield finding
            if i == 0 and finding is not None and finding.status == "fail":
                return
    finally:
        await patient.aclose()


async def _careful(
    role: Patient, name: str, check: Callable[[], Awaitable[Finding | None]], patience: float
) -> Finding | None:
    """The finding of a check; that it broke, or took too long, is one as well."""
    try:
        async with asyncio.timeout(patience):
            return await check()
    except AsearchError as failure:
        return Finding(role, name, "fail", str(failure), _advice(failure))
    except TimeoutError:
        return Finding(
            role, name, "fail", f"no result within {patience:g} s", "look into the server's log; is it stuck?"
        )


def _advice(failure: AsearchError) -> str:
    return next((advice for kind, advice in ADVICE if isinstance(failure, kind)), "look into the server's log")
