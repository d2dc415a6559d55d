"""A full disk at any byte, and a clock that jumps: what was there stays, and nothing is mixed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import store
from bench.storage import atomic
from bench.store import care
from bench.store.care import merge, prune
from bench.store.compact import compact
from tests.attempts import IDS, PAIR, files, filled, seen, whole, write
from tests.records import epochs, record
from tests.test_bad_results import mounted

ALL = dict(zip(IDS, range(5), strict=True))
PAGE = 4096


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB that holds five runs."""
    folder = tmp_path / "disk"
    if not mounted(folder, "size=2m"):
        pytest.skip("mounting a file system is not permitted here")
    yield filled(folder / "r").parent
    subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def pages_left(disk: Path, number: int) -> Iterator[None]:
    """Fills a disk up to so many pages."""
    free = os.statvfs(disk).f_bfree * os.statvfs(disk).f_bsize // PAGE
    (disk / "filler").write_bytes(bytes((free - number) * PAGE))
    try:
        yield
    finally:
        (disk / "filler").unlink()


@contextlib.contextmanager
def longest_file(size: int) -> Iterator[None]:
    """Lets no file grow beyond so many bytes, as a quota may."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def temporary(results: Path) -> list[Path]:
    return list(results.rglob("*.tmp"))


def test_a_rerun_on_a_full_disk_leaves_record_epochs_and_weights_as_they_were(disk: Path) -> None:
    results = disk / "r"
    store.write_run(results, record(IDS[2]) | {"seed": 2}, epochs(IDS[2], 2), b"kept")
    before = store.load_runs(results)[0], store.load_epochs(results)[0]
    weights = results / "weights" / f"{IDS[2]}.safetensors"
    refused = 0
    for pages in range(64):
        try:
            with pages_left(disk, pages):
                store.write_run(results, record(IDS[2]), epochs(IDS[2], 3), b"new" * PAGE)
        except store.StoreError as error:
            assert "No space left on device; make room and run the same" in str(error)
            refused += 1
        else:
            break
        assert not temporary(results) and weights.read_bytes() == b"kept"
        after = store.load_runs(results)[0], store.load_epochs(results)[0]
        assert after[0].equals(before[0]) and after[1].equals(before[1])
    assert refused > 5 and weights.read_bytes() == b"new" * PAGE
    assert len(store.load_epochs(results, [IDS[2]])[0]) == 3


@pytest.mark.parametrize("compacted_before", [False, True])
def test_compact_and_prune_on_a_full_disk_lose_nothing(disk: Path, compacted_before: bool) -> None:
    results = disk / "r"
    if compacted_before:
        compact(results)
        write(results, IDS[1], 6)
    expected = ALL | ({IDS[1]: 6} if compacted_before else {})
    before = files(results)
    acts: list[Callable[[], object]] = [lambda: compact(results)]
    if compacted_before:
        acts.insert(0, lambda: prune(results, IDS[:1]))
    for act in acts:
        refused = 0
        for pages in range(64):
            try:
                with pages_left(disk, pages):
                    act()
            except store.StoreError as error:
                assert "cannot be rewritten: No space left on device" in str(error)
                refused += 1
            else:
                break
            assert not temporary(results) and files(results) == before
            assert seen(results) == whole(expected)
        assert refused > 5
        if len(acts) == 2 and act is acts[0]:
            expected = {run_id: n for run_id, n in expected.items() if run_id != IDS[0]}
            before = files(results)
        assert seen(results) == whole(expected)
    assert files(results) == PAIR


def test_merge_on_a_full_disk_leaves_both_folders_as_they_were(disk: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    store.prepare(other)
    write(other, "a" * 12, 3)
    with pages_left(disk, 3), pytest.raises(OSError, match="No space left"):
        merge(disk / "r", [other])
    assert not temporary(disk)
    assert seen(disk / "r") == whole(ALL) and seen(other) == whole({"a" * 12: 3})
    assert merge(disk / "r", [other]) == (1, [])
    assert seen(disk / "r") == whole(ALL | {"a" * 12: 3})


def test_a_limit_on_the_size_of_a_file_is_as_a_full_disk(tmp_path: Path) -> None:
    results = filled(tmp_path / "r")
    for limit in (0, 1, 4096, 8192):
        with longest_file(limit):
            with pytest.raises(store.StoreError, match="cannot be written: File too large"):
                store.write_run(results, record(IDS[2]), epochs(IDS[2]))
            with pytest.raises(store.StoreError, match="cannot be rewritten: File too large"):
                compact(results)
        assert not temporary(results) and seen(results) == whole(ALL)
    assert compact(results) == (5, []) and seen(results) == whole(ALL)


# --- clocks ---------------------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return filled(tmp_path / "r")


def ahead(monkeypatch: pytest.MonkeyPatch, hours: float) -> None:
    now = time.time
    monkeypatch.setattr("bench.store.abandoned.time.time", lambda: now() + 3600 * hours)


def test_a_clock_that_jumps_ahead_takes_no_file_from_a_writer(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = results / "runs" / f"{IDS[2]}.parquet"
    content = path.read_bytes()
    dead = results / "runs" / ".dead.tmp"
    dead.touch()
    with atomic.staged(path, content) as name_it:
        (living,) = (p for p in temporary(results) if p != dead)
        ahead(monkeypatch, 2)
        assert prune(results, []) == 1 and not dead.exists() and living.exists()
        name_it()
    assert seen(results) == whole(ALL)


def test_nor_the_epochs_of_a_rerun_whose_record_is_under_way(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compact(results)
    publish, pruned = atomic.publish, list[int]()

    def overtaken(temporary: Path, path: Path) -> None:
        if path.parent.name == "runs":
            with monkeypatch.context() as patch:
                ahead(patch, 2)
                pruned.append(prune(results, []))
        publish(temporary, path)

    monkeypatch.setattr(atomic, "publish", overtaken)
    write(results, IDS[3], 7)
    assert pruned == [0] and seen(results) == whole(ALL | {IDS[3]: 7})


def test_nor_a_pair_that_compact_writes(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.store import compact as module
    from bench.store import pairs

    monkeypatch.setattr(module, "alone", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(care, "alone", lambda _: contextlib.nullcontext())
    publish, pruned = atomic.publish, list[int]()

    def overtaken(temporary: Path, path: Path) -> None:
        with monkeypatch.context() as patch:
            ahead(patch, 2)
            pruned.append(prune(results, []))
        publish(temporary, path)

    monkeypatch.setattr(pairs, "publish", overtaken)
    assert compact(results) == (5, []) and pruned == [0, 0]
    assert seen(results) == whole(ALL)


def test_a_clock_that_jumps_back_deletes_and_loses_nothing(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = results / "runs" / ".dead.tmp"
    left.touch()
    ahead(monkeypatch, -24 * 365)
    write(results, IDS[1], 6)
    compact(results)
    store.write_run(results, record(IDS[2]) | {"seed": 8, "started_utc": "1970"}, [])
    assert prune(results, []) == 0 and left.exists()
    assert compact(results) == (1, [])
    assert store.load_runs(results)[0].seed.tolist() == [0, 6, 8, 3, 4], "the last written counts"


def test_a_copy_that_keeps_the_times_of_its_originals_is_not_abandoned(
    results: Path, tmp_path: Path
) -> None:
    compact(results)
    name = next((results / "epochs").glob("compacted-*")).name
    os.utime(results / "epochs" / name, (0, 0))
    other = tmp_path / "o"
    store.prepare(other)
    shutil.copy2(results / "epochs" / name, other / "epochs")  # the runs are still to come
    assert prune(other, []) == 0
    shutil.copy2(results / "runs" / name, other / "runs")
    assert seen(other) == whole(ALL)


def test_a_file_system_without_locks_goes_by_the_clock_alone(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(atomic, "fcntl", SimpleNamespace(**vars(fcntl) | {"flock": unsupported}))
    write(results, IDS[1], 6)
    left = results / "runs" / ".dead.tmp"
    left.touch()
    assert prune(results, []) == 0
    ahead(monkeypatch, 2)
    assert prune(results, []) == 1 and seen(results) == whole(ALL | {IDS[1]: 6})
