"""Selected plugins are imported: by path, with their shared parts, as they are on disk now."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.errors import BadInput
from bench.plugins import (
    Registry,
    build_regularizers,
    find,
    load_class,
    select_cell,
    select_regularizers,
)

CELL = """\
import torch
from ._gates import GAIN


class Cell(torch.nn.Module):
    gain = GAIN

    def __init__(self, input_size, hidden_size, *, zc: float = 0.5) -> None:
        super().__init__()

    def initial_state(self, batch_size): ...
    def forward(self, x, state, noise): ...
"""
REGULARIZER = """\
from dataclasses import dataclass


@dataclass(frozen=True)
class Regularizer:
    coefficient = "alpha"
    alpha: float = 3.0
    steps: int = 1

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError("steps must be at least 1")
        if self.steps > 9:
            raise KeyError(self.steps)

    def __call__(self, acts): ...
"""


def folder(root: Path, **files: str) -> Path:
    """Writes cells/NAME.py and regularizers/NAME.py, the latter for names that begin with r_."""
    for name, source in files.items():
        kind = "regularizers" if name.startswith("r_") else "cells"
        (root / kind).mkdir(parents=True, exist_ok=True)
        (root / kind / f"{name.removeprefix('r_')}.py").write_text(source)
    return root


def load(registry: Registry, name: str) -> type:
    loaded: type = load_class(select_cell(name, registry).plugin)
    return loaded


def test_a_part_beside_the_plugin_is_imported(tmp_path: Path) -> None:
    root = folder(tmp_path, made_up=CELL, _gates="from . import _maths\nGAIN = _maths.TWO\n")
    folder(tmp_path, _maths="TWO = 2\n")
    assert load(find(root), "made_up").gain == 2  # type: ignore[attr-defined]


def test_an_edited_part_is_seen_at_once(tmp_path: Path) -> None:
    # Same size, same second: a cached .pyc, or a module that was kept, would be the old one.
    root = folder(tmp_path, made_up=CELL, _gates="from . import _maths\nGAIN = _maths.TWO\n")
    gains = []
    for value in (2, 3, 4):
        folder(tmp_path, _maths=f"TWO = {value}\n")
        gains.append(load(find(root), "made_up").gain)  # type: ignore[attr-defined]
    assert gains == [2, 3, 4]
    assert not list(tmp_path.rglob("*.pyc")), "a plugin folder is read, not written"


def test_two_folders_may_each_have_a_part_of_one_name(tmp_path: Path) -> None:
    first = folder(tmp_path / "a", made_up=CELL, _gates="GAIN = 1\n")
    second = folder(tmp_path / "b", made_up=CELL, _gates="GAIN = 2\n")
    one, other = load(find(first), "made_up"), load(find(second), "made_up")
    assert (one.gain, other.gain) == (1, 2)  # type: ignore[attr-defined]


def test_a_loaded_plugin_is_not_imported_twice(tmp_path: Path) -> None:
    root = folder(tmp_path, made_up=CELL, _gates="GAIN = 1\n")
    assert load(find(root), "made_up") is load(find(root), "made_up")


def test_a_package_called_cells_in_the_current_folder_is_never_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cells", "regularizers"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('imported')\n")
        (tmp_path / name / "lstm.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = find()
    assert load(registry, "lstm").__name__ == "Cell"
    assert build_regularizers(select_regularizers("ar+tar", registry))
    assert "cells" not in sys.modules or "tmp" not in str(sys.modules["cells"])


@pytest.mark.parametrize(
    ("source", "line", "last"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero", "ZeroDivisionError: division by zero"),
        ("import torch.quite_absent", "ModuleNotFoundError: No module named", "ModuleNotFound"),
        ("raise SystemExit('bye')", "SystemExit: bye", "SystemExit: bye"),
        ("raise Exception('two\\nlines')", "Exception: two lines", "lines"),
    ],
)
def test_an_exception_at_import_becomes_one_line_with_the_traceback_as_detail(
    tmp_path: Path, source: str, line: str, last: str
) -> None:
    folder(tmp_path, made_up=f"{source}\n{CELL}", _gates="GAIN = 1\n")
    with pytest.raises(BadInput) as error:
        load(find(tmp_path), "made_up")
    path = tmp_path / "cells" / "made_up.py"
    assert f"cell made_up: {path} cannot be imported: {line}" in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.detail.startswith("Traceback")
    assert str(path) in error.value.detail
    assert error.value.detail.strip().splitlines()[-1].startswith(last)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("class Cell(torch.nn.Module)", "class Cell", "Cell must be a torch.nn.Module"),
        ("def forward", "def backward", "Cell has no method forward"),
        ("def initial_state", "def first_state", "Cell has no method initial_state"),
        ("class Cell(torch", "class Cell: ...\nCell = 3\nclass Other(torch", None),
    ],
)
def test_a_cell_without_the_contracts_methods_is_refused(
    tmp_path: Path, old: str, new: str, line: str | None
) -> None:
    assert old in CELL
    folder(tmp_path, made_up=CELL.replace(old, new), _gates="GAIN = 1\n")
    with pytest.raises(BadInput, match=r"cell made_up") as error:
        load(find(tmp_path), "made_up")
    assert line is None or line in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("(frozen=True)", "", "Regularizer must be a @dataclass(frozen=True)"),
        ("@dataclass(frozen=True)", "", "Regularizer must be a @dataclass(frozen=True)"),
        ("__call__", "call", "Regularizer has no method __call__"),
        (
            "class Regularizer:",
            "class Base:\n    more: int = 1\n\n\n@dataclass(frozen=True)\nclass Regularizer(Base):",
            "must all be written in Regularizer itself; read ['alpha', 'steps'], loaded ['more',",
        ),
    ],
)
def test_a_regularizer_that_is_no_frozen_dataclass_is_refused(
    tmp_path: Path, old: str, new: str, line: str
) -> None:
    folder(tmp_path, r_made_up=REGULARIZER.replace(old, new))
    with pytest.raises(BadInput) as error:
        build_regularizers(select_regularizers("made_up", find(tmp_path)))
    assert line in str(error.value)


def test_a_regularizer_comes_with_its_coefficient(tmp_path: Path) -> None:
    registry = find(folder(tmp_path, r_made_up=REGULARIZER))
    chosen = select_regularizers("made_up:alpha=5+ar", registry)
    built = build_regularizers(chosen)
    assert [(type(r).__name__, c) for r, c in built] == [("Regularizer", 2.0), ("Regularizer", 5.0)]
    (none,) = build_regularizers(select_regularizers("none", registry))
    assert none[1] == 1.0


def test_a_regularizer_that_refuses_its_values_says_so_in_one_line(tmp_path: Path) -> None:
    registry = find(folder(tmp_path, r_made_up=REGULARIZER))
    with pytest.raises(BadInput) as error:
        build_regularizers(select_regularizers("made_up:steps=0", registry))
    assert str(error.value) == (
        "regularizer made_up:alpha=3:steps=0: ValueError: steps must be at least 1"
    )
    assert error.value.detail == "", "a ValueError is the plugin's own clear word"
    with pytest.raises(BadInput, match="KeyError: 10") as error:
        build_regularizers(select_regularizers("made_up:steps=10", registry))
    assert "Traceback" in error.value.detail


@pytest.mark.parametrize("selection", ["ar:alpha=-1", "tar:beta=-0.5"])
def test_a_negative_coefficient_is_refused(selection: str) -> None:
    with pytest.raises(BadInput, match="must not be below 0"):
        build_regularizers(select_regularizers(selection, find()))
