"""Two drivers on one results folder: the second waits for the trials that the first runs."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from bench import claim as claims
from bench.claim import claim
from bench.store import StoreError

HOLD = """
import sys, time
from pathlib import Path
from bench.claim import claim
with claim(Path(sys.argv[1]), ["a", "b"], print):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds a and b until its standard input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_trials_that_nobody_runs_are_claimed_at_once(
    tmp_path: Path, other: subprocess.Popen[str]
) -> None:
    said: list[str] = []
    with claim(tmp_path, ["c", "d"], said.append) as waited:
        assert not waited and said == []
    end(other)


@pytest.mark.parametrize("how", ["ends", "is killed"])
def test_trials_that_another_runs_are_waited_for(
    how: str, tmp_path: Path, other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "_LOOK", 0.05)
    said: list[str] = []
    events: list[str] = []

    def wait() -> None:
        with claim(tmp_path, ["b", "c"], said.append) as waited:
            events.append(f"waited {waited}")

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    while not said:
        time.sleep(0.01)
    time.sleep(0.3)
    assert events == []
    assert said == [line for line in said if f"process {other.pid}" in line], "said once"
    if how == "ends":
        other.communicate()
    else:
        end(other)
    thread.join(10)
    assert events == ["waited True"] and len(said) == 1
    left = sorted(path.name for path in (tmp_path / "claims").iterdir())
    assert left == ["claims.lock"]


def test_claims_of_the_dead_count_for_nothing(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    end(other)
    assert list((tmp_path / "claims").glob("*.json"))
    with claim(tmp_path, ["a"], pytest.fail) as waited:
        assert not waited


def test_a_claim_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "claims"
    folder.mkdir()
    held = []
    for n, content in enumerate((b"", b"\x00", b"[]", b"{}", b'{"run_ids": 3}')):
        (folder / f"{n}.json").write_bytes(content)
        held.append(FileLock(folder / f"{n}.lock"))
        held[-1].acquire()
    with claim(tmp_path, ["a"], pytest.fail) as waited:
        assert not waited


def test_where_there_are_no_locks_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def acquire(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", acquire)
    said: list[str] = []
    with claim(tmp_path, ["a"], said.append) as waited:
        assert not waited
    (line,) = said
    assert "no locks there" in line


def test_a_file_system_without_locks_is_told_from_a_held_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lustre answers so; a file in the place of a lock would outlive whoever is killed."""

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", no_locks)
    said: list[str] = []
    with claim(tmp_path, ["a"], said.append) as waited:
        assert not waited
    assert ["no locks there" in line for line in said] == [True]


@pytest.mark.parametrize("ends", [True, False])
def test_a_lock_that_is_held_for_long_is_named(
    ends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "_PATIENCE", 0.1)
    (tmp_path / "claims").mkdir()
    held = FileLock(tmp_path / "claims" / "claims.lock")
    held.acquire()
    said: list[str] = []

    def stopping() -> bool:
        if said and ends:
            held.release()
        return bool(said) and not ends

    def wait() -> None:
        with claim(tmp_path, ["a"], said.append, stopping):
            pass

    if ends:
        wait()
    else:
        with pytest.raises(KeyboardInterrupt):
            wait()
    (line,) = said
    assert line.startswith(str(tmp_path / "claims" / "claims.lock")) and "held" in line
    held.release()


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "claims").write_text("a file")
    with pytest.raises(StoreError, match="--results"), claim(tmp_path, ["a"], pytest.fail):
        pass


def test_what_is_claimed_can_be_read(tmp_path: Path) -> None:
    with claim(tmp_path, ["a", "b"], pytest.fail):
        (path,) = (tmp_path / "claims").glob("*.json")
        assert json.loads(path.read_text())["run_ids"] == ["a", "b"]
