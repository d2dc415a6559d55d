"""Ray Tune's folders are disposable: whatever is deleted in them, the grid ends as undisturbed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.grids import assert_same, bench, grid_file, rogue, start
from tests.test_resume import recorded, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("ray"), pytest.mark.slow]
SECONDS = 180


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """Where Ray and Tune put all that is theirs; a short path, for it holds sockets."""
    with tempfile.TemporaryDirectory(prefix="tune-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def files_of_tune(folder: Path) -> list[Path]:
    """The files of the driver's storage path and of the session's folder of the experiment."""
    places = [*folder.glob("bench-*/trials"), *folder.glob("ray/session_2*/artifacts")]
    found: list[Path] = []
    for place in places:
        with contextlib.suppress(FileNotFoundError):  # Tune's folder goes as the grid ends
            found += [path for path in place.rglob("*") if path.is_file()]
    return found


def one_after_another(folder: Path) -> list[str]:
    """Deletes each file as soon as it is seen."""
    gone = []
    for path in files_of_tune(folder):
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
            gone.append(path.name)
    return gone


def with_their_folders(folder: Path) -> list[str]:
    """Deletes the folders themselves, when there is something in them."""
    gone = [path.name for path in files_of_tune(folder)]
    if gone:
        for place in [*folder.glob("bench-*/trials"), *folder.glob("ray/session_2*/artifacts")]:
            shutil.rmtree(place, ignore_errors=True)
    return gone


def torn(folder: Path) -> list[str]:
    """Cuts each file to its half, and writes something else behind it."""
    gone = []
    for path in files_of_tune(folder):
        with contextlib.suppress(FileNotFoundError):
            os.truncate(path, path.stat().st_size // 2)
            with path.open("ab") as file:
                file.write(b"\0not what it was")
            gone.append(path.name)
    return gone


def disturbed(run: subprocess.Popen[str], folder: Path, how: Callable[[Path], list[str]]) -> int:
    """Disturbs Tune's folders until the run ends; returns how many files that met."""
    met, end = 0, time.monotonic() + SECONDS
    while run.poll() is None:
        assert time.monotonic() < end, "the grid hangs"
        met += len(how(folder))
        time.sleep(0.02)
    return met


@pytest.mark.parametrize("how", [one_after_another, with_their_folders, torn])
def test_whatever_is_deleted_in_tunes_folders_the_records_are_the_same(
    how: Callable[[Path], list[str]], ray_folder: Path, tmp_path: Path
) -> None:
    rogue(tmp_path / "p", "slow", call="import time; time.sleep(0.005)")
    grid = grid_file(tmp_path, "{cell: [slow, lstm], regularizer: [none, ar]}", extra="reps: 2")
    options = ("--plugins", tmp_path / "p", "--no-report")
    assert bench("grid", grid, *options, "--backend", "local", "--jobs", 0,
                 "--results", tmp_path / "calm") == 0  # fmt: skip
    command = ("grid", grid, *options, "--jobs", 2, "--results", tmp_path / "r")
    places = {"TMPDIR": str(ray_folder), "RAY_TMPDIR": str(ray_folder)}
    run = start(*command, **places)
    try:
        wait_until(lambda: recorded(tmp_path) >= 1 or run.poll() is not None, SECONDS)
        assert recorded(tmp_path) < 8, "nothing is left to disturb"
        met = disturbed(run, ray_folder, how)
    finally:
        run.kill()
        out, _ = run.communicate()
    assert met, "nothing was there to disturb"
    if run.returncode != 0:
        assert run.returncode == 2 and "the same command goes on" in out, out
        run = start(*command, **places)
        out, _ = run.communicate(timeout=SECONDS)
        assert run.returncode == 0, out
    assert_same(tmp_path / "calm", tmp_path / "r")
    assert recorded(tmp_path) == 8
