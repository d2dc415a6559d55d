"""Whatever is killed, the same command finishes the rest, with the records of a calm run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from bench import store
from tests.grids import assert_same, bench, grid_file, results_of, rogue, start

SLOW = "import time; time.sleep(0.005)"
HERE = ("--backend", "local", "--jobs", 0)  # in this process: torch is imported already
AXES = "{cell: [slow], regularizer: [none, ar, tar]}"


def slow_grid(folder: Path) -> tuple[Path, tuple[object, ...]]:
    """A grid whose trials last about a second each, and the options to run it."""
    rogue(folder / "p", "slow", call=SLOW)
    grid = grid_file(folder, AXES, extra="reps: 2")
    options = ("--plugins", folder / "p", "--results", folder / "r", "--no-report")
    return grid, options


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The records of an undisturbed run."""
    folder = tmp_path_factory.mktemp("calm")
    grid, options = slow_grid(folder)
    assert bench("grid", grid, *options, *HERE) == 0
    return folder / "r"


def wait_until(holds: Callable[[], object], seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def recorded(folder: Path) -> int:
    return len(list((folder / "r" / "runs").glob("*.parquet")))


def trainers(run: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes of a grid that train (not Ray's own, which end by themselves)."""
    found = []
    for process in psutil.Process(run.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            if "bench.backends.child" in line:
                found.append(process)
    return found


BACKENDS = [
    pytest.param(("--backend", "local", "--jobs", 2), id="local"),
    pytest.param(
        ("--backend", "ray", "--jobs", 2),
        id="ray",
        marks=[pytest.mark.ray, pytest.mark.xdist_group("ray")],
    ),
]


@pytest.mark.parametrize("backend", BACKENDS)
def test_ctrl_c_keeps_what_is_done_and_prints_how_to_go_on(
    backend: tuple[object, ...], calm: Path, tmp_path: Path
) -> None:
    grid, options = slow_grid(tmp_path)
    run = start("grid", grid, *options, *backend)
    wait_until(lambda: recorded(tmp_path) >= 2)
    began = time.monotonic()
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: to the whole process group
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 130, out
    assert time.monotonic() - began < 20
    assert f"python -m bench.grid {grid}" in out.splitlines()[-1]
    assert "Traceback" not in out
    done = recorded(tmp_path)
    assert 2 <= done < 6
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "r" / "runs").iterdir()}
    assert bench("grid", grid, *options, *HERE) == 0
    assert_same(calm, tmp_path / "r")
    assert all(p.stat().st_mtime_ns == t for p, t in times.items()), "done trials run once"


@pytest.mark.parametrize("backend", BACKENDS)
def test_kill_9_of_the_driver(backend: tuple[object, ...], calm: Path, tmp_path: Path) -> None:
    grid, options = slow_grid(tmp_path)
    run = start("grid", grid, *options, *backend)
    wait_until(lambda: recorded(tmp_path) >= 1)
    family = trainers(run)
    assert family
    run.kill()
    run.wait()
    assert run.stdout is not None
    run.stdout.close()
    assert recorded(tmp_path) < 6
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive, "no trial may go on unseen"
    assert bench("grid", grid, *options, *HERE) == 0
    assert_same(calm, tmp_path / "r")


@pytest.mark.parametrize("backend", BACKENDS)
def test_kill_9_of_a_worker(backend: tuple[object, ...], calm: Path, tmp_path: Path) -> None:
    grid, options = slow_grid(tmp_path)
    run = start("grid", grid, *options, *backend)

    wait_until(lambda: recorded(tmp_path) >= 1 and trainers(run))
    trainers(run)[0].kill()
    out, _ = run.communicate(timeout=120)
    assert run.returncode == 0, out
    assert_same(calm, tmp_path / "r")


def test_a_truncated_record_is_run_again(calm: Path, tmp_path: Path) -> None:
    grid, options = slow_grid(tmp_path)
    assert bench("grid", grid, *options, *HERE) == 0
    path = sorted((tmp_path / "r" / "runs").iterdir())[0]
    path.write_bytes(path.read_bytes()[:-9])
    assert store.load_runs(tmp_path / "r")[1] != []
    assert bench("grid", grid, *options, *HERE) == 0
    assert results_of(tmp_path / "r") == results_of(calm)
