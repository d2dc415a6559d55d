"""Plugins are listed by their syntax tree: what they say of themselves, and why one is broken."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.plugins import Plugin, find, read
from bench.plugins.spelling import Param

CELL = '''\
"""A made-up cell. More of it."""

from typing import Literal

import torch


class Cell(torch.nn.Module):
    memory = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        zc: float = 0.05,
        depth: int = 3,
        bias: bool = True,
        init: str = "orthogonal",
        form: Literal["soft", "hard"] = "soft",
        steps: Literal[1, 2] = 2,
    ) -> None: ...
'''
REGULARIZER = '''\
"""A made-up regularizer."""

import typing
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Regularizer:
    coefficient: ClassVar = "beta"
    needs: typing.ClassVar[tuple[str, ...]] = ("memory",)
    beta: float = -1e-7
    of: typing.Literal["raw", "dropped"] = "raw"
'''
ANNOTATE = "annotate it int, float, bool, str or Literal[...]"


def cell_with(parameters: str) -> str:
    return f"class Cell:\n    def __init__(self, input_size, hidden_size, *, {parameters}): ...\n"


def cell(folder: Path, source: str, name: str = "made_up") -> Plugin:
    return one(folder, "cell", source, name)


def one(folder: Path, kind: str, source: str | bytes, name: str = "made_up") -> Plugin:
    path = folder / f"{name}.py"
    path.write_bytes(source.encode() if isinstance(source, str) else source)
    return read(path, kind, "here")


# --- what a file says of itself -------------------------------------------------------------------


def test_a_cells_hyper_parameters_are_its_keyword_only_arguments(tmp_path: Path) -> None:
    plugin = cell(tmp_path, CELL)
    assert plugin.broken is None
    assert plugin.params == (
        Param("zc", "float", 0.05),
        Param("depth", "int", 3),
        Param("bias", "bool", True),
        Param("init", "str", "orthogonal"),
        Param("form", "choice", "soft", ("soft", "hard")),
        Param("steps", "choice", 2, (1, 2)),
    )
    assert [p.text for p in plugin.params][:2] == ["zc: float = 0.05", "depth: int = 3"]
    assert plugin.params[4].text == "form: soft|hard = soft"
    assert plugin.summary == "A made-up cell. More of it."
    assert plugin.flags["memory"] is True
    assert len(plugin.hash) == 16


def test_a_regularizers_hyper_parameters_are_its_fields_but_for_class_variables(
    tmp_path: Path,
) -> None:
    plugin = one(tmp_path, "regularizer", REGULARIZER)
    assert plugin.broken is None
    assert plugin.params == (
        Param("beta", "float", -1e-7),
        Param("of", "choice", "raw", ("raw", "dropped")),
    )
    assert (plugin.coefficient, plugin.needs) == ("beta", ("memory",))


def test_listing_imports_nothing(tmp_path: Path) -> None:
    before = set(sys.modules)
    for kind in ("cells", "regularizers"):
        (tmp_path / kind).mkdir()
    bomb = "import wave\nraise SystemExit('imported')\n"
    (tmp_path / "cells" / "bomb.py").write_text(bomb + CELL)
    (tmp_path / "regularizers" / "bomb.py").write_text(bomb + REGULARIZER)
    registry = find(tmp_path)
    assert registry["cell"]["bomb"].broken is None
    assert registry["regularizer"]["bomb"].params[0].name == "beta"
    assert {"lstm", "gru", "rnn_tanh"} <= set(registry["cell"])
    assert {"none", "ar", "tar"} <= set(registry["regularizer"])
    assert "wave" not in set(sys.modules) - before
    assert not [n for n in set(sys.modules) - before if n.startswith(("_bench_", "cells"))]


def test_a_warning_of_the_syntax_is_kept_for_the_import(tmp_path: Path) -> None:
    plugin = cell(tmp_path, 'PATTERN = "\\d"\n' + CELL)
    assert plugin.broken is None


# --- broken ones ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("class Cell:\n  def (", "made_up.py:2: invalid syntax"),
        ("class Cell:\nx", "made_up.py:2: expected an indented block"),
        (b"x = '\xff'\n", "codec can't decode byte 0xff"),
        (b"x = 1\0", "null bytes"),
        ("", "must define a class called exactly Cell; it has no class"),
        ("class Zelle: ...\nclass Other: ...", "called exactly Cell; it has Zelle, Other"),
        ("import quite_absent\n" + CELL, "y imports 'quite_absent', which is not installed"),
        ("from quite.absent import x\n" + CELL, "imports 'quite', which is not installed"),
        ("from ._gates import x\n" + CELL, "imports _gates.py, which is not beside it"),
        ("from . import _gates\n" + CELL, "imports _gates.py, which is not beside it"),
        ("from .lstm import Cell\n" + CELL, "imports .lstm; what is shared goes into a part"),
        ("from .. import bench\n" + CELL, "imports ..bench; what is shared goes into a part"),
        ("from cells._gates import x\n" + CELL, "imports 'cells' by name; write `from ._part"),
        ("from bench.loop import Trainer\n" + CELL, "imports bench.loop; a plugin may import"),
        ("from bench import noise\n" + CELL, "imports bench.noise; a plugin may import"),
        ("class Cell: ...", "Cell has no __init__(self, input_size, hidden_size, *"),
        (
            "class Cell:\n    def __init__(self, size, hidden): ...",
            "(self, input_size, hidden_size, *, hyper-parameters), not (self, size, hidden)",
        ),
        (
            "class Cell:\n    def __init__(self, input_size, hidden_size, gain=1.0): ...",
            "not (self, input_size, hidden_size, gain)",
        ),
        (
            "class Cell:\n    def __init__(self, input_size, hidden_size, *gains): ...",
            "name each hyper-parameter, without * and **",
        ),
        (cell_with("**more").replace("*, ", ""), "name each hyper-parameter, without * and **"),
        (cell_with("gain: float"), "hyper-parameter gain has no default"),
        (cell_with("gain=1.0"), f"gain: {ANNOTATE}, not nothing"),
        (cell_with("gain: list = []"), f"gain: {ANNOTATE}, not list"),
        (cell_with("gain: float | None = None"), f"gain: {ANNOTATE}, not float | None"),
        (cell_with("gain: float = 2 * 3"), "gain: its default must be a literal"),
        (cell_with("gain: float = GAIN"), "gain: its default must be a literal"),
        (cell_with("gain: float = {[]: 1}"), "gain: its default must be a literal"),
        (cell_with("gain: Literal[GAIN] = 1"), "gain: each choice must be a literal"),
        (cell_with("gain: Literal['a'] = 'b'"), "its default: gain=b must be one of a"),
        (cell_with("gain: int = 0.5"), "its default: gain=0.5 must be a whole number"),
        (cell_with("gain: float = None"), "its default: gain=None must be a finite number"),
        (cell_with("gain: float = 1e999"), "its default: gain=inf must be a finite number"),
        (cell_with("gain: bool = 1"), "its default: gain=1 must be true or false"),
        (cell_with("gain: str = 'a:b'"), "its default: gain=a:b must be text of letters, digits"),
        (CELL.replace("memory = True", "memory = bool(1)"), "memory must be a literal"),
        ("x = " + "(" * 190 + ")" * 190, "too many nested parentheses|no class"),
        ("x = " + "-" * 5000 + "1", "nested too deeply"),
    ],
)  # fmt: skip
def test_a_broken_cell_is_listed_with_its_cause(
    tmp_path: Path, source: str | bytes, cause: str
) -> None:
    plugin = one(tmp_path, "cell", source)
    assert plugin.broken is not None
    assert str(tmp_path / "made_up.py") in plugin.broken
    assert any(each in plugin.broken for each in cause.split("|")), plugin.broken
    assert "\n" not in plugin.broken


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("alpha: float", "hyper-parameter alpha has no default"),
        ("alpha: float = field(default=1.0)", "alpha: its default must be a literal"),
        ("coefficient = 'gamma'", "coefficient names 'gamma', which is no number among its fields"),
        ("coefficient = 'of'; of: str = 'raw'", "coefficient names 'of', which is no number"),
        ("coefficient: ClassVar = 3", "coefficient names 3, which is no number among its fields"),
        ("needs = 'memory'", "needs must be () or (\"memory\",), not 'memory'"),
        ("needs: ClassVar = ['memory']", "needs must be"),
        ("needs = ('attention',)", "needs must be"),
    ],
)
def test_a_broken_regularizer_is_listed_with_its_cause(
    tmp_path: Path, line: str, cause: str
) -> None:
    plugin = one(tmp_path, "regularizer", f"class Regularizer:\n    {line}\n")
    assert plugin.broken is not None
    assert cause in plugin.broken


def test_a_broken_part_breaks_the_plugin_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "_gates.py").write_text("from ._maths import x\n")
    (tmp_path / "_maths.py").write_text("import quite_absent\n")
    source = "from ._gates import x\n" + CELL
    assert "_maths.py imports 'quite_absent'" in (cell(tmp_path, source).broken or "")
    (tmp_path / "_maths.py").write_text("def (\n")
    assert "_maths.py:1: invalid syntax" in (cell(tmp_path, source).broken or "")
    (tmp_path / "_maths.py").unlink()
    assert "_maths.py" in (cell(tmp_path, source).broken or "")


def test_an_import_that_may_rightly_be_absent_breaks_nothing(tmp_path: Path) -> None:
    source = "try:\n    import quite_absent\nexcept ImportError:\n    quite_absent = None\n"
    source += "def late():\n    import quite_absent\n"
    assert cell(tmp_path, source + CELL).broken is None


@pytest.mark.parametrize("name", ["my cell", "-x", "a+b", "é", "a" * 101])
def test_a_file_name_that_is_no_plugin_name_is_broken(tmp_path: Path, name: str) -> None:
    plugin = cell(tmp_path, CELL, name)
    assert "its file name is no plugin name; use letters, digits, and . _ -" in (
        plugin.broken or ""
    )


def test_what_is_no_plugin_is_not_listed(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    for name in ("_part.py", "__init__.py", ".#made_up.py", "._made_up.py", "notes.txt", "x.pyc"):
        (tmp_path / "cells" / name).write_text("def (")
    (tmp_path / "cells" / "folder.py").mkdir()
    (tmp_path / "cells" / "loop.py").symlink_to("loop.py")
    extra = {n: p for n, p in find(tmp_path)["cell"].items() if p.origin != "tree"}
    assert sorted(extra) == ["folder", "loop"]
    assert all(p.broken for p in extra.values())
