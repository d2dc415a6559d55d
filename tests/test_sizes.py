"""Cells are built before a grid starts: what they refuse, and `num_params` solved for nhid."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.config import Trial, expand, load_grid, make_trial, override
from bench.config.sizes import Sizes
from bench.errors import BadInput
from bench.model import build
from bench.plugins import find, load_class, select_cell
from tests.conftest import Verb
from tests.grids import grid_file
from tests.test_bad_input import refused

WORDS = 1000
REGISTRY = find()
CELLS = sorted(REGISTRY["cell"])
PICKY = '''"""Takes even sizes alone, and a gain above 0."""

import torch


class Cell(torch.nn.Module):
    def __init__(self, input_size, hidden_size, *, gain: float = 1.0):
        super().__init__()
        if gain <= 0:
            raise ValueError(f"gain must be above 0, but is {gain}")
        if hidden_size % 2:
            raise ValueError(f"hidden_size must be even, but is {hidden_size}")
        self.rnn = torch.nn.RNN(input_size, hidden_size)

    def initial_state(self, batch_size):
        return (self.rnn.weight_hh_l0.new_zeros(batch_size, self.rnn.hidden_size),)

    def forward(self, x, state, noise):
        raw, h = self.rnn(x, state[0][None])
        return raw, (h[0],)
'''


def sizes(words: int = WORDS, plugins: Path | None = None) -> Sizes:
    return Sizes(find(plugins) if plugins else REGISTRY, lambda corpus: words)


def num_params(trial: Trial, words: int = WORDS) -> int:
    """The model's own count."""
    cell = select_cell(trial.cell, REGISTRY)
    with torch.device("meta"):
        make = functools.partial(load_class(cell.plugin), **cell.hparams)
        return build(trial, make, words).num_params


def cells(folder: Path, **sources: str) -> Path:
    """Writes cells into a plugin folder."""
    (folder / "cells").mkdir(parents=True)
    for name, source in sources.items():
        (folder / "cells" / f"{name}.py").write_text(source)
    return folder


@pytest.fixture
def picky(tmp_path: Path) -> Path:
    return cells(tmp_path / "plugins", picky=PICKY)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    "shape", [{}, {"tied": False}, {"emsize": 24}, {"emsize": 24, "tied": False, "nlayers": 1}]
)
def test_the_size_solved_for_is_the_models_own_and_the_nearest(
    cell: str, shape: dict[str, Any]
) -> None:
    values = {"cell": cell, **shape}
    solved = sizes().solve(values | {"num_params": "150k"}, "here")
    assert "num_params" not in solved
    nhid = solved["nhid"]
    error = abs(num_params(Trial(**solved)) - 150_000)
    assert error <= 0.05 * 150_000
    for other in (nhid - 2, nhid + 2):  # two: some cells take even sizes alone
        assert abs(num_params(Trial(**values, nhid=other)) - 150_000) > error


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("150k", 150_000),
        (150_000, 150_000),
        (150_000.0, 150_000),
        ("0.15M", 150_000),
        ("0.15m", 150_000),
        ("1.5e5", 150_000),
    ],
)
def test_spellings_of_a_count(text: object, count: int) -> None:
    by_text = sizes().solve({"num_params": text}, "here")
    assert by_text == sizes().solve({"num_params": count}, "here")


def test_the_papers_sizes_are_found_again() -> None:
    for count, nhid in ((13_280_400, 650), (51_034_000, 1500)):
        assert sizes(10_000).solve({"num_params": count}, "here")["nhid"] == nhid


def test_a_cell_that_takes_even_sizes_alone(picky: Path) -> None:
    solved = sizes(plugins=picky).solve({"cell": "picky", "num_params": "100k"}, "here")
    assert solved["nhid"] % 2 == 0
    assert solved["nhid"] > 50


