"""A budget of tokens on real servers: never passed, and not left lying either."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asearch import (
    DVTS,
    BeamSearch,
    BestOfN,
    Budget,
    CausalPRM,
    OpenAIClient,
    Problem,
    SelfVerifier,
    solve,
)
from asearch.prm.tokens import SPECIAL, most_tokens, share_out
from asearch.testing.prms import PROBLEM, STEPS, path_of
from asearch.usage import BudgetSpent, Ledger, ledger

HARD = r"What is $8 + ((19 - 15) \cdot 12 - 8 \cdot (8 + 1))$?"


@pytest.fixture
async def client(servers):
    client = OpenAIClient(servers.policy)
    yield client
    await client.aclose()


@pytest.fixture
async def prm(servers):
    prm = CausalPRM(servers.prm)
    prm.asked = []
    prm.endpoint.stats.on_exchange.append(lambda route, *_: prm.asked.append(route))
    yield prm
    await prm.aclose()


CASES = [
    (DVTS(n=16), 2_000),
    (DVTS(n=64), 5_000),
    (DVTS(n=64), 20_000),
    (BeamSearch(n=64), 20_000),
    (BestOfN(n=64), 20_000),
]


@pytest.mark.parametrize(("strategy", "tokens"), CASES, ids=lambda case: getattr(case, "name", str(case)))
async def test_nearly_all_is_spent_and_never_more(strategy, tokens, client, prm):
    """By the bound alone the first of these spends two thirds, and the last three quarters."""
    result = await solve(strategy, client, prm, HARD, budget=Budget(tokens=tokens))
    assert result.stopped_by == "tokens"
    assert 0.85 * tokens <= result.usage.tokens <= tokens


async def test_searches_that_share_a_batch_are_not_charged_for_each_other(prm):
    """A text of many tokens and one of few, as long in characters, travel together; each is booked what it set aside."""

    async def read(path, tokens):
        book = Ledger(Budget(tokens=tokens) if tokens else None)
        ledger.set(book)  # in the context of this task
        await prm.score(path)
        return book.usage.prm_tokens

    await prm.connect()
    thin, dense = (path_of(Problem("What?"), [step]) for step in ("12 + 7 = 19\n" * 20, "请计算" * 80))
    alone = [await asyncio.create_task(read(path, None)) for path in (thin, dense)]
    assert alone[0] < 0.8 * alone[1]
    await prm._tokens_of._counts.get((prm.family.prefixes(thin.problem, [thin.text])[0], False))  # who asks waits
    prm._scores._values.clear()
    requests = prm.endpoint.stats.requests
    together = await asyncio.gather(read(thin, alone[0]), read(dense, None))
    assert prm.endpoint.stats.requests == requests + 1
    assert together == alone


async def test_what_is_counted_beforehand_is_what_the_server_reads(prm):
    path, book = path_of(Problem(PROBLEM), STEPS[:1]), Ledger(Budget(tokens=10**6))
    token = ledger.set(book)
    try:
        await prm.score(path)
        assert "/tokenize" not in prm.asked[2:]  # the two verdicts; the bound fits by far
        read = book.usage.prm_tokens
        book.budget = Budget(tokens=2 * read)
        await prm.score(path_of(Problem(PROBLEM), [STEPS[0]]))  # known by now: costs nothing
        assert book.usage.prm_tokens == read
        prefix = prm.family.prefixes(path.problem, STEPS[:1])[0]
        assert most_tokens(prefix) > read  # the bound would not let it through ...
        assert await prm._tokens_of._counts.get((prefix, False)) == read  # ... and the count does
    finally:
        ledger.reset(token)


async def test_a_request_that_fits_exactly_is_sent_and_one_token_less_is_too_few(prm):
    path = path_of(Problem(PROBLEM), STEPS[:2])
    free = Ledger()
    token = ledger.set(free)
    try:
        await prm.score(path)
        prm._scores._values.clear()
        needed = free.usage.prm_tokens
        assert needed < sum(map(most_tokens, prm.family.prefixes(path.problem, STEPS[:2])))
        ledger.set(Ledger(Budget(tokens=needed - 1)))
        with pytest.raises(BudgetSpent):
            await prm.score(path)
        ledger.set(Ledger(Budget(tokens=needed)))
        assert len(await prm.score(path)) == 2
        assert ledger.get().usage.prm_tokens == needed
        assert ledger.get()._reserved == 0
    finally:
        ledger.reset(token)


async def test_without_a_budget_of_tokens_nothing_is_counted(client, prm):
    await solve(DVTS(n=8), client, prm, HARD, budget=Budget(requests=500))
    assert prm.asked.count("/tokenize") == 2  # for the ids of the two verdicts


async def test_a_policy_that_judges_itself_keeps_to_the_budget(client):
    for tokens in (700, 3_000):
        result = await solve(BeamSearch(n=8), client, SelfVerifier(client), HARD, budget=Budget(tokens=tokens))
        assert result.usage.tokens <= tokens


async def test_who_waits_for_room_gets_it_when_the_first_reply_was_shorter_than_its_bound(prm):
    """Two at once, with room for both in truth, though not by the bound."""
    paths = [path_of(Problem(PROBLEM), [step]) for step in (STEPS[0], "## Step 1: Add\n$4 + 5 = 8$.\n\n")]
    free = Ledger()
    token = ledger.set(free)
    try:
        for path in paths:
            await prm.score(path)
        prm._scores._values.clear()
        prm._tokens_of._counts._values.clear()
        ledger.set(Ledger(Budget(tokens=free.usage.prm_tokens)))
        scores = await asyncio.gather(*(prm.score(path) for path in paths))
        assert all(len(found) == 1 for found in scores)
    finally:
        ledger.reset(token)


batches = st.lists(st.tuples(st.integers(0, 500), st.integers(0, 600)), min_size=1, max_size=12)


@given(batches, st.floats(0, 1.2))
def test_a_batch_is_shared_out_within_what_each_has_set_aside(batch, part):
    sizes, most = zip(*batch, strict=True)
    total = int(part * sum(most))
    shares = share_out(total, sizes, most)
    assert sum(shares) == total
    assert all(share >= 0 for share in shares)
    if total <= sum(most):
        assert all(share <= limit for share, limit in zip(shares, most, strict=True))


def test_a_batch_is_shared_out_in_proportion():
    assert share_out(60, [10, 20, 30], [100] * 3) == [10, 20, 30]
    assert share_out(60, [10, 20, 30], [100, 100, 15]) == [15, 30, 15]


def test_the_bound_counts_bytes_not_characters():
    assert most_tokens("数") == 3 + SPECIAL
