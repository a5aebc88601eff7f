"""The running sequences as rows of arrays, so that a step touches no Python object for a row that just goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from asearch_backends.embedded.sampling import SamplingTable

if TYPE_CHECKING:
    import numpy.typing as npt

    from asearch_backends.embedded.kv import KVRows
    from asearch_backends.embedded.sequence import Sequence


class Batch:
    """Rows 0..decoding-1 generate; rows decoding..used-1 still compute their prompts, or wait for one that does.

    There are no gaps: a row that leaves is filled by the last of its kind. The last row of the arrays is a spare.
    """

    def __init__(self, kv: KVRows, vocabulary: int) -> None:
        self.kv = kv
        self.capacity = kv.rows - 1
        self.decoding = self.used = self.kv.in_use = 0
        self._sequences: list[Sequence | None] = [None] * kv.rows
        self.tokens = np.zeros((kv.rows, kv.limit + 1), np.int32)
        self.length = np.zeros(kv.rows, np.int64)  # tokens of prompt and answer
        self.computed = np.zeros(kv.rows, np.int64)  # of these, with keys and values
        self.limit = np.zeros(kv.rows, np.int64)  # the length that ends the sequence
        self.watched = np.zeros(kv.rows, np.bool_)  # rows to be looked at after every token
        self.suspects = np.zeros((kv.rows, vocabulary), np.bool_)  # tokens that may end the row
        self.sampling = SamplingTable(kv.rows, vocabulary)

    @property
    def free(self) -> int:
        return self.capacity - self.used

    def running(self) -> list[Sequence]:
        """The sequences in the order of their rows."""
        return [self.at(row) for row in range(self.used)]

    def at(self, row: int) -> Sequence:
        """The sequence of a row in use."""
        sequence = self._sequences[row]
        if sequence is None:
            raise LookupError(f"row {row} is empty")
        return sequence

    def open(self, sequence: Sequence, suspects: npt.NDArray[np.bool_], ends: list[int], *, computed: int) -> None:
        """Give a sequence the next row, among those that compute their prompts."""
        row = self.used
        self.used += 1
        self.kv.in_use = self.used
        n, params = len(sequence.prompt), sequence.params
        sequence.row = row
        self._sequences[row] = sequence
        self.tokens[row, :n] = sequence.prompt
        self.length[row], self.computed[row], self.limit[row] = n, computed, n + params.max_tokens
        self.watched[row] = sequence.streaming or params.logprobs is not None
        self.suspects[row] = suspects
        self.sampling.set(row, params, sequence.seed, sequence.prompt, ends)

    def start_decoding(self, row: int) -> None:
        """The prompt of this row is computed: bring it to the rows that generate."""
        target = self.decoding
        if row != target:
            spare = self.capacity
            self._move(target, spare)
            self._move(row, target)
            self._move(spare, row)
        self.decoding += 1

    def close(self, row: int) -> None:
        """Take a sequence out."""
        sequence = self._sequences[row]
        if sequence is not None:
            sequence.row = -1
        if row < self.decoding:
            self.decoding -= 1
            self._move(self.decoding, row)
            row = self.decoding
        self.used -= 1
        self._move(self.used, row)
        self._sequences[self.used] = None
        self.kv.in_use = self.used

    def _move(self, source: int, target: int) -> None:
        if source == target:
            return
        sequence = self._sequences[source]
        self._sequences[target], self._sequences[source] = sequence, None
        if sequence is None or sequence.row == -1:
            return
        sequence.row = target
        length = int(self.length[source])
        self.tokens[target, :length] = self.tokens[source, :length]
        for column in (self.length, self.computed, self.limit, self.watched, self.suspects):
            column[target] = column[source]
        self.sampling.move(source, target)
        self.kv.copy(source, target, int(self.computed[source]))
