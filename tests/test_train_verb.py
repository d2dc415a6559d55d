"""`python -m bench.train`: one trial, every field an option, recorded like a grid of one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bench import store
from bench.config import FIELDS
from tests.conftest import Verb
from tests.grids import assert_same, rogue

CORPUS = "synthetic:train=1500:valid=300:test=300"
TINY = [
    *["--corpus", CORPUS, "--nhid", 10, "--batch-size", 5, "--bptt", 10, "--epochs", 2],
]
CHANGED: dict[str, tuple[str, object]] = {
    "corpus": (
        "synthetic:test=200:train=1500:valid=300",
        "synthetic:test=200:train=1500:valid=300",
    ),
    "cell": ("gru", "gru"),
    "regularizer": ("tar:beta=0.5+ar", "ar:alpha=2+tar:beta=0.5"),
    "nlayers": ("3", 3),
    "nhid": ("9", 9),
    "emsize": ("7", 7),
    "tied": ("false", False),
    "dropout": ("0.1", 0.1),
    "dropouti": ("0.2", 0.2),
    "dropouth": (".25", 0.25),
    "dropoute": ("0.1", 0.1),
    "locked": ("true", True),
    "bptt": ("12", 12),
    "variable_bptt": ("true", True),
    "batch_size": ("6", 6),
    "epochs": ("1", 1),
    "objective": ("augmented:tau=10:gamma=0.50", "augmented:tau=10"),
    "optimizer": ("nt-asgd", "nt-asgd"),
    "nonmono": ("3", 3),
    "lr": ("5", 5.0),
    "lr_decay": ("3", 3.0),
    "min_lr": ("1e-3", 0.001),
    "clip": ("0.5", 0.5),
    "wdecay": ("1e-6", 1e-6),
    "precision": ("fp64", "fp64"),
    "eval_mc": ("2", 2),
    "rep": ("3", 3),
}


def runs(results: str = "results") -> list[dict[str, Any]]:
    frame, problems = store.load_runs(Path(results))
    assert problems == []
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def test_every_field_of_a_trial_is_an_option_with_its_default(
    verb: Verb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = " ".join(verb("train", "--help").out.partition("--results")[0].split())
    options = re.split(r" --(?=[a-z-]+ (?:TEXT|INT|FLOAT|true\|false) )", text)[1:]
    found = {name: rest for name, _, rest in (option.partition(" ") for option in options)}
    assert found["nhid"].startswith("INT Units of a layer") and found["tied"].startswith("true|f")
    shown = {name: rest.rpartition("[default: ")[2].strip("] ") for name, rest in found.items()}
    assert set(shown) == {name.replace("_", "-") for name in FIELDS}
    assert shown["nhid"] == "650" and shown["lr"] == "20" and shown["wdecay"] == "1e-7"
    assert shown["tied"] == "true" and shown["emsize"] == "nhid" and shown["min-lr"] == "lr / 4^6"
    assert shown["eval-mc"] == "none" and shown["objective"] == "nll"


@pytest.mark.parametrize(
    ("optimizer", "unread"),
    [("sgd", {"nonmono": 5}), ("nt-asgd", {"lr_decay": 4.0, "min_lr": 5.0 / 4**6})],
)
def test_the_values_reach_the_record(verb: Verb, optimizer: str, unread: dict[str, float]) -> None:
    assert set(CHANGED) == set(FIELDS), "a new field belongs into this table"
    given = CHANGED | {"optimizer": (optimizer, optimizer)}
    words = [
        word for name, (text, _) in given.items() for word in (f"--{name.replace('_', '-')}", text)
    ]
    outcome = verb("train", *words)
    assert outcome.code == 0, outcome
    (record,) = runs()
    expected = {name: value for name, (_, value) in given.items()} | unread
    assert {name: record[name] for name in FIELDS} == expected
    assert record["status"] == "ok" and record["epochs_done"] == 1
    assert record["valid_mc_nll"] > 0 and record["test_mc_nll"] > 0


def test_it_trains_once_and_again_when_asked(verb: Verb) -> None:
    first = verb("train", *TINY)
    assert first.code == 0
    (record,) = runs()
    lines = first.out.splitlines()
    name = lines[0].split(":")[0]
    assert re.fullmatch(r"train-[0-9a-f]{8}", name)
    assert lines[0].endswith("0 recorded, 1 to run")
    assert lines[1].startswith(f"[1/1] {record['run_id']} lstm 10 · none · rep 0 · valid ")
    assert lines[2:] == ["1 trial: 1 ok"]
    path = Path("results", "runs", f"{record['run_id']}.parquet")
    assert Path("results", "weights", f"{record['run_id']}.safetensors").is_file()
    written = path.stat().st_mtime_ns
    again = verb("train", *TINY)
    assert again.code == 0
    assert again.out.splitlines()[0].endswith("1 recorded, 0 to run")
    assert path.stat().st_mtime_ns == written and len(again.out.splitlines()) == 2
    rerun = verb("train", *TINY, "--rerun", "all")
    assert rerun.code == 0 and path.stat().st_mtime_ns > written
    assert [r["run_id"] for r in runs()] == [record["run_id"]]
    assert verb("train", *TINY, "--rerun", "failed").out.splitlines()[0].endswith("0 to run")


def test_equal_trials_in_two_spellings_are_one(verb: Verb) -> None:
    assert verb("train", *TINY, "--lr", "20", "--regularizer", "tar+ar").code == 0
    other = verb("train", *TINY, "--lr", "2e1", "--regularizer", "ar:alpha=2.0+tar:beta=1")
    assert other.out.splitlines()[0].endswith("1 recorded, 0 to run")
    assert len(runs()) == 1 and len(list(Path("results", "grids").glob("*.json"))) == 1


def test_a_grid_of_the_same_trial_has_the_same_record(verb: Verb, tmp_path: Path) -> None:
    fields = ["--cell", "gru", "--regularizer", "ar+tar", "--rep", "1", "--dropouth", "0.1"]
    assert verb("train", *TINY, *fields, "--results", "one").code == 0
    (tmp_path / "same.yaml").write_text(
        f"""
