"""Bad input through the real verbs: one clear line, exit 2, nothing started, nothing written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from tests.conftest import Outcome, Verb
from tests.grids import grid_file, rogue

LOCAL = ("--backend", "local", "--jobs", 0, "--no-report")


def refused(outcome: Outcome, line: str, *, tracebacks: bool = False) -> None:
    """Asserts exit code 2 and one line on stderr, that holds `line`."""
    assert outcome.code == 2, outcome
    assert outcome.err.startswith("bench: "), outcome.err
    first, *rest = outcome.err.splitlines()
    assert line in first, first
    assert bool(rest) == tracebacks, outcome.err
    if rest:
        assert rest[0] == "Traceback (most recent call last):"


@pytest.fixture
def grid(verb: Verb, tmp_path: Path) -> Path:
    """A grid of one tiny trial."""
    return grid_file(tmp_path, "{cell: [lstm]}")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--set", "nhid=0"], "tiny.yaml: nhid: 0: input should be greater than or equal to 1"),
        (["--set", "dropout=1.5"], "dropout: 1.5: input should be less than 1"),
        (["--set", "epochs=ten"], "epochs: ten: input should be a valid integer"),
        (["--set", "lr=nan"], "lr: nan: input should be a finite number"),
        (["--set", "lr=inf"], "lr: inf: input should be a finite number"),
        (["--set", "clip=0"], "clip: 0: input should be greater than 0"),
        (["--set", "batch_size=-1"], "batch_size: -1: input should be greater than or equal"),
        (["--set", "tied=maybe"], "tied: maybe: input should be a valid boolean"),
        (["--set", "optimizer=adam"], "optimizer can only be sgd or nt-asgd"),
        (["--set", "precision=fp8"], "precision can only be fp32, fp64, tf32, bf16 or fp16"),
        (["--set", "precision=fp16"], "precision fp16 needs a GPU"),
        (["--set", "nhid"], "--set nhid: write FIELD=VALUE[,VALUE…]"),
        (["--set", "nhiddd=3"], "--set nhiddd: a trial has no such field. Did you mean nhid?"),
        (["--set", "zoneout=0.5"], "--set zoneout: a trial has no such field. "),
        (["--set", "variable_bptt=true", "--set", "bptt=9"], "tiny.yaml: variable_bptt needs a bp"),
        (["--set", "locked=perhaps"], "tiny.yaml: locked: perhaps: input should be a valid bool"),
        (["--set", "dropoute=1"], "tiny.yaml: dropoute: 1: input should be less than 1"),
        (["--set", "objective=augmented:tou=3"], "has no hyper-parameter 'tou'. Did you mean tau"),
        (["--set", "cell=lstm_zoneout:zc=1.5"], "tiny.yaml: cell lstm_zoneout:zc=1.5: zc must be"),
        (["--set", "cell=rhn:depth=0"], "tiny.yaml: cell rhn:depth=0: depth must be at least 1"),
        (["--set", "cell=eunn:capacity=3"], "eunn:capacity=3: capacity must be even, but is 3"),
        (["--set", "cell=urnn", "--set", "nhid=9"], "tiny.yaml: cell urnn: hidden_size must be ev"),
        (["--set", "eval_mc=0"], "tiny.yaml: eval_mc: 0: input should be greater than or equal"),
        (["--set", "objective=foo"], "tiny.yaml: objective: 'foo' is unknown. Known: augmented"),
        (["--set", "lr=1,1"], "--set lr=1,1: one value is there twice"),
        (["--set", "lr=1", "--set", "lr=2"], "--set lr is given twice"),
        (["--set", "cell=lstn"], "cell: no cell is called 'lstn'. Did you mean lstm"),
        (["--set", "cell=../lstm"], "cell: '../lstm' is no selection"),
        (["--set", "cell=" + "x" * 300], "is no selection; write name:key=value"),
        (["--set", "regularizer=arr"], "no regularizer is called 'arr'. Did you mean ar"),
        (["--set", "regularizer=ar:alpa=1"], "ar has no hyper-parameter 'alpa'. Did you mean alph"),
        (["--set", "regularizer=ar:alpha=x"], "ar: alpha=x must be a finite number"),
        (["--set", "regularizer=ar:alpha=-1"], "ar:alpha=-1: ValueError: alpha must not be"),
        (["--set", "corpus=ptbb"], "corpus 'ptbb' is unknown. Did you mean ptb? Known: folder"),
        (["--set", "bptt=5000"], "less than one window of bptt 5000 + 1"),
        (["--set", "nhid=1,2,3", "--reps", "100000"], "--reps 100000 must be a whole number"),
        (["--reps", "0"], "--reps 0 must be a whole number from 1"),
        (["--reps", "ten"], "Invalid value for '--reps': "),
        (["--name", "../x"], "--name: the name '../x' must be 1 to 100 letters, digits, or . _ -"),
        (["--name", "a/b"], "--name: the name 'a/b' must be"),
        (["--name", ""], "--name: the name '' must be"),
        (["--name", "x" * 300], "--name: the name 'xxxx"),
        (["--backend", "slurm"], "--backend slurm: must be ray or local"),
        (["--device", "tpu"], "--device tpu: must be cpu or cuda"),
        (["--rerun", "some"], "--rerun some: must be failed or all"),
        (["--keep-weights", "all"], "--keep-weights all: must be none or best"),
        (["--jobs", "-1"], "--jobs -1: must be 0 (in this process) to 1024"),
        (["--backend", "ray", "--jobs", "0"], "--jobs 0: only --backend local runs trials in this"),
        (["--cpus-per-trial", "0"], "--cpus-per-trial 0: must be above 0"),
        (["--cpus-per-trial", "nan"], "--cpus-per-trial nan: must be above 0"),
        (["--gpus-per-trial", "-1"], "--gpus-per-trial -1: must be 0 to 64"),
        (["--gpus-per-trial", "nan"], "--gpus-per-trial nan: must be 0 to 64"),
        (["--device", "cpu", "--gpus-per-trial", "1"], "--device cpu: contradicts"),
        (["--device", "cuda", "--gpus-per-trial", "0"], "--device cuda: contradicts"),
        (["--max-retries", "-1"], "--max-retries -1: must be 0 to 100"),
        (["--address", "auto"], "--address: only --backend ray joins a cluster"),
        (["--plugins", "nowhere"], "--plugins nowhere: it must be a folder that holds cells/ or"),
        (["--plugins", "x" * 300], "it must be a folder that holds cells/ or regularizers/"),
        (["--bogus"], "No such option: --bogus"),
        (["two.yaml", "three.yaml"], "unexpected extra argument"),
        (["--set"], "Option '--set' requires an argument"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)  # fmt: skip
def test_options_of_grid(
    verb: Verb, grid: Path, tmp_path: Path, words: list[str], line: str
) -> None:
    refused(verb("grid", grid, *LOCAL, *words), line)
    assert not (tmp_path / "results").exists()
    refused(verb("grid", grid, "--dry-run", *LOCAL, *words), line)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--nhid", "0"], "bench.train: nhid: 0: input should be greater than or equal to 1"),
        (["--dropout", "1.5"], "bench.train: dropout: 1.5: input should be less than 1"),
        (["--epochs", "ten"], "bench.train: epochs: ten: input should be a valid integer"),
        (["--lr", "nan"], "bench.train: lr: nan: input should be a finite number"),
        (["--tied", "maybe"], "bench.train: tied: maybe: input should be a valid boolean"),
        (["--optimizer", "adam"], "bench.train: optimizer can only be sgd or nt-asgd"),
        (["--precision", "tf32"], "precision tf32 needs a GPU"),
        (["--cell", "lstn"], "bench.train: cell: no cell is called 'lstn'. Did you mean lstm"),
        (["--cell", ""], "bench.train: cell: '' is no selection"),
        (["--regularizer", "ar+ar"], "bench.train: regularizer: ar is named twice in 'ar+ar'"),
        (["--regularizer", "ar:beta=1"], "ar has no hyper-parameter 'beta'"),
        (["--rep", "-1"], "bench.train: rep: -1: input should be greater than or equal to 0"),
        (["--rerun", "some"], "--rerun some: must be failed or all"),
        (["--nhidd", "3"], "No such option: --nhidd"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_of_train(verb: Verb, tmp_path: Path, words: list[str], line: str) -> None:
    refused(verb("train", "--corpus", "synthetic:train=1500", *words), line)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("axes: {cell: []}", "made-up.yaml: axis cell is empty, so the grid would be"),
        ("name: made-up", "made-up.yaml: an empty grid; give base, axes, blocks or include"),
        ("axes: {nhid: [8, 8]}", "made-up.yaml: axis nhid: the value 8 is there twice"),
        ("name: ../x\nbase: {}", "made-up.yaml: the name '../x' must be 1 to 100 letters"),
        ("name: ''\nbase: {}", "made-up.yaml: the name '' must be"),
        ("name: " + "x" * 300 + "\nbase: {}", "made-up.yaml: the name 'xxxx"),
        ("- lstm\n- gru", "made-up.yaml: must be a mapping (`axes: …`), not list"),
        ("base: {}\nbase: {}", "made-up.yaml: line 2: the key 'base' is there twice"),
        ("base: &x {nhid: *x}", "made-up.yaml: line 1: an alias that holds itself"),
        ("base: {dropout: 1.5}", "made-up.yaml: dropout: 1.5: input should be less than 1"),
        ("base: {epochs: ten}", "made-up.yaml: epochs: ten: input should be a valid integer"),
        ("base: {optimizer: adam}", "made-up.yaml: optimizer can only be sgd or nt-asgd"),
        ("include: [made-up.yaml]", "made-up.yaml: includes itself"),
        ("\x7fELF\x02", "made-up.yaml: not valid YAML: unacceptable character"),
        ("base: {corpus: 'folder:path=nowhere'}", "nowhere"),
    ],
)
def test_grid_files(verb: Verb, tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "made-up.yaml").write_text(text)
    refused(verb("grid", "made-up.yaml", *LOCAL), line)
    assert [p.name for p in tmp_path.iterdir()] == ["made-up.yaml"]


def test_a_grid_file_of_100_mb_is_refused_unread(verb: Verb, tmp_path: Path) -> None:
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(100_000_000)
    refused(verb("grid", "huge.yaml"), "huge.yaml: 100,000,000 bytes are too many for a grid file")


def test_an_unknown_preset_is_answered_with_the_nearest(verb: Verb, tmp_path: Path) -> None:
    outcome = verb("grid", "paper-prb")
    refused(outcome, "no preset is called 'paper-prb' (a file's name ends in .yaml). Did you mean ")
    assert "paper-ptb" in outcome.err
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(verb: Verb, grid: Path, tmp_path: Path) -> None:
    refused(verb("grid", grid, *LOCAL, "--device", "cuda"), "this machine has no GPU that torch")
    refused(
        verb("train", "--device", "cuda"), "this machine has no GPU that torch can use; use cpu"
    )
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["grids"], "no such verb: grids. Did you mean grid? Known: "),
        (["\n" * 50], "no such verb: "),
        (["report", "absent"], "holds no grid called 'absent'"),
        (["report"], "results"),
        (["store", "check"], "--results results: no results folder; it has no runs/"),
        (["store", "orphans"], "--results results: no results folder; it has no runs/"),
        (["store", "prune", "--yes"], "--results results: no results folder; it has no runs/"),
        (["store", "merge", "nowhere"], "nowhere: no results folder; it has no runs/"),
        (["store", "merge"], "Missing argument"),
        (["store", "chekc"], "No such command 'chekc'"),
        (["plugins", "show"], "Missing argument"),
        (["generate", "0123456789ab"], "0123456789ab"),
        (["generate", "../x"], "../x"),
        (["corpora", "show", "ptbb"], "corpus 'ptbb' is unknown. Did you mean ptb?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_other_verbs(verb: Verb, tmp_path: Path, argv: list[str], line: str) -> None:
    refused(verb(*argv), line)
    assert not list(tmp_path.rglob("*.parquet"))
    assert not (tmp_path / "results").exists()


# --- broken plugins -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "line", "tracebacks"),
    [
        ("def (\n", "cell made_up is broken: {path}:1: invalid syntax", False),
        (
            "import quite_absent\n",
            "cell made_up is broken: {path}: made_up.py imports 'quite_absent', which is not inst",
            False,
        ),
        (
            "class Zelle: ...\n",
            "cell made_up is broken: {path}: must define a class called exactly Cell; it has Zelle",
            False,
        ),
        (
            "class Cell:\n    def __init__(self, input_size, hidden_size): ...\n1 / 0\n",
            "cell made_up: {path} cannot be imported: ZeroDivisionError: division by zero",
            True,
        ),
        (
            "class Cell:\n    def __init__(self, input_size, hidden_size): ...\n",
            "cell made_up: {path}: Cell must be a torch.nn.Module",
            False,
        ),
    ],
)
def test_a_broken_plugin_costs_nothing_unless_it_is_selected(
    verb: Verb, grid: Path, tmp_path: Path, source: str, line: str, tracebacks: bool
) -> None:
    path = tmp_path / "p" / "cells" / "made_up.py"
    path.parent.mkdir(parents=True)
    path.write_text(source)
    words = (*LOCAL, "--plugins", "p")
    outcome = verb("grid", grid, *words, "--set", "cell=lstm,made_up")
    refused(outcome, line.format(path=path), tracebacks=tracebacks)
    assert tracebacks == (f'{path}", line 3' in outcome.err)
    assert not (tmp_path / "results").exists()
    assert verb("grid", grid, *words).code == 0


def test_two_plugins_of_one_name(verb: Verb, grid: Path, tmp_path: Path) -> None:
    rogue(tmp_path / "p", "lstm")
    outcome = verb("grid", grid, *LOCAL, "--plugins", "p")
    refused(outcome, "two cells are called 'lstm': ")
    assert os.fspath(tmp_path / "p" / "cells" / "lstm.py") in outcome.err
    assert not (tmp_path / "results").exists()
