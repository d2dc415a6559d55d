"""What a plugin does wrong inside its trial is that trial's record; the others are unharmed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import store
from bench.plugins import find
from tests.conftest import Verb
from tests.grids import assert_same, grid_file, rogue

WORDS = ("--backend", "local", "--jobs", 0, "--no-report", "--plugins", "p")
REGULARIZER = """\
from dataclasses import dataclass


@dataclass(frozen=True)
class Regularizer:
    coefficient = "alpha"
    alpha: float = 1.0

    def __post_init__(self):
        {post_init}

    def __call__(self, acts):
        h = acts.raw[-1]
        return {value}
"""


def regularizer(folder: Path, value: str, post_init: str = "pass", name: str = "made_up") -> Path:
    path = folder / "regularizers" / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(REGULARIZER.format(value=value, post_init=post_init))
    return path


def records(results: Path) -> dict[str, dict[str, Any]]:
    """The records by cell and regularizer."""
    runs, problems = store.load_runs(results)
    assert problems == []
    runs = runs.astype(object).where(runs.notna(), None)
    rows: list[Any] = runs.to_dict("records")
    return {f"{row['cell']} x {row['regularizer']}": row for row in rows}


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fair trials' records, run without any rogue."""
    from tests.grids import bench

    folder = tmp_path_factory.mktemp("unharmed")
    grid = grid_file(folder, "{cell: [lstm], regularizer: [none]}")
    assert bench("grid", grid, *WORDS[:5], "--results", folder) == 0
    return folder


