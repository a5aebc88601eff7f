"""The running sequences as rows of arrays, so that a step touches no Python object for a row that just goes on."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

import numpy as np

from asearch_backends.embedded.sampling import SamplingTable

if TYPE_CHECKING:
    import numpy.typing as npt

    from asearch_backends.embedded.kv import KVPages
    from asearch_backends.embedded.sequence import Sequence

    Ints = npt.NDArray[np.int64]


class Batch:
    """A sequence keeps its row from its first step to its last one: nothing is moved when another one comes or leaves."""

    def __init__(self, kv: KVPages, vocabulary: int) -> None:
        self.kv = kv
        rows = kv.rows
        self._sequences: dict[int, Sequence] = {}
        self._free = list(range(rows))
        self.tokens = np.zeros((rows, kv.limit + 1), np.int32)
        self.length = np.zeros(rows, np.int64)  # tokens of prompt and answer
        self.computed = np.zeros(rows, np.int64)  # tokens of the prompt with keys and values
        self.limit = np.zeros(rows, np.int64)  # the length that ends the sequence
        self.watched = np.zeros(rows, np.bool_)  # rows to be looked at after every token
        self.suspects = np.zeros((rows, vocabulary), np.bool_)  # tokens that may end the row
        self.sampling = SamplingTable(rows, vocabulary)
        self._decoding = np.zeros(rows, np.bool_)
        self.prefilling: dict[int, Sequence] = {}  # by row, in the order of arrival

    @property
    def used(self) -> int:
        return len(self._sequences)

    @property
    def free(self) -> int:
        return len(self._free)

    def running(self) -> list[Sequence]:
        """The sequences in the order of arrival."""
        return list(self._sequences.values())

    def at(self, row: int) -> Sequence:
        """The sequence of a row in use."""
        return self._sequences[row]

    def decoding(self) -> Ints:
        """The rows that generate."""
        return np.flatnonzero(self._decoding)

    def open(self, sequence: Sequence, suspects: npt.NDArray[np.bool_], ends: list[int], *, computed: int) -> None:
        """Give a sequence a row; its prompt is to be computed."""
        n, params, row = len(sequence.prompt), sequence.params, heapq.heappop(self._free)
        sequence.row = row
        self._sequences[row] = self.prefilling[row] = sequence
        self.tokens[row, :n] = sequence.prompt
        self.length[row], self.computed[row], self.limit[row] = n, computed, n + params.max_tokens
        self.watched[row] = sequence.streaming or params.logprobs is not None
        self.suspects[row] = suspects
        self.sampling.set(row, params, sequence.seed, sequence.prompt, ends)

    def start_decoding(self, row: int) -> None:
        """The prompt of this row is computed."""
        del self.prefilling[row]
        self._decoding[row] = True

    def close(self, row: int) -> None:
        """Take a sequence out."""
        self._sequences.pop(row).row = -1
        self.prefilling.pop(row, None)
        self._decoding[row] = False
        self.kv.release(row)
        heapq.heappush(self._free, row)
