"""Grid files: products, blocks, unions, what is merged, skipped, overridden and refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.config import Expansion, Grid, expand, load_grid, override
from bench.errors import BadInput
from bench.plugins import find

CELL = """\
import torch


class Cell(torch.nn.Module):
    {body}

    def __init__(self, input_size, hidden_size, *, depth: int = 1): super().__init__()
    def initial_state(self, batch_size): ...
    def forward(self, x, state, noise): ...
"""
REGULARIZER = """\
from dataclasses import dataclass


@dataclass(frozen=True)
class Regularizer:
    needs = ("memory",)
    def __call__(self, acts): ...
"""


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns a function that reads a grid from text or from a structure."""
    monkeypatch.chdir(tmp_path)

    def make(content: str | dict[str, Any], name: str = "made-up") -> Grid:
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        (tmp_path / f"{name}.yaml").write_text(text)
        return load_grid(f"{name}.yaml")

    return make


def rows(expansion: Expansion, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(getattr(t, n) for n in names) for t in expansion.trials]


def refused(action: Any, *arguments: Any) -> str:
    with pytest.raises(BadInput) as error:
        action(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- what a file becomes --------------------------------------------------------------------------


def test_a_block_is_a_product_in_the_order_written_repetitions_last(grid: Any) -> None:
    text = """
    base: {corpus: synthetic, bptt: 10}
    axes:
      size: [{nhid: 8}, {nhid: 16, dropout: 0.65, dropouti: 0.65}]
      regularizer: [none, "tar:beta=1+ar:alpha=1"]
    reps: 2
    """
    made = grid(text)
    expansion = expand(made, find())
    assert made.name == "made-up"
    assert rows(expansion, "nhid", "dropout", "regularizer", "rep") == [
        (8, 0.5, "none", 0),
        (8, 0.5, "none", 1),
        (8, 0.5, "ar:alpha=1+tar:beta=1", 0),
        (8, 0.5, "ar:alpha=1+tar:beta=1", 1),
        (16, 0.65, "none", 0),
        (16, 0.65, "none", 1),
        (16, 0.65, "ar:alpha=1+tar:beta=1", 0),
        (16, 0.65, "ar:alpha=1+tar:beta=1", 1),
    ]
    assert {t.bptt for t in expansion.trials} == {10}
    assert expansion.merged == 0


def test_an_axis_wins_over_the_base(grid: Any) -> None:
    expansion = expand(grid({"base": {"nhid": 8}, "axes": {"nhid": [16, 32]}}), find())
    assert rows(expansion, "nhid") == [(16,), (32,)]


def test_an_axis_may_hold_values_and_mappings(grid: Any) -> None:
    made = grid({"axes": {"nhid": [8, {"nhid": 16, "emsize": 4}, {}]}})
    assert rows(expand(made, find()), "nhid", "emsize") == [(8, 8), (16, 4), (650, 650)]


def test_blocks_are_a_union_and_share_the_base(grid: Any) -> None:
    text = """
    name: union
    base: {bptt: 10, lr: 2}
    reps: 2
    blocks:
      - axes: {cell: [lstm, gru]}
      - {base: {cell: rnn_tanh, lr: 1}, reps: 1}
      - {base: {cell: lstm}, reps: 3}
    """
    expansion = expand(grid(text), find())
    assert rows(expansion, "cell", "lr", "rep", "bptt") == [
        ("lstm", 2, 0, 10),
        ("lstm", 2, 1, 10),
        ("gru", 2, 0, 10),
        ("gru", 2, 1, 10),
        ("rnn_tanh", 1, 0, 10),
        ("lstm", 2, 2, 10),
    ]
    assert expansion.merged == 2


def test_equal_trials_are_merged_and_counted_however_they_are_written(grid: Any) -> None:
    axes = {"regularizer": ["ar+tar", "tar:beta=1.0+ar:alpha=2"], "lr": [2, "2.0"]}
    expansion = expand(grid({"axes": axes, "reps": 3}), find())
    assert len(expansion.trials) == 3
    assert expansion.merged == 9


def test_include_brings_presets_and_files_beside_the_file(grid: Any, tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "inner.yaml").write_text("{base: {nhid: 8}, reps: 2}")
    (tmp_path / "below" / "outer.yaml").write_text("{base: {nhid: 4}, include: [inner.yaml]}")
    made = grid({"include": ["below/outer.yaml", "ptb-small"], "base": {"nhid": 2}})
    expansion = expand(made, find())
    assert rows(expansion, "nhid", "rep")[:4] == [(2, 0), (4, 0), (8, 0), (8, 1)]
    small = expand(load_grid("ptb-small"), find())
    assert expansion.trials[4:] == small.trials


def test_pairs_that_cannot_be_are_skipped_with_their_reason(grid: Any, tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "regularizers").mkdir()
    skip = "def skip(trial): return f'depth\\nover {trial.nhid}' if trial.nhid > 8 else None"
    (tmp_path / "cells" / "picky.py").write_text(CELL.format(body=f"memory = True\n    {skip}"))
    (tmp_path / "regularizers" / "deep.py").write_text(REGULARIZER)
    registry = find(tmp_path)
    axes = {"cell": ["lstm", "picky"], "regularizer": ["none", "deep+ar"], "nhid": [8, 16]}
    expansion = expand(grid({"axes": axes, "reps": 2}), registry)
    assert rows(expansion, "cell", "regularizer", "nhid") == [
        *[("lstm", "none", 8)] * 2,
        *[("lstm", "none", 16)] * 2,
        *[("picky", "none", 8)] * 2,
        *[("picky", "ar:alpha=2+deep", 8)] * 2,
    ]
    assert expansion.skipped == {
        ("lstm", "ar:alpha=2+deep", "deep needs memory, which lstm does not give"): 4,
        ("picky", "none", "depth over 16"): 2,
        ("picky", "ar:alpha=2+deep", "depth over 16"): 2,
    }
    line = refused(expand, grid({"base": {"cell": "picky", "nhid": 9}}), registry)
    assert line == "made-up.yaml: an empty grid; all skipped: picky x none: depth over 9"


def test_a_skip_that_fails_is_the_plugins_error(grid: Any, tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    body = "def skip(trial): return trial.quite_absent"
    (tmp_path / "cells" / "picky.py").write_text(CELL.format(body=body))
    with pytest.raises(BadInput, match=r"cell picky: its skip\(trial\) fails: Attribute") as error:
        expand(grid({"base": {"cell": "picky"}}), find(tmp_path))
    assert "picky.py" in error.value.detail


# --- --set, --reps, --name ------------------------------------------------------------------------


def test_set_replaces_a_field_in_every_trial_and_renames_the_grid(grid: Any) -> None:
    axes = {"size": [{"nhid": 8, "lr": 1}, {"nhid": 16, "lr": 2}], "cell": ["lstm", "gru"]}
    made = grid({"axes": axes, "reps": 2})
    changed = override(made, ["lr=5", "cell=rnn_tanh,gru"], reps=1)
    assert rows(expand(changed, find()), "nhid", "cell", "lr", "rep") == [
        (8, "rnn_tanh", 5, 0),
        (8, "gru", 5, 0),
        (16, "rnn_tanh", 5, 0),
        (16, "gru", 5, 0),
    ]
    merged = expand(override(made, ["nhid=4", "lr=1"]), find())
    assert (len(merged.trials), merged.merged) == (4, 4)
    assert rows(expand(made, find()), "lr")[0] == (1,), "the grid itself is left alone"


def test_a_folders_path_may_hold_commas(grid: Any) -> None:
    made = override(grid({"base": {"nhid": 8}}), ["corpus=folder:path=/a,b"])
    assert rows(expand(made, find()), "corpus") == [("folder:path=/a,b",)]


def test_the_name_follows_what_was_changed(grid: Any) -> None:
    made = grid({"base": {"nhid": 8}})
    assert override(made).name == "made-up"
    assert override(made, name="other").name == "other"
    assert override(made, ["lr=5"], reps=1, name="other").name == "other"
    names = [
        override(made, sets, reps).name
        for sets, reps in (([], 1), ([], 2), (["lr=5"], None), (["lr=5"], 1), (["lr=6"], None))
    ]
    assert len(set(names)) == 5
    assert all(name.startswith("made-up-") and len(name) == 14 for name in names)
    both = ["lr=5", "clip=1"]
    assert override(made, both).name == override(made, both[::-1]).name


@pytest.mark.parametrize(
    ("sets", "reps", "name", "line"),
    [
        (["lr"], None, None, "--set lr: write FIELD=VALUE[,VALUE…]"),
        (["lr="], None, None, "--set lr=: write FIELD=VALUE[,VALUE…]"),
        (["=1"], None, None, "--set : a trial has no such field. Known: "),
        (["nhidd=1"], None, None, "--set nhidd: a trial has no such field. Did you mean nhid?"),
        (["rep=1"], None, None, "--set rep: rep is counted by the harness; use --reps N"),
        (["lr=1", "lr=2"], None, None, "--set lr is given twice; write its values in one"),
        (["lr=1,2,1"], None, None, "--set lr=1,2,1: one value is there twice"),
        ([], 0, None, "--reps 0 must be a whole number from 1"),
        ([], -1, None, "--reps -1 must be a whole number from 1"),
        ([], 10**9, None, "--reps 1000000000 must be a whole number from 1 to 10,000"),
        ([], None, "../x", "--name: the name '../x' must be 1 to 100 letters, digits, or . _ -"),
        ([], None, "a/b", "--name: the name 'a/b' must be"),
        ([], None, "", "--name: the name '' must be"),
        ([], None, ".hidden", "--name: the name '.hidden' must be"),
        ([], None, "a" * 300, "must be 1 to 100 letters"),
    ],
)
def test_an_override_that_cannot_be_is_one_line(
    grid: Any, sets: list[str], reps: int | None, name: str | None, line: str
) -> None:
    assert line in refused(override, grid({"base": {}}), sets, reps, name)


@pytest.mark.parametrize("value", ["1.5", "ten", "1,"])
def test_a_wrong_value_of_set_names_the_field(grid: Any, value: str) -> None:
    made = override(grid({"base": {}}), [f"dropout={value}"])
    line = refused(expand, made, find())
    assert line.startswith("made-up.yaml: dropout: ")
