"""Failures are results: what a plugin breaks, hangs or fills costs its own trial, and is a row."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench import store
from tests.conftest import Verb
from tests.grids import assert_same, bench, grid_file, rogue
from tests.test_bad_input import refused

LATE = "if self.calls > 3: "
ROGUES = {
    "sleeps": LATE + "__import__('time').sleep(3600)",
    # Native code that never lets Python's lock go: no thread of its process runs any more.
    "spins": LATE + "__import__('re').match('(a+)+$', 'a' * 99 + 'b')",
    "crashes": LATE + "__import__('faulthandler')._sigsegv()",
    "leaves": LATE + "os._exit(0)",
    "leaks": "self.kept = [*getattr(self, 'kept', []), torch.ones(25_000_000)]; "
    "__import__('time').sleep(0.05)",
    "raises": LATE + "raise ValueError('no more')",
}
ENDS = {
    "sleeps": ("timeout", "Timeout", "in forward", "--epoch-timeout"),
    "spins": ("timeout", "Timeout", "in forward", "--epoch-timeout"),
    "crashes": ("failed", "ProcessDied", "in forward", "signal 11 (SIGSEGV)"),
    "leaves": ("failed", "ProcessDied", "in forward", "exit code 0"),
    "leaks": ("oom", "MemoryLimit", "loop.py", "--memory-limit"),
    "raises": ("failed", "ValueError", "in forward", "no more"),
}
LIMITS = ("--epoch-timeout", 20, "--memory-limit", 1.6, "--max-retries", 0)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The record of a trial that nothing disturbed."""
    folder = tmp_path_factory.mktemp("calm")
    grid = grid_file(folder, "{cell: [lstm]}")
    assert bench("grid", grid, "--results", folder, "--backend", "local", "--jobs", 0) == 0
    return folder


def end_of(runs: Any, cell: str) -> tuple[str, str, str]:
    row = runs[runs.cell == cell].iloc[0]
    return row.status, row.error_type, row.error_text


BACKENDS = [
    pytest.param("local", id="local"),
    pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.xdist_group("ray")], id="ray"),
]


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_each_end_is_a_row_and_costs_its_own_trial(
    verb: Verb, calm: Path, tmp_path: Path, backend: str
) -> None:
    for name, call in ROGUES.items():
        rogue(tmp_path / "p", name, call=call)
    grid = grid_file(tmp_path, f"{{cell: [{', '.join(ROGUES)}, lstm]}}")
    argv = ("--backend", backend, "--jobs", 2, "--plugins", tmp_path / "p", "--no-report")
    outcome = verb("grid", grid, "--results", tmp_path, *argv, *LIMITS)
    assert outcome.code == 1
    assert "7 trials: 1 ok, 3 failed, 1 oom, 2 timeout" in outcome.out
    runs, problems = store.load_runs(tmp_path)
    assert problems == []
    for cell, (status, error, *said) in ENDS.items():
        row = runs[runs.cell == cell].iloc[0]
        assert (row.status, row.error_type) == (status, error)
        assert all(words in row.error_text for words in said), row.error_text
        assert row.host and row.torch, "where it happened"
    assert_same(calm, tmp_path, runs[runs.cell == "lstm"].run_id.tolist())
    assert not list(tmp_path.glob("checkpoints/*"))
    log = (tmp_path / "grids" / "tiny.log").read_text()
    assert "SIGSEGV" in log and "no more" in log


@pytest.mark.slow
def test_in_a_pack_only_the_one_that_hangs_is_blamed(verb: Verb, tmp_path: Path) -> None:
    rogue(tmp_path / "p", "sleeps", call=ROGUES["sleeps"])
    rogue(tmp_path / "p", "raises", call="if self.calls > 9: raise ValueError('no more')")
    grid = grid_file(tmp_path, "{cell: [lstm, sleeps, raises, gru]}")
    argv = ("--backend", "local", "--jobs", 1, "--plugins", tmp_path / "p", "--no-report")
    outcome = verb("grid", grid, "--results", tmp_path, *argv, "--pack", 3, "--epoch-timeout", 8)
    assert outcome.code == 1
    runs, _ = store.load_runs(tmp_path)
    assert dict(zip(runs.cell, runs.status, strict=True)) == {
        "lstm": "ok",
        "sleeps": "timeout",
        "raises": "failed",
        "gru": "ok",
    }


