"""What the answer tests share: the data set, if it is there, and a list of hostile answers."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("no deadline", deadline=None)  # the first parse of a kind builds tables
settings.load_profile("no deadline")

HOSTILE = {
    "tower": r"9^{9^{9^{9}}}",
    "division by zero": r"\frac{1}{0}",
    "braces": "{" * 10_000 + "5" + "}" * 10_000,
    "boxes": "\\boxed{" * 10_000,
    "long": "1+" * 50_000 + "1",
    "long words": "word " * 20_000,
    "factorials": "((((9!)!)!)!)!",
    "factorial": "10000000!",
    "import": "__import__('os').system('touch hacked')",
    "import in text": r"\text{__import__('os').system('touch hacked')}",
    "import as operator": r"\operatorname{__import__}('os')",
    "import as index": "x_{__import__('os').system('touch hacked')}",
    "import as variable": r"\variable{__import__('os').system('touch hacked')}",
    "import in formula": r"$\frac{__import__('os').system('touch hacked')}{2}$",
    "lambda": "(lambda: open('hacked', 'w'))()",
    "surrogates": "\ud800\udfff5 + x",
    "surrogate in box": "\\boxed{\udcff}",
    "null": "\x005\x00",
    "dollars": "$$$5$",
    "one dollar": "$5",
    "exponent": "1e99999999",
    "power of ten": "10^{999999999}",
    "power of sum": "(x+y+z+w)^{200}",
    "roots": r"\sqrt{" * 35 + "2" + "}" * 35,
    "nested fractions": r"\frac{1}{" * 38 + "x" + "}" * 38,
    "fractions without braces": r"\frac" * 390,
    "signs": r"\pm" * 600,
    "minus": "-" * 1_990 + "5",
    "bars": "|" * 390,
    "commas": "1," * 990,
    "digits": "9" * 1_990,
    "words and words": " and " * 390,
    "equations": "x=" * 990,
    "matrix": r"\begin{pmatrix}" + "1&" * 900 + r"1\end{pmatrix}",
    "environments": r"\begin{pmatrix}" * 130,
    "backslashes": "\\" * 1_999,
    "halves": "½" * 1_990,
}  # fmt: skip
ENDLESS = r"\binom{10^9}{5\cdot 10^8}"  # no bound catches it: it has to be killed


@pytest.fixture(scope="session")
def math500():
    """The rows of MATH-500, from ASEARCH_DATA or the shared folder beside the repository."""
    folder = Path(os.environ.get("ASEARCH_DATA", Path(__file__).parents[3] / "shared" / "data"))
    path = folder / "math500.jsonl"
    if not path.exists():
        pytest.skip("MATH-500 is not here (set ASEARCH_DATA to its folder)")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
