"""Stop and go: Ctrl-C and SIGTERM, what a person sees of it, and the same command after it."""

from __future__ import annotations

import fcntl
import os
import pty
import shlex
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from bench import store
from bench.backends.child import GRACE
from bench.display import STOPPING
from bench.stop import _ONE
from tests.grids import ROOT, assert_same, bench, grid_file, rogue, start
from tests.test_resume import wait_until

WAIT = '''
def wait(calls, at):
    """While the file STAND is there, says in it that the second epoch is under way, and lingers."""
    stand = os.environ.get("STAND", "")
    if calls < at or not os.path.exists(stand):
        return
    if calls == at:
        with open(stand, "a") as file:
            file.write("x")
    __import__("time").sleep(0.01)
'''
LONG = {
    "corpus": "synthetic:train=4000:valid=300:test=300",
    "nhid": 8,
    "batch_size": 2,
    "bptt": 2,
    "epochs": 2,
}
"""A thousand windows an epoch: no checkpoint is due before its end."""
THREE = ("none", "ar:alpha=2", "tar:beta=1")
NO_CHECKPOINTS = ("--no-report", "--checkpoint-every", "3600s")


def long_grid(folder: Path, regularizers: Sequence[str] = THREE, cells: str = "steady") -> Path:
    """Writes a grid of trials that can be caught in their second epoch."""
    rogue(folder / "p", "steady", top=WAIT, call="wait(self.calls, 1300)")
    grid = folder / "tiny.yaml"
    grid.write_text(
        f"name: tiny\nbase: {LONG}\naxes: {{cell: [{cells}], regularizer: {list(regularizers)}}}\n"
    )
    return grid


