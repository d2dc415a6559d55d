"""`--dry-run`: the size of each model, and what a grid would cost by the speeds on record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import store
from tests.conftest import Verb
from tests.dry_runs import LOCAL, dry, recorded
from tests.grids import grid_file, rogue

# --- parameters -----------------------------------------------------------------------------------


def test_parameter_counts_are_those_of_the_record(verb: Verb, tmp_path: Path) -> None:
    grid_file(tmp_path, "{size: [{nhid: 10}, {nhid: 12, emsize: 8}, {tied: false, nlayers: 1}]}")
    rows, _ = dry(verb, "tiny.yaml")
    assert verb("grid", "tiny.yaml", *LOCAL).code == 0
    counts = {record["run_id"]: f"{record['num_params']:,}" for record in recorded()}
    assert {run_id: row["parameters"] for run_id, row in rows.items()} == counts
    assert len(set(counts.values())) == 3


@pytest.mark.parametrize(
    ("preset", "counts"),
    [
        ("paper-ptb", {"lstm 650": "13,280,400", "lstm 1500": "51,034,000"}),
        ("paper-cells", {"gru 650": "11,587,800", "rnn_tanh 650": "8,202,600"}),
    ],
)
def test_parameter_counts_of_the_paper(
    preset: str, counts: dict[str, str], real_data: Path, verb: Verb
) -> None:
    rows, _ = dry(verb, preset, "--data-dir", real_data)
    found = {f"{row['cell']} {row['nhid']}": row["parameters"] for row in rows.values()}
    assert counts.items() <= found.items()


def test_models_beyond_all_memory_are_counted(verb: Verb, tmp_path: Path) -> None:
    grid_file(tmp_path, "{nhid: [90000]}")
    rows, _ = dry(verb, "tiny.yaml", "--set", "nlayers=5")
    (count,) = (int(row["parameters"].replace(",", "")) for row in rows.values())
    assert count > 5 * 8 * 90_000**2, "over 300 billion numbers"


def test_a_cell_that_cannot_be_built_counts_as_unknown(verb: Verb, tmp_path: Path) -> None:
    rogue(tmp_path / "p", "breaks", init="raise RuntimeError('no')")
    grid_file(tmp_path, "{cell: [breaks, lstm]}")
    rows, _ = dry(verb, "tiny.yaml", "--plugins", "p")
    assert [row["parameters"] == "?" for row in rows.values()] == [True, False]


# --- cost -----------------------------------------------------------------------------------------


@pytest.fixture
def measured(verb: Verb, tmp_path: Path) -> dict[str, Any]:
    """The record of one trial, said to have trained 2 epochs of 1500 tokens in 40 s."""
    grid_file(tmp_path, "{cell: [lstm]}", name="seen")
    assert verb("grid", "seen.yaml", *LOCAL).code == 0
    (record,) = recorded()
    times = {"train_seconds": 30.0, "eval_seconds": 10.0, "tokens_per_s": 100.0, "epochs_done": 2}
    store.write_run(Path("results"), record | times)
    return record | times


def test_cost_is_exact_where_such_a_trial_is_on_record(
    verb: Verb, tmp_path: Path, measured: dict[str, Any]
) -> None:
    grid_file(tmp_path, "{epochs: [2, 4], lr: [20, 10]}")
    rows, below = dry(verb, "tiny.yaml", "--jobs", 2)
    costs = {(r["epochs"], r["lr"]): (r["state"], r["cost"]) for r in rows.values()}
    assert costs == {
        ("2", "20"): ("recorded ok", ""),
        ("2", "10"): ("to run", "40 s"),
        ("4", "20"): ("to run", "80 s"),
        ("4", "10"): ("to run", "80 s"),
    }
    assert below[-1] == "tiny: 4 trials, 3 to run; cost: 2 min on 2 at a time"  # 200 s / 2


def test_cost_is_scaled_and_marked_where_another_size_is_on_record(
    verb: Verb, tmp_path: Path, measured: dict[str, Any]
) -> None:
    grid_file(tmp_path, "{cell: [lstm, gru], size: [{nhid: 40}]}")
    rows, below = dry(verb, "tiny.yaml", "--jobs", 1)
    big, gru = rows.values()
    count = int(big["parameters"].replace(",", ""))
    # 3000 tokens in 40 s; its work is tokens x parameters.
    seconds = 40 / 3000 / measured["num_params"] * count * 1500 * 2
    assert big["cost"] in (f"~{seconds:.0f} s", f"~{seconds / 60:.0f} min")
    assert gru["cost"] == "no measurement yet"
    assert below[-1] == (
        f"tiny: 2 trials, 2 to run; cost: {big['cost']} on 1 at a time, and 1 trial with no "
        "measurement yet"
    )


def test_another_regularizer_is_a_scaled_cost_of_the_same_size(
    verb: Verb, tmp_path: Path, measured: dict[str, Any]
) -> None:
    slow = {"run_id": "0123456789ab", "nhid": 40, "train_seconds": 9e9}
    store.write_run(Path("results"), measured | slow)  # of another size: not asked
    grid_file(tmp_path, "{regularizer: [ar, tar+ar]}")
    rows, _ = dry(verb, "tiny.yaml")
    assert [row["cost"] for row in rows.values()] == ["~40 s", "~40 s"]
    (run_id, *_) = rows
    other = measured | {"run_id": run_id, "regularizer": "ar:alpha=2", "train_seconds": 70.0}
    store.write_run(Path("results"), other)
    rows, _ = dry(verb, "tiny.yaml", "--rerun", "all")
    assert next(iter(rows.values()))["cost"] == "80 s"


@pytest.mark.parametrize(
    "changes",
    [{"status": "diverged"}, {"cuda": "13.0"}, {"batch_size": 7}, {"precision": "fp64"}],
    ids=str,
)
def test_what_is_not_comparable_is_no_measurement(
    changes: dict[str, Any], verb: Verb, tmp_path: Path, measured: dict[str, Any]
) -> None:
    store.write_run(Path("results"), measured | changes)
    grid_file(tmp_path, "{lr: [10]}")
    rows, below = dry(verb, "tiny.yaml")
    assert [row["cost"] for row in rows.values()] == ["no measurement yet"]
    assert below[-1] == "tiny: 1 trial, 1 to run; cost: 1 trial with no measurement yet"


def test_a_finished_grid_costs_nothing(verb: Verb, measured: dict[str, Any]) -> None:
    rows, below = dry(verb, "seen.yaml")
    assert [row["state"] for row in rows.values()] == ["recorded ok"]
    assert below[-1] == "seen: 1 trial, 0 to run; cost: none"
