"""Who may import whom: the harness in one order, plugins little, heavy packages late."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORDER = [
    "errors",
    "api",
    "products",
    "plugins",
    "storage",
    "synthetic",
    "corpora",
    "config",
    "job",
    "checkpoint",
    "fields",
    "noise",
    "decoder",
    "precision",
    "model",
    "contract",
    "evaluation",
    "objective",
    "schedule",
    "update",
    "step",
    "replay",
    "engine",
    "standing",
    "loop",
    "snapshot",
    "provenance",
    "pack",
    "course",
    "worker",
    "store",
    "stats",
    "report",
    "plan",
    "stop",
    "claim",
    "backends",
    "display",
    "gridlog",
    "driver",
    "dryrun",
    "options",
    "launch",
    "__main__",
    "grid",
    "train",
    "generate",
]
"""A module or package of bench imports only those above it; a package's __main__ is last."""
LAST = len(ORDER)


def place(parts: tuple[str, ...]) -> tuple[str, int]:
    """Returns the unit that a module belongs to (`('store', 'parts')`) and its place in ORDER."""
    if len(parts) > 1 and parts[-1] == "__main__":
        return ".".join(parts), LAST
    return parts[0], ORDER.index(parts[0])


def imported(tree: ast.AST, package: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yields (line, module's parts) of every import, also local ones and those for types only.

    `from bench import store` counts as `bench.store`; relative imports are resolved in `package`.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, tuple(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = (*above, *(node.module.split(".") if node.module else ()))
            if module == ("bench",):
                for alias in node.names:
                    yield node.lineno, (*module, alias.name)
            else:
                yield node.lineno, module


def upward(name: str, source: str) -> list[str]:
    """Returns `module:line imports module` for each import of bench that goes against ORDER."""
    parts = tuple(name.split("."))[1:]
    unit, rank = place(parts)
    wrong = []
    for line, found in imported(ast.parse(source), ("bench", *parts[:-1])):
        if found[0] != "bench" or len(found) == 1 or found[1].startswith("__version"):
            continue
        other, other_rank = place(found[1:])
        if other == unit or (rank == LAST and parts[0] == other):
            continue
        if other_rank >= rank:
            wrong.append(f"{name}:{line} imports {'.'.join(found)}")
    return wrong


def modules() -> dict[str, Path]:
    """Every module of bench by its dotted name, a package under its own."""
    found = {}
    for path in sorted((ROOT / "bench").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def test_every_module_has_its_place() -> None:
    units = {name.split(".")[1] for name in modules() if name != "bench"}
    assert units == set(ORDER)


@pytest.mark.parametrize("name", [name for name in modules() if name != "bench"])
def test_a_module_imports_only_modules_above_it(name: str) -> None:
    path = modules()[name]
    # A package's own relative imports start at the package itself.
    inner = f"{name}.__init__" if path.name == "__init__.py" else name
    assert upward(inner, path.read_text()) == []


def test_the_package_itself_imports_nothing() -> None:
    assert list(imported(ast.parse((ROOT / "bench" / "__init__.py").read_text()), ("bench",))) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("bench.loop", "import bench.worker"),
        ("bench.loop", "from bench import store"),
        ("bench.loop", "from bench.store.parts import load_runs"),
        ("bench.loop", "def f():\n    from bench.report import build"),
        ("bench.loop", "if TYPE_CHECKING:\n    from bench.driver import Plan"),
        ("bench.store.care", "from ..report import build"),
        ("bench.store.__init__", "from ..report import build"),
        ("bench.noise", "from bench.corpora.__main__ import app"),
        ("bench.grid", "from bench.train import train"),
    ],
)
def test_an_import_against_the_order_is_noticed(name: str, source: str) -> None:
    assert len(upward(name, source)) == 1


def test_an_import_along_the_order_is_none() -> None:
    assert upward("bench.loop", "import bench\nfrom bench.api import Noise\nimport torch") == []
    assert upward("bench.store.care", "from bench.store.parts import x\nfrom . import y") == []
    assert upward("bench.store.__init__", "from bench.store.parts import x") == []
    assert upward("bench.store.__main__", "from bench.store import x, y\nimport bench.grid") == []


# --- plugins --------------------------------------------------------------------------------------

PLUGINS = sorted([*(ROOT / "cells").glob("*.py"), *(ROOT / "regularizers").glob("*.py")])


def foreign(source: str) -> list[str]:
    """Imports of a plugin beyond what it may: two modules of bench, torch, parts beside it."""
    wrong = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            stems = [node.module] if node.module else [alias.name for alias in node.names]
            if node.level > 1 or not all(stem.startswith("_") for stem in stems):
                wrong.append(ast.unparse(node))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for _, parts in imported(node, ()):
                known = parts[0] == "torch" or parts[0] in sys.stdlib_module_names
                if not known and parts not in (("bench", "api"), ("bench", "products")):
                    wrong.append(ast.unparse(node))
    return wrong


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_plugin_imports_bench_api_torch_and_its_parts(path: Path) -> None:
    assert foreign(path.read_text()) == []


def test_a_plugin_that_imports_more_is_noticed() -> None:
    fine = (
        "import math\nimport torch.nn as nn\nfrom bench.api import Noise\n"
        "from bench.products import linear\nfrom ._gates import g"
    )
    assert foreign(fine) == []
    for line in (
        "import bench",
        "import numpy",
        "from bench.noise import WindowNoise",
        "from bench import model",
        "from .lstm import Cell",
        "from .._gates import g",
        "from . import lstm",
        "import cells.lstm",
    ):
        assert foreign(line) == [line]


# --- what an import costs -------------------------------------------------------------------------

HEAVY = {"torch", "ray", "pandas", "pyarrow"}
STEPS = ("bench", "bench.api", "bench.plugins", "bench.config", "bench.loop")
PROBE = f"""
import importlib, sys
for name in {STEPS!r}:
    module = importlib.import_module(name)
    if name == "bench.plugins":
        assert module.find()["cell"]
    print(name, *sorted({{n.partition(".")[0] for n in sys.modules}} & {HEAVY!r}))
"""


def test_light_modules_import_no_torch_and_loop_neither_ray_nor_parquet() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()}
    assert found == {name: [] for name in STEPS[:-1]} | {"bench.loop": ["torch"]}


# --- plugins are found by their folder, never by name ---------------------------------------------


def by_name(source: str) -> list[int]:
    """Lines that import a plugin folder as a package."""
    found = imported(ast.parse(source), ("package",))
    return [line for line, parts in found if parts[0] in ("cells", "regularizers")]


def test_nothing_imports_a_plugin_folder_by_name() -> None:
    files = [
        p
        for name in ("bench", "cells", "regularizers", "tests", "benchmarks")
        for p in (ROOT / name).rglob("*.py")
    ]
    assert len(files) > 80
    assert {str(p): lines for p in files if (lines := by_name(p.read_text()))} == {}


def test_an_import_by_name_is_noticed() -> None:
    assert by_name("x = 1\nimport cells") == [2]
    assert by_name("def f():\n    from cells.lstm import Cell") == [2]
    assert by_name("import regularizers.ar as ar") == [1]
    assert by_name("from ._cells import x\nfrom .cells import y\nimport bench") == []


def test_a_trial_on_a_cpu_does_not_import_torchs_compiler() -> None:
    """A second of each worker's start, which several calls of torch cost unasked."""
    program = (
        "import sys; from bench.config import Trial; from bench.worker import run_trials\n"
        "from tests.jobs import job_of; said = []\n"
        "text = 'synthetic:train=1500:valid=300:test=300'\n"
        "trial = Trial(corpus=text, nhid=8, batch_size=5, bptt=10, epochs=1)\n"
        "run_trials([job_of(trial)], said.append)\n"
        "print(said[-1]['record']['status'], 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == ["ok", "False"]
