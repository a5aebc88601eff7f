"""Bad input is refused before the first request, in one sentence that says what would be valid."""

import math

import pytest

import asearch
from asearch import (
    DVTS,
    BeamSearch,
    BestOfN,
    Greedy,
    Majority,
    ParticleFilter,
    Rebase,
    SelfRefine,
    SelfVerifier,
    SelfVerify,
    UsageError,
    solve,
)
from asearch.calls import as_strategy
from asearch.strategies import STRATEGIES
from worlds import ScriptedClient, ScriptedPRM, World, run

TREES = [BeamSearch, DVTS, ParticleFilter, Rebase]
WIDE = [BeamSearch, DVTS]
ALL = list(STRATEGIES.values())

CASES = [
    *((kind, {"n": 0}, "at least 1") for kind in ALL if kind is not Greedy),
    *((kind, {"n": -3}, "at least 1") for kind in ALL if kind is not Greedy),
    *((kind, {"n": 2.5}, "whole number") for kind in ALL if kind is not Greedy),
    *((kind, {"n": "4"}, "whole number") for kind in ALL if kind is not Greedy),
    *((kind, {"n": True}, "whole number") for kind in ALL if kind is not Greedy),
    (Greedy, {"n": 4}, "n must be 1, not 4"),
    (Greedy, {"temperature": 0.8}, "temperature 0"),
    *((kind, {"n": 2, "width": 4}, "multiple of width=4, not 2; try n=4") for kind in WIDE),
    *((kind, {"n": 10, "width": 4}, "multiple of width=4, not 10; try n=8") for kind in WIDE),
    *((kind, {"width": 0}, "width must be a whole number of at least 1, not 0") for kind in WIDE),
    *((kind, {"depth": 0}, "depth must be a whole number of at least 1, not 0") for kind in TREES),
    *((kind, {"lookahead": -1}, "lookahead") for kind in TREES),
    *((kind, {"temperature": 0}, "needs a temperature above 0") for kind in ALL if kind is not Greedy),
    *((kind, {"temperature": -0.5}, "temperature") for kind in ALL),
    *((kind, {"temperature": math.nan}, "finite number") for kind in ALL if kind is not Greedy),
    *((kind, {"top_p": 0}, "above 0 and at most 1") for kind in ALL),
    *((kind, {"top_p": 1.2}, "above 0 and at most 1") for kind in ALL),
    *((kind, {"max_tokens": 0}, "max_tokens") for kind in ALL),
    *((kind, {"reduction": "median"}, "known are last, min, prod, mean") for kind in ALL),
    *((kind, {"select": "loudest"}, "majority") for kind in ALL),
    *((kind, {"colour": "red"}, "has no option 'colour'; it has") for kind in ALL),
    (Majority, {"select": "weighted"}, "see best_of_n"),
    (Rebase, {"balance": 0}, "balance"),
    (SelfRefine, {"revisions": 0}, "revisions"),
    (SelfRefine, {"n": 6, "revisions": 4}, "multiple of revisions=4, not 6; try n=8"),
    (SelfRefine, {"memory": 0}, "memory"),
    (SelfVerify, {"votes": 0}, "votes"),
]


@pytest.mark.parametrize(("kind", "options", "says"), CASES, ids=lambda case: getattr(case, "name", str(case)))
def test_refused_before_the_first_request(kind, options, says):
    client, prm = ScriptedClient(World()), ScriptedPRM(World())
    call = getattr(asearch, kind.name)
    with pytest.raises(UsageError) as refusal:
        run(call(client, prm, "What?", **options))
    message = str(refusal.value)
    assert says in message
    assert "\n" not in message
    assert isinstance(refusal.value, ValueError)
    assert (client.connected, client.requests, prm.connected, prm.requests) == (0, 0, 0, 0)


@pytest.mark.parametrize("kind", [BestOfN, BeamSearch, DVTS, ParticleFilter, Rebase], ids=lambda kind: kind.name)
def test_a_prm_that_is_missing(kind):
    client = ScriptedClient(World())
    with pytest.raises(UsageError, match=f"{kind.name} needs a PRM: pass its URL, a PRM or an async function"):
        run(solve(kind(), client, None, "What?"))
    assert client.connected == 0


def test_without_a_prm_the_best_cannot_be_picked():
    with pytest.raises(UsageError, match='select="majority"'):
        run(solve(SelfRefine(select="best"), ScriptedClient(World()), None, "What?"))


@pytest.mark.parametrize("problem", ["", "  \n", None, 5])
def test_a_problem_that_is_none(problem):
    with pytest.raises(UsageError, match="the problem is empty"):
        run(solve(Majority(), ScriptedClient(World()), None, problem))


@pytest.mark.parametrize("name", ["best", "", None, 3, Majority])
def test_an_unknown_strategy(name):
    with pytest.raises(UsageError, match="known are greedy, majority, best_of_n, beam_search, dvts"):
        as_strategy(name)


def test_strategies_by_name():
    assert as_strategy("beam-search", n=8) == BeamSearch(n=8)
    assert as_strategy("dvts") == DVTS()
    assert as_strategy(DVTS(n=8), width=2) == DVTS(n=8, width=2)
    with pytest.raises(UsageError, match="has no option"):
        as_strategy("dvts", widht=2)


@pytest.mark.parametrize("strategy", [BeamSearch(), DVTS(), ParticleFilter(), Rebase()], ids=lambda s: s.name)
def test_a_server_that_cannot_continue_is_refused_before_the_first_token(strategy):
    client, prm = ScriptedClient(World()), ScriptedPRM(World())
    client.can_continue = False
    with pytest.raises(UsageError, match="cannot continue"):
        run(solve(strategy, client, prm, "What?"))
    assert client.requests == 0


@pytest.mark.parametrize("strategy", [Greedy(), Majority(), BestOfN(), SelfRefine()], ids=lambda s: s.name)
def test_whole_solutions_need_no_continuation(strategy):
    client = ScriptedClient(World())
    client.can_continue = False
    assert run(solve(strategy, client, ScriptedPRM(World()), "What?")).answer is not None


def test_a_verifier_without_log_probabilities():
    with pytest.raises(UsageError, match="votes=8"):
        SelfVerifier(ScriptedClient(World()))


def test_front_door_and_strategies_agree():
    for name, kind in STRATEGIES.items():
        assert callable(getattr(asearch, name))
        assert getattr(asearch, kind.__name__) is kind
        kind().check()
