"""`--dry-run`: what would run, in which state, what is skipped; nothing starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import store
from tests.conftest import Verb
from tests.dry_runs import LOCAL, dry, recorded
from tests.grids import grid_file, rogue

# --- nothing happens ------------------------------------------------------------------------------


def test_nothing_is_started_and_nothing_written(
    verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a dry run starts nothing")

    for name in ("bench.driver.drive", "bench.launch._backend", "bench.store.prepare"):
        monkeypatch.setattr(name, started)
    grid_file(tmp_path, "{cell: [lstm, gru]}")
    before = sorted(tmp_path.rglob("*"))
    for words in ((), LOCAL, ("--rerun", "all"), ("--name", "other"), ("--address", "10.0.0.1:1")):
        rows, _ = dry(verb, "tiny.yaml", *words)
        assert len(rows) == 2
    assert sorted(tmp_path.rglob("*")) == before


def test_bad_input_is_bad_input_in_a_dry_run_too(verb: Verb, tmp_path: Path) -> None:
    grid_file(tmp_path, "{cell: [lstm]}")
    for words in (("--set", "nhid=0"), ("--backend", "slurm"), ("--device", "tpu")):
        outcome = verb("grid", "tiny.yaml", "--dry-run", *words)
        assert outcome.code == 2 and outcome.out == "" and outcome.err.count("\n") == 1


# --- what is shown --------------------------------------------------------------------------------


def test_the_run_ids_are_those_that_run(verb: Verb, tmp_path: Path) -> None:
    grid_file(tmp_path, "{cell: [lstm, gru], regularizer: [none, tar]}")
    rows, below = dry(verb, "tiny.yaml")
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
    verb: Verb, tmp_path: Path
) -> None:
    axes = "{size: [{nhid: 10, lr: 20.0}, {nhid: 12, lr: 2.5, dropout: 0.1, dropouti: 0.1}]}"
    grid_file(tmp_path, axes, extra="reps: 2")
    rows, below = dry(verb, "tiny.yaml")
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
    assert "wdecay 1e-7, precision fp32, eval_mc none, dropouti as dropout tiny:" in common
    assert not [word for word in ("emsize", "min_lr", "nonmono", "None") if word in common]


def test_a_rule_of_another_optimizer_is_not_shown(verb: Verb, tmp_path: Path) -> None:
    axes = "{own: [{optimizer: sgd, eval_mc: 3}, {optimizer: nt-asgd}]}"
    grid_file(tmp_path, axes)
    rows, below = dry(verb, "tiny.yaml")
    shown = [(row["optimizer"], row["eval_mc"]) for row in rows.values()]
    assert shown == [("sgd", "3"), ("nt-asgd", "none")]
    assert "nonmono 5" in " ".join(below), "each is a rule of some trial"
    grid_file(tmp_path, "{own: [{}, {optimizer: nt-asgd, nonmono: 5}, "
              "{optimizer: nt-asgd, nonmono: 9}, {lr_decay: 2}]}")  # fmt: skip
    rows, _ = dry(verb, "tiny.yaml")
    shown = [(row["nonmono"], row["lr_decay"]) for row in rows.values()]
    assert shown == [("–", "4"), ("5", "–"), ("9", "–"), ("–", "2")]
    grid_file(tmp_path, "{optimizer: [nt-asgd]}", name="own")
    _, below = dry(verb, "own.yaml")
    assert "nonmono 5" in " ".join(below) and "lr_decay" not in " ".join(below)


def test_a_field_that_no_longer_repeats_another_is_shown(verb: Verb, tmp_path: Path) -> None:
    axes = "{own: [{dropouti: 0.1}, {emsize: 8, nhid: 12}, {min_lr: 0.5, lr: 2}]}"
    grid_file(tmp_path, axes)
    rows, below = dry(verb, "tiny.yaml")
    shown = [[row[n] for n in ("dropouti", "emsize", "min_lr")] for row in rows.values()]
    default = "0.0048828125"
    assert shown == [["0.1", "10", default], ["0.5", "8", default], ["0.5", "10", "0.5"]]
    assert "dropout 0.5" in " ".join(below) and "dropouti as" not in " ".join(below)


def test_states_and_rerun(verb: Verb, tmp_path: Path) -> None:
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
        return {
            row["cell"]: row["state"]
            for row in dry(verb, "tiny.yaml", *options, *words)[0].values()
        }

    assert states() == {
        "lstm": "recorded diverged",
        "fails": "recorded failed",
        "gru": "to run, was lost",
        "rnn_tanh": "to run",
    }
    assert states("--rerun", "failed")["fails"] == "to run, was failed"
    assert states("--rerun", "failed")["lstm"] == "recorded diverged"
    assert states("--rerun", "all")["lstm"] == "to run, was diverged"
    _, below = dry(verb, "tiny.yaml", *options)
    assert below[-1].startswith("tiny: 4 trials, 2 to run; ")


def test_a_record_that_cannot_be_read_is_named(verb: Verb, tmp_path: Path) -> None:
    grid_file(tmp_path, "{cell: [lstm]}")
    ((run_id, _),) = dry(verb, "tiny.yaml")[0].items()
    path = tmp_path / "results" / "runs" / f"{run_id}.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PAR1")
    rows, below = dry(verb, "tiny.yaml")
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


def test_skipped_pairs_come_with_their_reasons(verb: Verb, tmp_path: Path) -> None:
    path = rogue(tmp_path / "p", "picky")
    skip = "    @staticmethod\n    def skip(trial):\n"
    path.write_text(
        path.read_text() + f"\n{skip}        return 'too small' if trial.nhid < 11 else None\n"
    )
    (tmp_path / "p" / "regularizers").mkdir()
    (tmp_path / "p" / "regularizers" / "needy.py").write_text(NEEDY)
    axes = "{cell: [lstm, picky], regularizer: [none, needy], nhid: [10, 12]}"
    grid_file(tmp_path, axes, extra="reps: 3")
    rows, below = dry(verb, "tiny.yaml", "--plugins", "p")
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


def test_equal_trials_are_merged_and_counted(verb: Verb, tmp_path: Path) -> None:
    grid_file(tmp_path, "{regularizer: [tar+ar, none]}", name="one")
    grid_file(tmp_path, '{regularizer: ["ar:alpha=2+tar:beta=1", ar]}', name="two")
    (tmp_path / "both.yaml").write_text("include: [one.yaml, two.yaml]\n")
    rows, below = dry(verb, "both.yaml")
    assert len(rows) == 3
    assert "1 equal trial merged" in below
    (tmp_path / "both.yaml").write_text("include: [one.yaml, two.yaml, one.yaml]\n")
    assert "3 equal trials merged" in dry(verb, "both.yaml")[1]
