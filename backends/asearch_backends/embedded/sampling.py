"""Choosing tokens for all rows at once: a table of per-row settings, a counter-based random number, an inverse CDF."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]
    Doubles = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

GREEDY_BELOW = 1e-5  # a temperature under this is greedy, and one under 0.01 is 0.01, as in vLLM
_LOWEST_TEMPERATURE = 1e-2
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one choice is drawn and when it ends; names and meanings are vLLM's."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    min_tokens: int = 0
    skip_special_tokens: bool = True
    logprobs: int | None = None
    logprob_token_ids: tuple[int, ...] = ()


class SamplingTable:
    """The settings of the rows as columns of arrays."""

    def __init__(self, rows: int, vocabulary: int) -> None:
        self._temperature = np.zeros(rows, np.float64)
        self._top_p = np.ones(rows, np.float64)
        self._top_k = np.zeros(rows, np.int64)
        self._min_p = np.zeros(rows, np.float64)
        self._penalty = np.ones(rows, np.float64)
        self._seed = np.zeros(rows, np.uint64)
        self._seen = np.zeros((rows, vocabulary), np.bool_)
        self._forbidden_until = np.zeros(rows, np.int64)
        self._forbidden = np.zeros((rows, vocabulary), np.bool_)

    def set(self, row: int, params: SamplingParams, seed: int, prompt: npt.NDArray[np.int32], ends: list[int]) -> None:
        """Fill a row; the tokens `ends` may not come before the sequence has min_tokens."""
        greedy = params.temperature < GREEDY_BELOW
        self._temperature[row] = 0 if greedy else max(params.temperature, _LOWEST_TEMPERATURE)
        # Greedy takes the most likely token whatever the filters say; leaving them off keeps the row on the short way.
        self._top_p[row] = 1 if greedy else params.top_p
        self._top_k[row] = 0 if greedy else max(params.top_k, 0)
        self._min_p[row] = 0 if greedy else params.min_p
        self._penalty[row] = params.repetition_penalty
        self._seed[row] = seed % 2**64
        if params.repetition_penalty != 1:
            self._seen[row] = False
            self._seen[row, prompt] = True
        self._forbidden_until[row] = len(prompt) + params.min_tokens if params.min_tokens else 0
        if params.min_tokens:
            self._forbidden[row] = False
            self._forbidden[row, ends] = True

    def choose(self, rows: Ints, logits: Floats, positions: Ints) -> Ints:
        """The next token of each row, from logits [rows, vocabulary]; `positions` are the places that they will take."""
        penalized = np.flatnonzero(self._penalty[rows] != 1)
        logits = self._adjust(rows, logits, positions, penalized)
        drawn = np.flatnonzero(self._temperature[rows])
        if len(drawn) == len(rows):
            tokens = self._draw(rows, logits, positions)
        else:
            tokens = logits.argmax(axis=1)
            tokens[drawn] = self._draw(rows[drawn], logits[drawn], positions[drawn])
        self._seen[rows[penalized], tokens[penalized]] = True
        return tokens

    def _adjust(self, rows: Ints, logits: Floats, positions: Ints, penalized: Ints) -> Floats:
        """Repetition penalty and min_tokens, on a copy; without them the logits as they are."""
        early = np.flatnonzero(positions < self._forbidden_until[rows])
        if not len(early) and not len(penalized):
            return logits
        logits = logits.copy()
        logits[early] = np.where(self._forbidden[rows[early]], np.float32(-np.inf), logits[early])
        values = logits[penalized]
        penalty = self._penalty[rows[penalized], None].astype(np.float32)
        lowered = np.where(values > 0, values / penalty, values * penalty)
        logits[penalized] = np.where(self._seen[rows[penalized]], lowered, values)
        return logits

    def _draw(self, rows: Ints, logits: Floats, positions: Ints) -> Ints:
        weights = logits.astype(np.float64)
        weights -= weights.max(axis=1, keepdims=True)
        weights /= self._temperature[rows, None]
        np.exp(weights, out=weights)
        filtered = np.flatnonzero((self._top_p[rows] < 1) | (self._top_k[rows] > 0) | (self._min_p[rows] > 0))
        if len(filtered):
            at = rows[filtered]
            weights[filtered] = keep_likely(weights[filtered], self._top_k[at], self._top_p[at], self._min_p[at])
        cumulative = np.cumsum(weights, axis=1)
        target = uniform(self._seed[rows], positions) * cumulative[:, -1]
        # The first token whose cumulated weight exceeds the target: one of weight zero can never be it.
        tokens: Ints = (cumulative > target[:, None]).argmax(axis=1)
        return tokens


def keep_likely(weights: Doubles, top_k: Ints, top_p: Doubles, min_p: Doubles) -> Doubles:
    """Zero the weights, [rows, vocabulary], that min_p, top_k (0 is off) and top_p cut away, in vLLM's order."""
    weights = np.where(weights < min_p[:, None] * weights.max(axis=1, keepdims=True), 0.0, weights)
    order = np.argsort(-weights, axis=1, kind="stable")
    ranked = np.take_along_axis(weights, order, axis=1)
    limit = np.where(top_k > 0, top_k, weights.shape[1])
    ranked[np.arange(weights.shape[1]) >= limit[:, None]] = 0.0
    above = np.cumsum(ranked, axis=1) - ranked
    ranked[above >= (top_p * ranked.sum(axis=1))[:, None]] = 0.0
    kept = np.empty_like(weights)
    np.put_along_axis(kept, order, ranked, axis=1)
    return kept


def uniform(seeds: npt.NDArray[np.uint64], positions: Ints) -> Doubles:
    """A number in [0, 1) for each (seed, position): splitmix64 on the seed, then on seed and position.

    It depends on nothing else, so a sequence draws the same in any batch, and a continuation from its own tokens with the
    same seed draws on where it stopped.
    """
    mixed = _splitmix(_splitmix(seeds) + positions.astype(np.uint64) * _GOLDEN)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _splitmix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    # Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014.
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log-probabilities at one place, before temperature: the token that was chosen, and others with their values."""

    token: int
    logprob: float
    others: tuple[tuple[int, float], ...]


def token_logprobs(logits: Floats, token: int, params: SamplingParams) -> TokenLogprobs:
    """Logprobs of a choice from one row of raw logits: the asked-for tokens, or the most likely ones."""
    shifted = logits - logits.max()
    values = shifted - np.log(np.exp(shifted).sum())
    if params.logprob_token_ids:
        others = list(params.logprob_token_ids)
    else:
        count = min(params.logprobs or 0, len(values))
        others = np.argpartition(-values, count - 1)[:count].tolist() if count else []
        others.sort(key=lambda t: (-values[t], t))
    return TokenLogprobs(token, float(values[token]), tuple((t, float(values[t])) for t in others))
