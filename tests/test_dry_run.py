"""`--dry-run`: what would run, with which parameters, at what cost; nothing starts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bench import store
from tests.conftest import Verb
from tests.grids import grid_file, rogue

LOCAL = ("--backend", "local", "--jobs", 0, "--no-report")


@pytest.fixture
def dry(verb: Verb) -> Any:
    """Returns (rows by run_id, the lines below the table) of a dry run."""

    def call(grid: str, *words: object) -> tuple[dict[str, dict[str, str]], list[str]]:
        outcome = verb("grid", grid, "--dry-run", *words)
        assert outcome.code == 0 and outcome.err == "", outcome
        lines = outcome.out.splitlines()
        head = re.split(r"\s{2,}", lines[0])
        assert head[0] == "run_id"
        rows = {}
        for line in lines[1:]:
            if not re.match(r"[0-9a-f]{12}  ", line):
                break
            cells = re.split(r"\s{2,}", line)
            rows[cells[0]] = dict(zip(head, [*cells, ""], strict=False))
        return rows, lines[1 + len(rows) :]

    return call


def recorded(results: Path = Path("results")) -> list[dict[str, Any]]:
    from bench.store.care import read_record

    records = [read_record(path) for path in sorted((results / "runs").iterdir())]
    return [record for record in records if record is not None]


# --- nothing happens ------------------------------------------------------------------------------


def test_nothing_is_started_and_nothing_written(
    dry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a dry run starts nothing")

    for name in ("bench.driver.drive", "bench.launch._backend", "bench.store.prepare"):
        monkeypatch.setattr(name, started)
    grid_file(tmp_path, "{cell: [lstm, gru]}")
    before = sorted(tmp_path.rglob("*"))
    for words in ((), LOCAL, ("--rerun", "all"), ("--name", "other"), ("--address", "10.0.0.1:1")):
        rows, _ = dry("tiny.yaml", *words)
        assert len(rows) == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_bad_input_is_bad_input_in_a_dry_run_too(verb: Verb, tmp_path: Path) -> None:
    grid_file(tmp_path, "{cell: [lstm]}")
    for words in (("--set", "nhid=0"), ("--backend", "slurm"), ("--device", "tpu")):
        outcome = verb("grid", "tiny.yaml", "--dry-run", *words)
        assert outcome.code == 2 and outcome.out == "" and outcome.err.count("\n") == 1


# --- what is shown --------------------------------------------------------------------------------


def test_the_run_ids_are_those_that_run(dry: Any, verb: Verb, tmp_path: Path) -> None:
    grid_file(tmp_path, "{cell: [lstm, gru], regularizer: [none, tar]}")
    rows, below = dry("tiny.yaml")
    assert [(r["cell"], r["regularizer"], r["rep"]) for r in rows.values()] == [
        ("lstm", "none", "0"),
        ("lstm", "tar:beta=1", "0"),
        ("gru", "none", "0"),
        ("gru", "tar:beta=1", "0"),
    ]
    assert {r["state"] for r in rows.values()} == {"to run"}
    assert below[-1] == "tiny: 4 trials, 4 to run; cost: 4 trials with no measurement yet"
    assert verb("grid", "tiny.yaml", *LOCAL).code == 0
    assert {record["run_id"] for record in recorded()} == set(rows)


def test_columns_are_what_varies_and_numbers_are_spelled_as_in_a_grid(
    dry: Any, tmp_path: Path
) -> None:
    axes = "{size: [{nhid: 10, lr: 20.0}, {nhid: 12, lr: 2.5, dropout: 0.1, dropouti: 0.1}]}"
    grid_file(tmp_path, axes, extra="reps: 2")
    rows, below = dry("tiny.yaml")
    known = ["run_id", "cell", "regularizer", "nhid", "dropout", "lr", "rep", "parameters"]
    first, second, third, _ = rows.values()
    assert list(first) == [*known, "state", "cost"]
    assert (first["nhid"], first["dropout"], first["lr"], first["rep"]) == ("10", "0.5", "20", "0")
    assert second["rep"] == "1"
    assert (third["nhid"], third["dropout"], third["lr"]) == ("12", "0.1", "2.5")
    common = " ".join(below)
    assert (
        "every trial: corpus synthetic:test=300:train=1500:valid=300, nlayers 2, tied t" in common
    )
    assert "wdecay 1e-7, precision fp32, dropouti as dropout tiny:" in common
    assert "emsize" not in common and "min_lr" not in common


def test_a_field_that_no_longer_repeats_another_is_shown(dry: Any, tmp_path: Path) -> None:
    axes = "{own: [{dropouti: 0.1}, {emsize: 8, nhid: 12}, {min_lr: 0.5, lr: 2}]}"
    grid_file(tmp_path, axes)
    rows, below = dry("tiny.yaml")
    shown = [[row[n] for n in ("dropouti", "emsize", "min_lr")] for row in rows.values()]
    default = "0.0048828125"
    assert shown == [["0.1", "10", default], ["0.5", "8", default], ["0.5", "10", "0.5"]]
    assert "dropout 0.5" in " ".join(below) and "dropouti as" not in " ".join(below)


def test_states_and_rerun(dry: Any, verb: Verb, tmp_path: Path) -> None:
    rogue(tmp_path / "p", "fails", call="raise ValueError('no')")
    grid_file(tmp_path, "{cell: [lstm, fails, gru, rnn_tanh]}")
    options = ("--plugins", "p")
    assert verb("grid", "tiny.yaml", *options, *LOCAL).code == 1
    by_cell = {record["cell"]: record for record in recorded()}
    store.write_run(Path("results"), by_cell["lstm"] | {"status": "diverged"})
    for folder, suffix in (("runs", "parquet"), ("epochs", "parquet")):
        for cell in ("gru", "rnn_tanh"):
            Path("results", folder, f"{by_cell[cell]['run_id']}.{suffix}").unlink()
    store.write_run(Path("results"), by_cell["gru"] | {"status": "lost"})

    def states(*words: object) -> dict[str, str]:
        return {row["cell"]: row["state"] for row in dry("tiny.yaml", *options, *words)[0].values()}

    assert states() == {
        "lstm": "recorded diverged",
        "fails": "recorded failed",
        "gru": "to run, was lost",
        "rnn_tanh": "to run",
    }
    assert states("--rerun", "failed")["fails"] == "to run, was failed"
    assert states("--rerun", "failed")["lstm"] == "recorded diverged"
    assert states("--rerun", "all")["lstm"] == "to run, was diverged"
    _, below = dry("tiny.yaml", *options)
    assert below[-1].startswith("tiny: 4 trials, 2 to run; ")


def test_a_record_that_cannot_be_read_is_named(dry: Any, tmp_path: Path) -> None:
    grid_file(tmp_path, "{cell: [lstm]}")
    ((run_id, _),) = dry("tiny.yaml")[0].items()
    path = tmp_path / "results" / "runs" / f"{run_id}.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1")
    rows, below = dry("tiny.yaml")
    assert rows[run_id]["state"] == "to run"
    assert any(
        line.startswith(f"warning: results/runs/{run_id}.parquet: not a whole") for line in below
    )


NEEDY = '''
"""A penalty on the memory."""
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Regularizer:
    needs: ClassVar[tuple[str, ...]] = ("memory",)

    def __call__(self, acts):
        return acts.memory[-1].square().mean()
'''


def test_skipped_pairs_come_with_their_reasons(dry: Any, verb: Verb, tmp_path: Path) -> None:
    path = rogue(tmp_path / "p", "picky")
    skip = "    @staticmethod\n    def skip(trial):\n"
    path.write_text(
        path.read_text() + f"\n{skip}        return 'too small' if trial.nhid < 11 else None\n"
    )
    (tmp_path / "p" / "regularizers").mkdir()
    (tmp_path / "p" / "regularizers" / "needy.py").write_text(NEEDY)
    axes = "{cell: [lstm, picky], regularizer: [none, needy], nhid: [10, 12]}"
    grid_file(tmp_path, axes, extra="reps: 3")
    rows, below = dry("tiny.yaml", "--plugins", "p")
    assert {(r["cell"], r["regularizer"], r["nhid"]) for r in rows.values()} == {
        ("lstm", "none", "10"),
        ("lstm", "none", "12"),
        ("picky", "none", "12"),
    }
    assert [line for line in below if line.startswith("skipped")] == [
        "skipped: lstm x needy (6): needy needs memory, which lstm does not give",
        "skipped: picky x none (3): too small",
        "skipped: picky x needy (6): needy needs memory, which picky does not give",
    ]
    grid_file(tmp_path, "{cell: [lstm], regularizer: [needy]}", name="none")
    outcome = verb("grid", "none.yaml", "--dry-run", "--plugins", "p")
    assert outcome.code == 2 and "an empty grid; all skipped: lstm x needy: needy" in outcome.err


def test_equal_trials_are_merged_and_counted(dry: Any, tmp_path: Path) -> None:
    grid_file(tmp_path, "{regularizer: [tar+ar, none]}", name="one")
    grid_file(tmp_path, '{regularizer: ["ar:alpha=2+tar:beta=1", ar]}', name="two")
    (tmp_path / "both.yaml").write_text("include: [one.yaml, two.yaml]\n")
    rows, below = dry("both.yaml")
    assert len(rows) == 3
    assert "1 equal trial merged" in below
    (tmp_path / "both.yaml").write_text("include: [one.yaml, two.yaml, one.yaml]\n")
    assert "3 equal trials merged" in dry("both.yaml")[1]


# --- parameters -----------------------------------------------------------------------------------


def test_parameter_counts_are_those_of_the_record(dry: Any, verb: Verb, tmp_path: Path) -> None:
    grid_file(tmp_path, "{size: [{nhid: 10}, {nhid: 12, emsize: 8}, {tied: false, nlayers: 1}]}")
    rows, _ = dry("tiny.yaml")
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
    preset: str, counts: dict[str, str], real_data: Path, dry: Any
) -> None:
    rows, _ = dry(preset, "--data-dir", real_data)
    found = {f"{row['cell']} {row['nhid']}": row["parameters"] for row in rows.values()}
    assert counts.items() <= found.items()


def test_models_beyond_all_memory_are_counted(dry: Any, tmp_path: Path) -> None:
    grid_file(tmp_path, "{nhid: [90000]}")
    rows, _ = dry("tiny.yaml", "--set", "nlayers=5")
    (count,) = (int(row["parameters"].replace(",", "")) for row in rows.values())
    assert count > 5 * 8 * 90_000**2, "over 300 billion numbers"


def test_a_cell_that_cannot_be_built_counts_as_unknown(dry: Any, tmp_path: Path) -> None:
    rogue(tmp_path / "p", "breaks", init="raise ValueError('no')")
    grid_file(tmp_path, "{cell: [breaks, lstm]}")
    rows, _ = dry("tiny.yaml", "--plugins", "p")
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
    dry: Any, tmp_path: Path, measured: dict[str, Any]
) -> None:
    grid_file(tmp_path, "{epochs: [2, 4], lr: [20, 10]}")
    rows, below = dry("tiny.yaml", "--jobs", 2)
    costs = {(r["epochs"], r["lr"]): (r["state"], r["cost"]) for r in rows.values()}
    assert costs == {
        ("2", "20"): ("recorded ok", ""),
        ("2", "10"): ("to run", "40 s"),
        ("4", "20"): ("to run", "80 s"),
        ("4", "10"): ("to run", "80 s"),
    }
    assert below[-1] == "tiny: 4 trials, 3 to run; cost: 2 min on 2 at a time"  # 200 s / 2


def test_cost_is_scaled_and_marked_where_another_size_is_on_record(
    dry: Any, tmp_path: Path, measured: dict[str, Any]
) -> None:
    grid_file(tmp_path, "{cell: [lstm, gru], size: [{nhid: 40}]}")
    rows, below = dry("tiny.yaml", "--jobs", 1)
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
    dry: Any, tmp_path: Path, measured: dict[str, Any]
) -> None:
    grid_file(tmp_path, "{regularizer: [ar, tar+ar]}")
    rows, _ = dry("tiny.yaml")
    assert [row["cost"] for row in rows.values()] == ["~40 s", "~40 s"]
    (run_id, *_) = rows
    other = measured | {"run_id": run_id, "regularizer": "ar:alpha=2", "train_seconds": 70.0}
    store.write_run(Path("results"), other)
    rows, _ = dry("tiny.yaml", "--rerun", "all")
    assert next(iter(rows.values()))["cost"] == "80 s"


@pytest.mark.parametrize(
    "changes",
    [{"status": "diverged"}, {"cuda": "13.0"}, {"batch_size": 7}, {"precision": "fp64"}],
    ids=str,
)
def test_what_is_not_comparable_is_no_measurement(
    changes: dict[str, Any], dry: Any, tmp_path: Path, measured: dict[str, Any]
) -> None:
    store.write_run(Path("results"), measured | changes)
    grid_file(tmp_path, "{lr: [10]}")
    rows, below = dry("tiny.yaml")
    assert [row["cost"] for row in rows.values()] == ["no measurement yet"]
    assert below[-1] == "tiny: 1 trial, 1 to run; cost: 1 trial with no measurement yet"


def test_a_finished_grid_costs_nothing(dry: Any, measured: dict[str, Any]) -> None:
    rows, below = dry("seen.yaml")
    assert [row["state"] for row in rows.values()] == ["recorded ok"]
    assert below[-1] == "seen: 1 trial, 0 to run; cost: none"