def test_a_cell_that_takes_multiples_of_32_alone(tmp_path: Path) -> None:
    coarse = PICKY.replace("hidden_size % 2", "hidden_size % 32").replace("even", "n * 32")
    plugins = cells(tmp_path, coarse=coarse)
    solved = sizes(plugins=plugins).solve({"cell": "coarse", "num_params": "260k"}, "here")
    assert solved["nhid"] == 160  # 161,000 for the words and 103,040 for the layers


def test_a_cell_that_cannot_be_counted_is_named(tmp_path: Path) -> None:
    """It must not count as nothing: the sizes would not be equal."""
    reads = PICKY.replace("if hidden_size % 2:", "if torch.ones(2).sum().item() < 1:")
    plugins = cells(tmp_path, reads=reads)
    with pytest.raises(BadInput, match="cell reads cannot be built on torch's meta device"):
        sizes(plugins=plugins).solve({"cell": "reads", "num_params": "260k"}, "here")
    trial = make_trial({"cell": "reads", "nhid": 9}, find(plugins), "here")
    sizes(plugins=plugins).check(trial, "here")  # a trial with a plain nhid may well run


def test_a_grid_of_equal_sizes_holds_trials_of_plain_nhid() -> None:
    grid = override(load_grid("quick"), ["num_params=100k", "regularizer=none"], reps=1)
    trials = expand(grid, find()).trials
    assert len({t.nhid for t in trials}) == len(trials) == 3
    again = make_trial(trials[0].model_dump(), find(), "again")
    assert again == trials[0], "the target is no part of a trial"


def test_set_nhid_takes_the_place_of_num_params_and_the_other_way_round() -> None:
    grid = override(load_grid("quick"), ["num_params=100k"])
    assert {t.nhid for t in expand(override(grid, ["nhid=12"]), find()).trials} == {12}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--set", "num_params=0"], "num_params: '0' must be a number above 0, such as 24M"),
        (["--set", "num_params=many"], "num_params: 'many' must be a number above 0"),
        (["--set", "num_params=50"], "num_params 50 cannot be met: with lstm and the "),
        (["--set", "num_params=2T"], "num_params: '2T' must be a number above 0"),
        (["--set", "num_params=" + "9" * 400], "must be a number above 0, such as 24M"),
        (["--set", "nhid=5", "--set", "num_params=9k"], "nhid and num_params are both given"),
        (
            ["--set", "num_params=9k", "--set", "nlayers=1", "--set", "emsize=5"],
            "tiny.yaml: num_params: nhid changes nothing in one tied layer of emsize",
        ),
        (
            ["--set", "num_params=40k", "--set", "cell=eunn", "--set", "emsize=9"],
            "tiny.yaml: cell eunn: hidden_size must be even",
        ),
    ],
)
def test_a_size_that_cannot_be(verb: Verb, tmp_path: Path, words: list[str], line: str) -> None:
    grid = grid_file(tmp_path, "{cell: [lstm]}")
    refused(verb("grid", grid, "--backend", "local", "--results", tmp_path / "r", *words), line)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--set", "cell=picky:gain=-1"], "cell picky:gain=-1: gain must be above 0, but is -1"),
        (["--set", "nhid=7", "--set", "cell=picky"], "picky: hidden_size must be even, but is 7"),
    ],
)
def test_what_a_cell_refuses_stops_the_grid_at_its_start(
    verb: Verb, tmp_path: Path, picky: Path, words: list[str], line: str
) -> None:
    grid = grid_file(tmp_path, "{cell: [lstm]}")
    command = (grid, "--backend", "local", "--plugins", picky, "--results", tmp_path / "r")
    refused(verb("grid", *command, *words), line)
    assert not (tmp_path / "r").exists()


def test_nearest_needs_both_sides() -> None:
    with pytest.raises(BadInput, match="nhid 1 comes nearest and has"):
        sizes().solve({"num_params": 100}, "here")
    with pytest.raises(BadInput, match="comes nearest"):
        sizes(words=2).solve({"num_params": "9000G"}, "here")