CELLS: dict[str, tuple[dict[str, str], str, str, str]] = {
    "a constructor that raises": (
        {"init": "raise RuntimeError('no such\\nsize')"},
        "failed", "RuntimeError", "RuntimeError: no such",
    ),
    "a constructor that exits": ({"init": "raise SystemExit(3)"}, "failed", "SystemExit", "it: 3"),
    "a forward that raises late": (
        {"call": "if self.calls > 40: raise KeyError('late')"},
        "failed", "KeyError", "KeyError: 'late'",
    ),
    "a forward of the wrong shape": (
        {"call": "return x.transpose(0, 1), state"},
        "failed", "ValueError", "the cell returned raw [5, 10, 10]; [T,B,H] is [10, 5, 10]",
    ),
    "a forward that returns one value": (
        {"call": "return x"},
        "failed", "ValueError", "the cell's forward must return a tuple of 2, not Tensor",
    ),
    "an exception of its own kind": (
        {"top": "class Mine(BaseException): ...", "call": "raise Mine('what')"},
        "failed", "Mine", "made_up",
    ),
    "too little memory": ({"init": "raise MemoryError"}, "oom", "MemoryError", "MemoryError"),
    "endless recursion": (
        {"call": "return self.forward(x, state, noise)"},
        "failed", "RecursionError", "RecursionError: maximum recursion depth",
    ),
    "an error that is no text": (
        {"call": "raise ValueError(chr(0xD800) + chr(0) + '<script>')"},
        "failed", "ValueError", "<script>",
    ),
    "an error of a megabyte": (
        {"call": "raise ValueError('x' * 1_000_000 + ' the end')"},
        "failed", "ValueError", "x the end",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_that_fails_costs_its_own_trial_alone(
    verb: Verb, tmp_path: Path, unharmed: Path, name: str
) -> None:
    parts, status, error_type, last = CELLS[name]
    path = rogue(tmp_path / "p", "made_up", **parts)
    # The rogue comes first, so that what it broke would be there for the fair one.
    grid = grid_file(tmp_path, "{cell: [made_up, lstm], regularizer: [none]}")
    outcome = verb("grid", grid, *WORDS)
    assert outcome.code == 1
    assert outcome.err == "", "a traceback belongs into the record and the log"
    assert "Traceback" not in outcome.out
    assert f"2 trials: 1 ok, 1 {status}" in outcome.out

    record = records(tmp_path / "results")["made_up x none"]
    assert (record["status"], record["error_type"]) == (status, error_type)
    text = record["error_text"]
    assert len(text) <= 20_000
    assert text.startswith("Traceback") or len(text) == 20_000
    assert str(path) in text or "the cell" in text or len(text) == 20_000
    assert last in text
    log = (tmp_path / "results" / "grids" / "tiny.log").read_text(errors="surrogateescape")
    assert record["run_id"] in log
    assert last in log
    assert_same(unharmed, tmp_path / "results")

    assert "0 to run" in verb("grid", grid, *WORDS).out, "a failed trial is final"
    assert verb("grid", grid, *WORDS).code == 1
    again = verb("grid", grid, *WORDS, "--rerun", "failed")
    assert "1 to run" in again.out


def test_a_cell_of_nans_diverges_which_is_a_result(
    verb: Verb, tmp_path: Path, unharmed: Path
) -> None:
    rogue(tmp_path / "p", "made_up", call="x = x * float('nan')")
    grid = grid_file(tmp_path, "{cell: [made_up, lstm], regularizer: [none]}")
    outcome = verb("grid", grid, *WORDS)
    assert (outcome.code, outcome.err) == (0, "")
    record = records(tmp_path / "results")["made_up x none"]
    assert (record["status"], record["stop_reason"]) == ("diverged", "nan")
    assert record["error_type"] is None
    assert record["test_nll"] is None
    assert_same(unharmed, tmp_path / "results")


@pytest.mark.parametrize(
    ("value", "status", "last"),
    [
        ("1 / 0", "failed", "ZeroDivisionError: division by zero"),
        ("h.mean((0, 1))", "failed", "a penalty must be a scalar, not of shape [10]"),
        ("float(h.detach().mean())", "failed", "Error: "),
        ("h.square().mean() * float('nan')", "diverged", ""),
        ("-h.square().mean() * 1e38 * 1e38", "diverged", ""),
    ],
)
def test_a_regularizer_that_fails_costs_its_own_trial_alone(
    verb: Verb, tmp_path: Path, unharmed: Path, value: str, status: str, last: str
) -> None:
    regularizer(tmp_path / "p", value)
    grid = grid_file(tmp_path, "{cell: [lstm], regularizer: [made_up, none]}")
    outcome = verb("grid", grid, *WORDS)
    assert outcome.code == (1 if status == "failed" else 0)
    assert outcome.err == ""
    record = records(tmp_path / "results")["lstm x made_up:alpha=1"]
    assert record["status"] == status
    assert last in (record["error_text"] or "")
    assert_same(unharmed, tmp_path / "results")


def test_a_cell_that_refuses_its_values_stops_the_grid_before_it_starts(
    verb: Verb, tmp_path: Path
) -> None:
    rogue(tmp_path / "p", "made_up", init="raise ValueError('no such\\nsize')")
    grid = grid_file(tmp_path, "{cell: [lstm, made_up], regularizer: [none]}")
    outcome = verb("grid", grid, *WORDS)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.endswith("cell made_up: no such size\n")
    assert len(outcome.err.splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_a_regularizer_that_refuses_its_values_stops_the_grid_before_it_starts(
    verb: Verb, tmp_path: Path
) -> None:
    check = "if self.alpha > 5: raise ValueError(f'alpha {self.alpha} is\\nabove 5')"
    path = regularizer(tmp_path / "p", "h.square().mean()", check)
    grid = grid_file(tmp_path, '{cell: [lstm], regularizer: [none, "made_up:alpha=6"]}')
    outcome = verb("grid", grid, *WORDS)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err == ("bench: regularizer made_up:alpha=6: ValueError: alpha 6.0 is above 5\n")
    path.write_text(path.read_text().replace("raise ValueError", "raise KeyError"))
    outcome = verb("grid", grid, *WORDS)
    first, second, *_ = outcome.err.splitlines()
    assert first.startswith("bench: regularizer made_up:alpha=6: KeyError: ")
    assert second.startswith("Traceback")
    assert not (tmp_path / "results").exists()


def test_a_mended_plugin_is_another_trial_and_its_failure_is_kept(
    verb: Verb, tmp_path: Path
) -> None:
    rogue(tmp_path / "p", "made_up", init="raise KeyError")
    grid = grid_file(tmp_path, "{cell: [made_up]}")
    assert verb("grid", grid, *WORDS).code == 1
    before = find(tmp_path / "p")["cell"]["made_up"].hash
    rogue(tmp_path / "p", "made_up")
    assert verb("grid", grid, *WORDS).code == 0
    assert find(tmp_path / "p")["cell"]["made_up"].hash != before
    runs, _ = store.load_runs(tmp_path / "results")
    assert sorted(runs.status) == ["failed", "ok"]
    wanted = json.loads((tmp_path / "results" / "grids" / "tiny.json").read_text())["wanted"]
    assert [w["run_id"] for w in wanted] == runs[runs.status == "ok"].run_id.tolist()