def test_what_a_trial_started_ends_with_it(verb: Verb, tmp_path: Path) -> None:
    """A process of its own that holds our pipe open hides no crash, and is not left behind."""
    note = tmp_path / "pid"
    start = f"os.system('sleep 600 & echo $! > {note}')"
    call = f"if self.calls == 3: {start}; __import__('faulthandler')._sigsegv()"
    rogue(tmp_path / "p", "crashes", call=call)
    grid = grid_file(tmp_path, "{cell: [crashes]}")
    argv = ("--backend", "local", "--jobs", 1, "--plugins", tmp_path / "p", "--no-report")
    before = time.monotonic()
    assert verb("grid", grid, "--results", tmp_path, *argv).code == 1
    assert time.monotonic() - before < 60
    runs, _ = store.load_runs(tmp_path)
    assert list(runs.status) == ["failed"] and "SIGSEGV" in runs.error_text[0]
    psutil.wait_procs([p for p in psutil.process_iter() if p.pid == int(note.read_text())], 10)
    assert not psutil.pid_exists(int(note.read_text()))


def test_a_checkout_in_the_current_folder_is_not_what_trains(verb: Verb, tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").write_text("raise ImportError('a stranger')")
    grid = grid_file(tmp_path, "{cell: [lstm]}")
    argv = ("--backend", "local", "--jobs", 1, "--no-report")
    assert verb("grid", grid, *argv).code == 0


def test_rerun_failed_runs_just_those(verb: Verb, tmp_path: Path) -> None:
    rogue(tmp_path / "p", "leaves", call=ROGUES["leaves"])
    grid = grid_file(tmp_path, "{cell: [leaves, lstm]}")
    argv = ("--backend", "local", "--jobs", 1, "--plugins", tmp_path / "p", "--no-report")
    assert verb("grid", grid, *argv).code == 1
    again = verb("grid", grid, *argv)
    assert again.code == 1 and "2 recorded, 0 to run" in again.out
    rerun = verb("grid", grid, *argv, "--rerun", "failed")
    assert "1 recorded, 1 to run" in rerun.out and rerun.code == 1


def test_out_of_memory_is_tried_again_and_a_plugins_error_is_not(
    verb: Verb, tmp_path: Path
) -> None:
    marker = tmp_path / "tries"
    count = f"open({str(marker)!r}, 'a').write(type(self).__module__ + ' ')"
    first = f"'full' not in open({str(marker)!r}).read()"
    rogue(
        tmp_path / "p",
        "full",
        init=f"self.first = not os.path.exists({str(marker)!r}) or {first}; {count}",
        call="if self.first and self.calls > 3: raise MemoryError('full')",
    )
    rogue(tmp_path / "p", "wrong", init=count, call="if self.calls > 3: raise ValueError('no')")
    grid = grid_file(tmp_path, "{cell: [full, wrong]}")
    argv = ("--backend", "local", "--jobs", 1, "--plugins", tmp_path / "p", "--no-report")
    assert verb("grid", grid, *argv).code == 1
    runs, _ = store.load_runs(tmp_path / "results")
    assert dict(zip(runs.cell, runs.status, strict=True)) == {"full": "ok", "wrong": "failed"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--trial-timeout", 0), "--trial-timeout 0: must be above 0"),
        (("--epoch-timeout", -1), "--epoch-timeout -1: must be above 0"),
        (("--memory-limit", "nan"), "--memory-limit nan: must be above 0"),
        (("--memory-limit", 1, "--backend", "local", "--jobs", 0), "use --jobs 1"),
        (("--checkpoint-every", "often"), "--checkpoint-every often: write"),
        (("--device-class", "H100", "--backend", "local"), "--device-class: only"),
        (("--storage", "s3:/bucket"), "--storage s3:/bucket: "),
    ],
)
def test_limits_that_cannot_be_meant(verb: Verb, options: tuple[object, ...], says: str) -> None:
    refused(verb("grid", *options), says)
