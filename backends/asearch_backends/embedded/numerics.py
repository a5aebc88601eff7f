"""Matrix products whose bits do not depend on the company: the rows of one product never change each other.

A BLAS picks its kernel by the shape, and different kernels add in different orders. Measured with OpenBLAS 0.3.31: one row
alone takes another path (gemv) than two; with AVX-512, AVX and SSE4 kernels every count of rows from two on gives the same
bits if the columns are a multiple of 16; with AVX2 kernels (Haswell, Zen) the bits depend on where in the batch a row lies,
and nothing cheap helps. An inner dimension over about 320 is added in parts that depend on all three sizes. Hence: columns
padded to 16, inner dimension cut into fixed panels, and rows padded to a quantum that is found by trying at start-up. Where
none is found results differ in the seventh digit from batch to batch, as those of other servers do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

COLUMNS = 16
PANEL = 256
QUANTA = (2, 4, 8, 16)
_PROBE_ROWS = 96


def round_up(n: int, multiple: int) -> int:
    """The smallest multiple that is not below n."""
    return -(-n // multiple) * multiple


class Linear:
    """A weight that multiplies from the right, stored [in, out]; `width` is `out` padded to whole columns."""

    def __init__(self, weight: Floats) -> None:
        self.inner, outer = weight.shape
        self.width = round_up(outer, COLUMNS)
        padded = np.zeros((self.inner, self.width), np.float32)
        padded[:, :outer] = weight
        self._panels = [(i, np.ascontiguousarray(padded[i : i + PANEL])) for i in range(0, self.inner, PANEL)]

    def __call__(self, x: Floats, out: Floats) -> Floats:
        """Write x @ weight into out, [rows, width]."""
        start, panel = self._panels[0]
        np.matmul(x[:, start : start + len(panel)], panel, out=out)
        for start, panel in self._panels[1:]:
            out += x[:, start : start + len(panel)] @ panel
        return out


def row_quantum(linears: Iterable[Linear]) -> int | None:
    """The smallest padding of rows under which all these products are invariant on this machine."""
    probes = [_probe(linear) for linear in {(w.inner, w.width): w for w in linears}.values()]
    return next((q for q in QUANTA if all(_invariant(probe, q) for probe in probes)), None)


def query_quantum(head_dim: int, page: int) -> int | None:
    """The same for attention: queries of one head against a page of keys, and weights against a page of values."""
    rng = np.random.default_rng(0)
    shapes = ((head_dim, page), (page, head_dim))
    probes = [_product(rng.standard_normal(shape).astype(np.float32)) for shape in shapes]
    return next((q for q in QUANTA if all(_invariant(probe, q) for probe in probes)), None)


def _product(right: Floats) -> Callable[[int], Floats]:
    row = np.random.default_rng(0).standard_normal((1, len(right)), np.float32)
    rows = np.repeat(row, _PROBE_ROWS, axis=0)
    return lambda n: rows[:n] @ right


def _probe(linear: Linear) -> Callable[[int], Floats]:
    row = np.random.default_rng(0).standard_normal((1, linear.inner), np.float32)
    rows = np.repeat(row, _PROBE_ROWS, axis=0)
    return lambda n: linear(rows[:n], np.empty((n, linear.width), np.float32))


def _invariant(product: Callable[[int], Floats], quantum: int) -> bool:
    """Whether a row comes out the same in any place among any multiple of the quantum."""
    expected = product(quantum)[0]
    return all(bool((product(n) == expected).all()) for n in range(quantum, _PROBE_ROWS + 1, quantum))
