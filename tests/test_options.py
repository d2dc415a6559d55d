"""What the command line decides beside the trials: what it refuses, and what follows from it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.errors import BadInput
from bench.options import Options, check, checkpoints_at, how
from tests.conftest import Verb
from tests.grids import grid_file
from tests.test_bad_input import refused

LOCAL = ("--backend", "local")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--backend", "Ray"], "--backend Ray: must be ray or local"),
        (["--jobs", "1025"], "--jobs 1025: must be 0 (in this process) to 1024"),
        (["--jobs", "two"], "Invalid value for '--jobs': "),
        (["--pack", "0"], "--pack 0: must be auto or 1 to "),
        (["--pack", "-1"], "--pack -1: must be auto or 1 to "),
        (["--pack", "1.5"], "--pack 1.5: must be auto or 1 to "),
        (["--pack", "many"], "--pack many: must be auto or 1 to "),
        (["--pack", ""], "--pack : must be auto or 1 to "),
        (["--pack", "9" * 5000], "must be auto or 1 to "),
        (["--cpus-per-trial", "inf"], "--cpus-per-trial inf: must be above 0"),
        (["--cpus-per-trial", "-1"], "--cpus-per-trial -1: must be above 0"),
        (["--gpus-per-trial", "65"], "--gpus-per-trial 65: must be 0 to 64"),
        ([*LOCAL, "--gpus-per-trial", "2"], "--gpus-per-trial: --backend local gives a trial one"),
        (["--max-retries", "101"], "--max-retries 101: must be 0 to 100"),
        ([*LOCAL, "--device-class", "H100"], "--device-class: only --backend ray chooses among no"),
        ([*LOCAL, "--address", "auto"], "--address: only --backend ray joins a cluster"),
        (["--checkpoint-every", "60"], "--checkpoint-every 60: write seconds as 60s, epochs as 2e"),
        (["--checkpoint-every", "0e"], "--checkpoint-every 0e: write seconds as 60s"),
        (["--checkpoint-every", "-1s"], "--checkpoint-every -1s: write seconds as 60s"),
        (["--checkpoint-every", "nans"], "--checkpoint-every nans: write seconds as 60s"),
        (["--checkpoint-every", ""], "--checkpoint-every : write seconds as 60s"),
        (["--trial-timeout", "inf"], "--trial-timeout inf: must be above 0"),
        (["--epoch-timeout", "0"], "--epoch-timeout 0: must be above 0"),
        (["--memory-limit", "-2"], "--memory-limit -2: must be above 0"),
        (["--memory-limit", "1GB"], "Invalid value for '--memory-limit': "),
        ([*LOCAL, "--jobs", "0", "--trial-timeout", "9"], "--trial-timeout: --jobs 0 has no proc"),
        ([*LOCAL, "--jobs", "0", "--epoch-timeout", "9"], "--epoch-timeout: --jobs 0 has no proc"),
        (["--storage", ""], "--storage"),
        (["--storage", "s3://"], "--storage s3://"),
        (["--storage", "nowhere://bucket"], "--storage nowhere://bucket"),
        (["--storage", "a file"], "--storage"),
        (["--storage", "a file/below"], "--storage"),
        (["--storage", "/proc/none"], "--storage /proc/none: "),
        (["--storage", "x" * 300], "--storage"),
        (["--address", "localhost"], "--address localhost: write auto, local or HOST:PORT"),
        (["--address", "h:0"], "--address h:0: write auto, local or HOST:PORT"),
        (["--address", "http://h:1"], "--address http://h:1: write auto, local or HOST:PORT"),
        (["--address", "127.0.0.1:1"], "--address 127.0.0.1:1: nothing answers there"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, list) else "",
)  # fmt: skip
def test_what_is_refused_starts_nothing_and_writes_nothing(
    verb: Verb, tmp_path: Path, words: list[str], line: str
) -> None:
    grid = grid_file(tmp_path, "{cell: [lstm]}")
    (tmp_path / "a file").write_text("of somebody's")
    backend = () if {"--backend", "--address"} & {*words} else LOCAL
    refused(verb("grid", grid, "--device", "cpu", *backend, *words), line)
    left = {path.name for path in tmp_path.iterdir()} - {"results"}
    assert left == {"tiny.yaml", "a file"}
    assert (tmp_path / "a file").read_text() == "of somebody's"
    assert not list(tmp_path.glob("results/**/*.*")), "no grid, no record"


@pytest.mark.parametrize(
    "options",
    [
        {"jobs": 1024},
        {"backend": "local", "jobs": 0},
        {"pack": "auto"},
        {"pack": "32"},
        {"cpus_per_trial": 0.25},
        {"backend": "local", "gpus_per_trial": 1.0},
        {"gpus_per_trial": 0.5},
        {"max_retries": 0},
        {"checkpoint_every": "off"},
        {"checkpoint_every": "0s"},
        {"checkpoint_every": "0.5s"},
        {"checkpoint_every": "2e"},
        {"trial_timeout": 0.5, "epoch_timeout": 1e8, "memory_limit": 0.1},
        {"device_class": "H100", "address": "auto"},
    ],
    ids=str,
)
def test_what_can_be_meant_is_not_refused(options: dict[str, object]) -> None:
    check(Options("results", **options))  # type: ignore[arg-type]


def test_how_trials_are_run() -> None:
    given = Options("r", cpus_per_trial=2.5, pack="auto", memory_limit=1.5, trial_timeout=9.0)
    found = how(given, "cuda", True, "/shared")
    assert (found.device, found.threads, found.pack, found.keep_weights) == ("cuda", 2, 0, True)
    assert (found.memory_limit, found.trial_timeout) == (1_500_000_000, 9.0)
    assert found.checkpoints == "/shared"
    assert how(Options("r", cpus_per_trial=0.5), "cpu", False, None).threads == 1


def test_where_checkpoints_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To a place that all see: on a cluster only what was named, or where the results are."""
    monkeypatch.chdir(tmp_path)
    results, away = tmp_path / "results", "10.0.0.1:6379"
    assert checkpoints_at(Options("results"), results, None) == str(results)
    assert checkpoints_at(Options("results"), results, away) is None
    assert checkpoints_at(Options("s3://b/r"), results, away) == "s3://b/r"
    assert checkpoints_at(Options("results", storage="s3://b/c"), results, away) == "s3://b/c"
    for said in ("shared", "./shared", f"{tmp_path}/x/../shared"):
        at = checkpoints_at(Options("results", storage=said), results, away)
        assert at == str(tmp_path / "shared"), "nodes stand in other folders"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert checkpoints_at(Options("results", storage="~/s"), results, None) == str(tmp_path / "s")
    off = Options("results", storage="shared", checkpoint_every="off")
    assert checkpoints_at(off, results, None) is None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_storage_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(BadInput, match="--storage"):
        check(Options("results", storage=str(tmp_path / "below")))
