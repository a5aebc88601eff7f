"""The house keeps its shape: what the front door shows, what importing costs, and which way the data flows."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import asearch

ROOT = Path(__file__).parent.parent
LIBRARY = ROOT / "asearch"

# Rooms by floor; a room may use rooms below it, and its neighbours' only where the list says so by standing earlier.
LADDER = [
    {"errors", "serving"},
    {"concurrency", "usage", "problem", "plan"},
    {"transport", "path"},
    {"client", "families", "testing"},
    {"admission"},
    {"prm"},
    {"events", "answers", "scoring"},
    {"workers"},
    {"jury"},
    {"result", "search"},
    {"strategies"},
    {"calls"},
    {"embedded", "plots", "display"},
    {"evaluation"},
    {"reports", "export", "prm_bench"},
    {"ray"},
    {"demo", "doctor", "proxy"},
    {"cli"},
    {"__main__"},
]


def floor(module: str) -> int:
    return next(i for i, rooms in enumerate(LADDER) if module.split(".")[1] in rooms)


def imports(file: Path) -> set[str]:
    """Modules of the library that a file imports when it runs (not those for the type checker only)."""
    found = set()
    tree = ast.parse(file.read_text())
    for_types = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for node in ast.walk(branch)
    }
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and id(node) not in for_types
            and (node.module or "").startswith("asearch.")
        ):
            found.add(node.module)
    return found


def test_front_door_is_a_sorted_list_of_what_there_is():
    assert asearch.__all__ == sorted(
        asearch.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name)
    )
    assert all(hasattr(asearch, name) for name in asearch.__all__)


def test_public_names_say_what_they_are():
    silent = [name for name in asearch.__all__ if not (getattr(asearch, name).__doc__ or "").strip()]
    assert not silent


@pytest.mark.parametrize("file", sorted(LIBRARY.rglob("*.py")), ids=lambda file: str(file.relative_to(LIBRARY)))
def test_data_flows_one_way(file):
    relative = file.relative_to(ROOT).with_suffix("")
    module = ".".join(relative.parts).removesuffix(".__init__")
    if module == "asearch":
        return
    upwards = {used for used in imports(file) if floor(used) > floor(module)}
    assert not upwards, f"{module} must not use {upwards}"


def test_the_library_never_imports_the_servers():
    for file in LIBRARY.rglob("*.py"):
        names = [
            alias.name if isinstance(node, ast.Import) else node.module or ""
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        ]
        assert not any(name.startswith("asearch_backends") for name in names), file


def test_import_is_light():
    heavy = ["torch", "numpy", "sympy", "openai", "huggingface_hub", "matplotlib", "pydantic", "transformers", "rich"]
    code = f"import asearch, sys; print([m for m in {heavy!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