name: same
base: {{corpus: "{CORPUS}", nhid: 10, batch_size: 5, bptt: 10, epochs: 2, cell: gru, dropouth: 0.1}}
axes: {{regularizer: [ar+tar]}}
reps: 2
"""
    )
    local = ("--backend", "local", "--jobs", 0, "--no-report")
    assert verb("grid", "same.yaml", *local, "--results", "two").code == 0
    (record,) = runs("one")
    assert_same(tmp_path / "one", tmp_path / "two", [record["run_id"]])
    # In one folder, either finds the other's record.
    assert (
        verb("train", *TINY, *fields, "--results", "two").out.splitlines()[0].endswith("0 to run")
    )


def test_weights_are_kept_unless_declined(verb: Verb) -> None:
    assert verb("train", *TINY, "--keep-weights", "none", "--report").code == 0
    assert not Path("results", "weights").exists()
    (page,) = Path("results", "reports").glob("train-*.html")
    assert page.stat().st_size > 1000


def test_exit_codes(verb: Verb, tmp_path: Path) -> None:
    rogue(tmp_path / "p", "fails", call="raise ValueError('no\\nmore')")
    failing = (*TINY, "--cell", "fails", "--plugins", "p")
    outcome = verb("train", *failing)
    assert outcome.code == 1
    assert "1 trial: 1 failed" in outcome.out and "errors: results/grids/train-" in outcome.out
    (record,) = runs()
    assert record["status"] == "failed" and record["error_type"] == "ValueError"
    # A failed record is final, until it is asked for again; the exit code says that it failed.
    again = verb("train", *failing)
    assert again.code == 1 and again.out.splitlines()[0].endswith("1 recorded, 0 to run")
    path = Path("results", "runs", f"{record['run_id']}.parquet")
    written = path.stat().st_mtime_ns
    assert verb("train", *failing, "--rerun", "failed").code == 1
    assert path.stat().st_mtime_ns > written
    assert verb("train", *TINY, "--lr", "1e30", "--clip", "1e30").code == 0, "diverged is a result"
    assert sorted(record["status"] for record in runs()) == ["diverged", "failed"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--nhid", "ten"], "bench.train: nhid: ten: input should be a valid integer"),
        (["--rep", "-1"], "bench.train: rep: -1: input should be greater than or equal to 0"),
        (["--cell", "lstn"], "bench.train: cell: no cell is called 'lstn'. Did you mean lstm"),
        (["--tied", "perhaps"], "bench.train: tied: perhaps: input should be a valid boolean"),
        (["--lr", ""], "bench.train: lr: : input should be a valid number"),
        (["--dp", "0.5"], "No such option: --dp"),
        (["--jobs", "2"], "No such option: --jobs"),
        (["--keep-weights", "all"], "--keep-weights all: must be none or best"),
    ],
)
def test_bad_input_is_one_line(words: list[str], line: str, verb: Verb) -> None:
    outcome = verb("train", *TINY, *words)
    assert outcome.code == 2 and outcome.out == ""
    assert outcome.err.startswith(f"bench: {line}"), outcome.err
    assert outcome.err.count("\n") == 1 and not Path("results").exists()


def test_a_pair_that_makes_no_sense_is_bad_input(verb: Verb, tmp_path: Path) -> None:
    path = rogue(tmp_path / "p", "picky")
    path.write_text(
        path.read_text() + "\n    @staticmethod\n    def skip(trial):\n"
        "        return 'needs bptt 20' if trial.bptt < 20 else None\n"
    )
    outcome = verb("train", *TINY, "--cell", "picky", "--plugins", "p")
    assert outcome.code == 2
    assert "all skipped: picky x none: needs bptt 20" in outcome.err
    assert outcome.out == "" and not Path("results").exists()