def plugins_of(folder: Path) -> tuple[object, ...]:
    return ("--plugins", folder / "p", "--results", folder / "r")


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The records of an undisturbed run."""
    folder = tmp_path_factory.mktemp("calm")
    here = ("--backend", "local", "--jobs", 0, "--no-report")
    assert bench("grid", long_grid(folder), *plugins_of(folder), *here) == 0
    return folder / "r"


def family(run: subprocess.Popen[str]) -> list[psutil.Process]:
    return [*psutil.Process(run.pid).children(recursive=True)]


def held(stand: Path, trials: int) -> bool:
    """Whether so many trials of two layers stand in their second epoch."""
    return stand.stat().st_size >= 2 * trials


def line_of(verb: str, argv: Sequence[object]) -> str:
    return f"  python -m bench.{verb} {shlex.join(map(str, argv))}"


RAY = [pytest.mark.ray, pytest.mark.xdist_group("ray"), pytest.mark.slow]
LOCAL = ("--backend", "local", "--jobs")


@pytest.mark.parametrize(
    ("backend", "trials", "number"),
    [
        pytest.param((*LOCAL, 2), 2, signal.SIGINT, id="local"),
        pytest.param((*LOCAL, 1, "--pack", 3), 3, signal.SIGTERM, id="packed"),
        pytest.param((*LOCAL, 0), 1, signal.SIGTERM, id="here"),
        pytest.param(("train",), 1, signal.SIGINT, id="train"),
        pytest.param(("--jobs", 2), 2, signal.SIGTERM, id="ray", marks=RAY),
    ],
)
def test_running_trials_write_where_they_stand_and_go_on_from_there(
    calm: Path,
    tmp_path: Path,
    backend: tuple[object, ...],
    trials: int,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grid = long_grid(tmp_path, THREE[:trials])
    if backend == ("train",):
        fields = [word for k, v in LONG.items() for word in (f"--{k.replace('_', '-')}", v)]
        verb, argv = "train", ("--cell", "steady", *fields, *plugins_of(tmp_path))
    else:
        verb, argv = "grid", (grid, *plugins_of(tmp_path), *NO_CHECKPOINTS, *backend)
    stand, results = tmp_path / "stand", tmp_path / "r"
    stand.touch()
    run = start(verb, *argv, STAND=str(stand))
    wait_until(lambda: held(stand, trials) or run.poll() is not None)
    processes = family(run)
    assert list(results.glob("checkpoints/*/*")) == []
    began = time.monotonic()
    run.send_signal(number)
    out, _ = run.communicate(timeout=60)
    took = time.monotonic() - began
    assert (run.returncode, out.splitlines()[-1]) == (130, line_of(verb, argv)), out
    assert took < 20, "10 s is what is promised; this machine may be busy"
    print(f"stopped within {took:.1f} s")
    assert "Traceback" not in out and out.count(STOPPING) == 1
    assert not psutil.wait_procs(processes, timeout=10)[1]
    assert len(list(results.glob("checkpoints/*/*.safetensors"))) == trials
    assert not list(results.glob("runs/*"))
    stand.unlink()
    monkeypatch.chdir(ROOT)
    assert bench(verb, *shlex.split(out.splitlines()[-1])[3:]) == 0
    (log,) = (path.read_text() for path in results.glob("grids/*.log"))
    assert log.count("goes on after epoch 1, step 1") == trials, log
    runs, problems = store.load_runs(results)
    assert problems == [] and runs.resumed.tolist() == [1] * trials
    assert_same(results, calm)
    assert not list(results.glob("checkpoints/*"))


def test_ctrl_c_on_a_terminal(tmp_path: Path) -> None:
    grid = long_grid(tmp_path, THREE[:2])
    argv = (grid, *plugins_of(tmp_path), *NO_CHECKPOINTS, *LOCAL, 2)
    stand = tmp_path / "stand"
    stand.touch()
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (30, 120))
    run = subprocess.Popen(
        [sys.executable, "-m", "bench.grid", *map(str, argv)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=ROOT,
        env=os.environ | {"STAND": str(stand), "TERM": "xterm-256color"},
        start_new_session=True,
        preexec_fn=lambda: (
            fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            signal.signal(signal.SIGINT, signal.SIG_DFL),
        ),
    )
    os.close(theirs)
    text, pressed = b"", False
    while True:
        try:
            text += os.read(ours, 100_000)
        except OSError:  # the last that had it open is gone
            break
        if not pressed and held(stand, 2):
            os.write(ours, b"\x03")
            pressed = True
    os.close(ours)
    assert run.wait(20) == 130
    shown = text.decode()
    assert STOPPING in shown and "Traceback" not in shown
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1, "the cursor is back"
    words = " ".join(shown.split())
    assert words.endswith(f"To go on: {line_of('grid', argv).strip()}")
    assert len(list(tmp_path.glob("r/checkpoints/*/*"))) == 2


HANG = """if self.calls == 4:
            open(os.environ["STAND"], "a").write("x")
            __import__("time").sleep(3600)"""


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param((*LOCAL, 1), id="local"),
        pytest.param((*LOCAL, 0), id="here"),
        pytest.param(("--jobs", 1), id="ray", marks=RAY),
    ],
)
def test_a_second_signal_ends_at_once(tmp_path: Path, backend: tuple[object, ...]) -> None:
    rogue(tmp_path / "p", "hangs", call=HANG)
    grid = grid_file(tmp_path, "{cell: [hangs]}")
    argv = (grid, *plugins_of(tmp_path), *backend)
    stand = tmp_path / "stand"
    stand.touch()
    run = start("grid", *argv, STAND=str(stand))
    wait_until(lambda: stand.stat().st_size or run.poll() is not None)
    processes = family(run)
    run.send_signal(signal.SIGINT)
    assert run.stdout is not None
    assert any(STOPPING in line for line in run.stdout)
    time.sleep(_ONE)  # two within this time would be one
    began = time.monotonic()
    run.send_signal(signal.SIGTERM)
    said = []
    for line in run.stdout:
        said.append(line)
        if line.rstrip("\n") == line_of("grid", argv):  # Python's own way out takes its time
            break
    took = time.monotonic() - began
    print(f"ended within {took:.1f} s")
    rest, _ = run.communicate(timeout=60)
    assert (run.returncode, rest) == (130, ""), said
    assert took < GRACE - 1, "it waits for no checkpoint"
    assert "Traceback" not in "".join(said)
    assert not psutil.wait_procs(processes, timeout=10)[1]


def test_a_trial_that_hangs_costs_the_others_no_checkpoint(tmp_path: Path) -> None:
    rogue(tmp_path / "p", "hangs", call=HANG)
    grid = long_grid(tmp_path, ["none"], cells="hangs, steady")
    stand = tmp_path / "stand"
    stand.touch()
    run = start("grid", grid, *plugins_of(tmp_path), *NO_CHECKPOINTS, *LOCAL, 2, STAND=str(stand))
    wait_until(lambda: stand.stat().st_size >= 3 or run.poll() is not None)
    processes = family(run)
    began = time.monotonic()
    run.send_signal(signal.SIGTERM)
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 130 and "Traceback" not in out, out
    print(f"stopped within {time.monotonic() - began:.1f} s")
    assert time.monotonic() - began < 20
    assert not psutil.wait_procs(processes, timeout=10)[1]
    assert len(list(tmp_path.glob("r/checkpoints/*/*"))) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_it_is_planned(tmp_path: Path, number: signal.Signals) -> None:
    stand = tmp_path / "stand"
    top = f"open({str(stand)!r}, 'w')\n__import__('time').sleep(3600)"
    rogue(tmp_path / "p", "hangs", top=top)
    grid = grid_file(tmp_path, "{cell: [hangs]}")
    run = start("grid", grid, *plugins_of(tmp_path), *LOCAL, 1)
    wait_until(lambda: stand.exists() or run.poll() is not None)
    run.send_signal(number)
    out, _ = run.communicate(timeout=20)
    assert run.returncode == 130
    assert f"python -m bench.grid {grid}" in out.splitlines()[-1]
    assert not (tmp_path / "r").exists()


def test_while_the_report_is_drawn(tmp_path: Path) -> None:
    grid = grid_file(tmp_path, "{cell: [lstm]}")
    argv = (grid, *plugins_of(tmp_path)[2:], *LOCAL, 0)
    run = start("grid", *argv, PYTHONUNBUFFERED="1")
    assert run.stdout is not None
    assert any("1 trial: 1 ok" in line for line in run.stdout)
    run.send_signal(signal.SIGINT)
    out, _ = run.communicate(timeout=20)
    assert run.returncode == 130 and f"python -m bench.grid {grid}" in out.splitlines()[-1]
    assert not list(tmp_path.glob("r/reports/*"))
    assert bench("grid", *argv) == 0
    assert [path.name for path in tmp_path.glob("r/reports/*")] == ["tiny.html"]
