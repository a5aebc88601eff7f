"""The particle filter: systematic resampling is exact, and the population converges to the exact posterior."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asearch import ParticleFilter, UsageError, solve
from asearch.strategies.particles import logit, softmax, systematic
from asearch.strategies.trees import apportion
from worlds import ScriptedClient, ScriptedPRM, World, run

weights = st.lists(st.floats(0, 1), min_size=1, max_size=12).filter(lambda w: sum(w) > 1e-3)


@given(weights, st.integers(1, 64), st.floats(0, 1, exclude_max=True))
@example(
    [0.75, 0.875, 0.6602648910727135, 1.0, 1.0, 0.0], 1, 0.0
)  # rounded, the first five shares add up to more than 1
def test_copies_are_within_one_of_their_share_and_n_in_all(raw, n, u):
    total = math.fsum(raw)
    shares = [weight / total for weight in raw]
    copies = systematic(shares, n, u)
    assert sum(copies) == n
    assert all(abs(m - n * share) < 1 + 1e-9 for m, share in zip(copies, shares, strict=True))


@given(weights, st.integers(1, 16))
def test_on_average_copies_are_n_times_the_weight(raw, n):
    total = math.fsum(raw)
    shares = [weight / total for weight in raw]
    draws = [systematic(shares, n, (i + 0.5) / 1000) for i in range(1000)]
    for i, share in enumerate(shares):
        assert sum(copies[i] for copies in draws) / 1000 == pytest.approx(n * share, abs=2e-3)


@given(weights, st.integers(0, 64))
def test_expansions_are_shared_out_in_proportion(raw, n):
    total = math.fsum(raw)
    shares = apportion(n, [weight / total for weight in raw])
    assert sum(shares) == n
    assert all(abs(m - n * weight / total) < 1 + 1e-9 for m, weight in zip(shares, raw, strict=True))


def test_weights_are_odds():
    values = [0.1, 0.5, 0.9, 0.9]
    odds = [value / (1 - value) for value in values]
    assert softmax([logit(value) for value in values]) == pytest.approx([x / sum(odds) for x in odds])
    assert softmax([logit(value) for value in values], 1e9) == pytest.approx([0.25] * 4)
    assert softmax([logit(0.0), logit(1.0), logit(1.0)]) == pytest.approx([0, 0.5, 0.5], abs=1e-9)


class TwoStates(World):
    """Every step is an A three times out of ten, else a B; the verifier thinks more of an A."""

    scores = {"A": 0.6, "B": 0.45}  # noqa: RUF012 - a constant of the test

    def step(self, before, choice):
        state = "A" if choice % 10 < 3 else "B"
        last = len(before) + 1 == self.depth
        return (f"{state}: \\boxed{{{state}}}", "eos") if last else (f"{state}\n\n", "step")

    def score(self, steps):
        return self.scores[steps[-1][0]]


def share_of_last_a(strategy, depth, seed=0):
    world = TwoStates(branching=10, depth=depth)
    result = run(solve(strategy, ScriptedClient(world), ScriptedPRM(world), "What?", seed=seed))
    assert len(result.paths) == strategy.n
    return [sum(path.chain[level].text[0] == "A" for path in result.paths) / strategy.n for level in range(depth)]


def posterior(temperature=1.0):
    a, b = (p * math.exp(logit(TwoStates.scores[state]) / temperature) for state, p in (("A", 0.3), ("B", 0.7)))
    return a / (a + b)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("iterations", [1, 4])
def test_the_population_converges_to_the_exact_posterior(temperature, iterations):
    """Steps are independent here, so each level has the same posterior: prior times odds to the power of 1/T."""
    strategy = ParticleFilter(n=4000, weight_temperature=temperature, iterations=iterations)
    shares = share_of_last_a(strategy, depth=2)
    assert shares == pytest.approx([posterior(temperature)] * 2, abs=0.03)


def test_more_particles_come_closer():
    few = [abs(share_of_last_a(ParticleFilter(n=16), 1, seed)[0] - posterior()) for seed in range(20)]
    many = [abs(share_of_last_a(ParticleFilter(n=1024), 1, seed)[0] - posterior()) for seed in range(20)]
    assert sum(many) < sum(few) / 4


class EarlyEnd(World):
    """A ends at once; B goes on for two more steps. A is judged to be three times as likely as B, for ever."""

    def step(self, before, choice):
        if not before and choice % 2:
            return "A: \\boxed{1}", "eos"
        return ("B: \\boxed{2}", "eos") if len(before) == 2 else (f"B{len(before)}\n\n", "step")

    def score(self, steps):
        return 0.75 if steps[-1][0] == "A" else 0.5


def test_particles_that_ended_take_part_until_all_have_ended():
    client, prm = ScriptedClient(EarlyEnd(branching=2)), ScriptedPRM(EarlyEnd())
    result = run(solve(ParticleFilter(n=3000), client, prm, "What?"))
    share = sum(answer == "1" for answer in result.answers) / 3000
    assert share == pytest.approx(3**3 / (3**3 + 1), abs=0.01)  # reweighted at each of three levels
    assert result.answer == "1"
    assert len(result.paths) == 3000


def test_one_that_ran_out_of_room_has_no_weight_beside_others():
    class Cramped(World):
        def step(self, before, choice):
            return ("cut", "length") if choice % 2 else ("done: \\boxed{3}", "eos")

        def score(self, steps):
            return 0.99 if steps[-1] == "cut" else 0.01

    world = Cramped(branching=2)
    result = run(solve(ParticleFilter(n=16), ScriptedClient(world), ScriptedPRM(world), "What?"))
    assert result.answers == ("3",) * 16


def test_the_path_drawn_in_an_iteration_takes_part_in_the_next_and_can_be_grown_again():
    world = World(branching=3, depth=3)
    client, prm = ScriptedClient(world), ScriptedPRM(world)
    result = run(solve(ParticleFilter(n=24, iterations=3), client, prm, "What?"))
    assert len(result.paths) == 24
    assert client.steps <= 24 * 3
    ids = [node.path.id for node in result.tree.nodes]
    assert len(ids) == len(set(ids))
    assert {key[0] for key in ids} == set(range(8 + 7 + 7))


@pytest.mark.parametrize(
    "strategy",
    [
        ParticleFilter(weight_temperature=0),
        ParticleFilter(weight_temperature=math.nan),
        ParticleFilter(n=8, iterations=3),
        ParticleFilter(n=4, iterations=4),
        ParticleFilter(iterations=0),
    ],
)
def test_what_cannot_be_is_refused(strategy):
    with pytest.raises(UsageError):
        strategy.check()
