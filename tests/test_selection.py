"""Plugins are found in folders and selected by their spelling, name[:key=value]..., + adds."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import BadInput
from bench.plugins import find, select_cell, select_regularizers, spell_regularizers
from tests.test_plugins import CELL, cell


def test_two_plugins_of_one_name_are_an_error_that_names_both_files(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "lstm.py").write_text(CELL)
    with pytest.raises(BadInput, match="two cells are called 'lstm'") as error:
        find(tmp_path)
    assert str(tmp_path / "cells" / "lstm.py") in str(error.value)
    assert str(find()["cell"]["lstm"].path) in str(error.value)
    # A cell and a regularizer may share one.
    (tmp_path / "cells" / "lstm.py").rename(tmp_path / "cells" / "ar.py")
    assert "ar" in find(tmp_path)["cell"]


@pytest.mark.parametrize("name", ["", "absent", "file", "x" * 5000])
def test_a_plugin_folder_must_hold_cells_or_regularizers(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="must be a folder that holds cells/ or regularizers/"):
        find(tmp_path / name)


@pytest.mark.parametrize(
    ("kind", "selection", "line"),
    [
        ("cell", "lstn", "no cell is called 'lstn'. Did you mean lstm"),
        ("cell", "lstm:zc=1", "lstm has no hyper-parameter 'zc'. Known: none."),
        ("cell", "lstm+gru", "cells cannot be added; name one"),
        ("cell", "", "'' is no selection; write name:key=value"),
        ("cell", "../lstm", "'../lstm' is no selection"),
        ("cell", "a" * 300, "is no selection"),
        ("regularizer", "arr", "no regularizer is called 'arr'. Did you mean "),
        (
            "regularizer",
            "ar:alfa=1",
            "ar has no hyper-parameter 'alfa'. Did you mean alpha? Known: ",
        ),
        ("regularizer", "ar:alpha", "'alpha' in ar must be key=value"),
        ("regularizer", "ar:alpha=", "'alpha=' in ar must be key=value"),
        ("regularizer", "ar:", "'' in ar must be key=value"),
        ("regularizer", "ar:alpha=1:alpha=2", "alpha is given twice"),
        ("regularizer", "ar:alpha=ten", "alpha=ten must be a finite number"),
        ("regularizer", "ar:alpha=nan", "alpha=nan must be a finite number"),
        ("regularizer", "ar:alpha=1e999", "alpha=1e999 must be a finite number"),
        ("regularizer", "ar:of=both", "of=both must be one of dropped, raw"),
        ("regularizer", "ar+ar:alpha=1", "ar is named twice"),
        ("regularizer", "none+ar", "none cannot be added to others"),
        ("regularizer", "ar+", "'' is no selection"),
    ],
)
def test_a_selection_that_cannot_be_is_told_with_the_nearest(
    kind: str, selection: str, line: str
) -> None:
    select = select_cell if kind == "cell" else select_regularizers
    with pytest.raises(BadInput) as error:
        select(selection, find())
    assert line in str(error.value)
    assert str(error.value).startswith(f"{kind}: ")


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("ar", "ar:alpha=2"),
        ("ar:alpha=2.0", "ar:alpha=2"),
        ("ar:alpha=2e0:of=dropped", "ar:alpha=2"),
        ("ar:of=raw:alpha=1", "ar:alpha=1:of=raw"),
        ("ar:alpha=0.00001", "ar:alpha=1e-5"),
        ("ar:alpha=1e20", "ar:alpha=1e20"),
        ("ar:alpha=-0", "ar:alpha=0"),
        ("tar+ar", "ar:alpha=2+tar:beta=1"),
        ("none", "none"),
    ],
)
def test_a_spelling_has_one_canonical_form(written: str, canonical: str) -> None:
    registry = find()
    spelled = spell_regularizers(select_regularizers(written, registry))
    assert spelled == canonical
    assert spell_regularizers(select_regularizers(spelled, registry)) == canonical


def test_values_of_each_type_are_coerced_and_spelled_back(tmp_path: Path) -> None:
    plugin = cell(tmp_path, CELL)
    registry = {"cell": {"made_up": plugin}, "regularizer": {}}
    chosen = select_cell("made_up:zc=1:depth=-7:bias=False:init=a/b:form=hard:steps=1", registry)
    assert chosen.hparams == {
        "zc": 1.0, "depth": -7, "bias": False, "init": "a/b", "form": "hard", "steps": 1,
    }  # fmt: skip
    assert isinstance(chosen.hparams["zc"], float)
    assert isinstance(chosen.hparams["steps"], int)
    assert chosen.spelling == "made_up:bias=false:depth=-7:form=hard:init=a/b:steps=1:zc=1"
    for bad in ("depth=1.5", "depth=true", "bias=1", "init=a,b", "form=medium", "steps=3"):
        with pytest.raises(BadInput):
            select_cell(f"made_up:{bad}", registry)
