"""compact killed, or overtaken by a rerun, at any step: readers see each run once, in one piece."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import store
from bench.store.care import check, merge, prune
from bench.store.compact import compact
from bench.store.files import COMPACTED, aside_path, own_files, part_path
from bench.store.parts import _write_part
from tests.attempts import IDS, TABLES, files, filled, seen, whole, write
from tests.records import epochs, record

ROOT = Path(__file__).parent.parent


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return filled(tmp_path / "r")


class Killed(BaseException):
    pass


def die() -> None:
    raise Killed


@contextlib.contextmanager
def at_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Any) -> Iterator[list[str]]:
    """Calls `act` before the number-th step of compact that changes a folder; lists the steps."""
    steps: list[str] = []
    replace, unlink = os.replace, Path.unlink

    def count(name: str) -> None:
        steps.append(name)
        if len(steps) == number:
            with monkeypatch.context() as inner:
                inner.setattr(os, "replace", replace)
                inner.setattr(Path, "unlink", unlink)
                act()

    def replaced(*names: Any) -> None:
        count(f"replace {Path(names[1]).name}")
        replace(*names)

    def unlinked(path: Path, **more: Any) -> None:
        count(f"unlink {path.name}")
        unlink(path, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replaced)
        patch.setattr(Path, "unlink", unlinked)
        yield steps


def number_of_steps(results: Path, monkeypatch: pytest.MonkeyPatch, copy: Path) -> int:
    shutil.copytree(results, copy)
    with at_step(monkeypatch, 0, None) as steps:
        compact(copy)
    return len(steps)


@pytest.fixture
def mixed(results: Path) -> Path:
    """Compacted runs, a rerun, a new run."""
    compact(results)
    write(results, IDS[1], 6)
    write(results, "a" * 12, 3)
    return results


BEFORE = dict(zip(IDS, (0, 6, 2, 3, 4), strict=True)) | {"a" * 12: 3}


def test_a_kill_at_any_step_changes_nothing_that_is_seen(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, number_of_steps(mixed, monkeypatch, tmp_path / "copy") + 1):
        folder = tmp_path / f"kill {number}"
        shutil.copytree(mixed, folder)

        with pytest.raises(Killed), at_step(monkeypatch, number, die):
            compact(folder)
        assert seen(folder) == whole(BEFORE), number
        assert compact(folder)[1] == []
        assert seen(folder) == whole(BEFORE), number
        assert own_files(folder, "runs") == own_files(folder, "epochs") == []


@pytest.mark.parametrize("killed", [False, True])
def test_a_rerun_at_any_step_is_not_lost(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    after = BEFORE | {IDS[1]: 7}
    for number in range(1, number_of_steps(mixed, monkeypatch, tmp_path / "copy") + 1):
        folder = tmp_path / f"rerun {number}"
        shutil.copytree(mixed, folder)

        def rerun(folder: Path = folder) -> None:
            write(folder, IDS[1], 7)
            assert seen(folder) == whole(after)
            if killed:
                raise Killed

        with contextlib.suppress(Killed), at_step(monkeypatch, number, rerun):
            compact(folder)
        assert seen(folder) == whole(after), number
        compact(folder)
        assert seen(folder) == whole(after), number
        assert own_files(folder, "runs") == own_files(folder, "epochs") == []


def test_the_halves_of_a_rerun_around_any_step_stay_together(
    mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its epochs come before a step, its record after the last."""
    rows = [row | {"step": 7} for row in epochs(IDS[1], 3)]
    for number in range(1, number_of_steps(mixed, monkeypatch, tmp_path / "copy") + 1):
        folder = tmp_path / f"half {number}"
        shutil.copytree(mixed, folder)
        with at_step(monkeypatch, number, lambda f=folder: _write_part(f, "epochs", IDS[1], rows)):
            compact(folder)
        assert store.load_runs(folder)[0].seed.tolist() == [*BEFORE.values()]
        _write_part(folder, "runs", IDS[1], [record(IDS[1], seed=7)])
        assert seen(folder) == whole(BEFORE | {IDS[1]: 7}), number
        compact(folder)
        assert seen(folder) == whole(BEFORE | {IDS[1]: 7}), number


def test_a_full_disk_is_one_line_and_nothing_is_lost(
    mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(store.StoreError, match="cannot be rewritten: No space left"):
            compact(mixed)
    assert seen(mixed) == whole(BEFORE)
    assert not [name for name in files(mixed) if name.endswith(".tmp")]


def test_what_was_left_aside_is_read_and_a_newer_part_file_replaces_it(mixed: Path) -> None:
    for table in TABLES:
        part_path(mixed, table, IDS[1]).rename(aside_path(mixed, table, IDS[1]))
    assert seen(mixed) == whole(BEFORE) and check(mixed) == []
    write(mixed, IDS[1], 9)
    assert seen(mixed) == whole(BEFORE | {IDS[1]: 9})
    compact(mixed)
    assert seen(mixed) == whole(BEFORE | {IDS[1]: 9}) and files(mixed) == [COMPACTED] * 2


# --- any order of everything ----------------------------------------------------------------------

RUN = st.integers(0, len(IDS) - 1)
ACTS = st.one_of(
    st.tuples(st.just("write"), RUN),
    st.tuples(st.just("lost"), RUN),
    st.tuples(st.just("half"), RUN),
    st.tuples(st.just("compact"), st.just(0)),
    st.tuples(st.just("kill"), st.integers(1, 14)),
    st.tuples(st.just("overtake"), st.integers(1, 14)),
    st.tuples(st.just("merge"), RUN),
    st.tuples(st.just("prune"), RUN),
)


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(acts=st.lists(ACTS, min_size=3, max_size=9))
def test_any_sequence_leaves_what_was_written_last(
    monkeypatch: pytest.MonkeyPatch, acts: list[tuple[str, int]]
) -> None:
    with TemporaryDirectory() as folder:
        results = Path(folder) / "r"
        store.prepare(results)
        expected: dict[str, int] = {}
        final: set[str] = set()
        for attempt, (act, number) in enumerate(acts, start=1):
            run_id = IDS[number % len(IDS)]
            if act == "write":
                write(results, run_id, attempt)
            elif act == "lost":
                write(results, run_id, attempt, "lost")
            elif act == "half" and own_files(results, "runs").count(run_id) == 0:
                # A writer that was killed before its record: of no run that readers see.
                _write_part(results, "epochs", run_id, epochs(run_id, 3))
            elif act == "compact":
                compact(results)
            elif act == "kill":
                with contextlib.suppress(Killed), at_step(monkeypatch, number, die):
                    compact(results)
            elif act == "overtake":
                with at_step(monkeypatch, number, lambda i=run_id, n=attempt: write(results, i, n)):
                    before = len(own_files(results, "runs"))
                    compact(results)
                act = "write" if before and attempt in _attempts(results) else act
            elif act == "merge":
                other = Path(folder) / f"other {attempt}"
                store.prepare(other)
                write(other, run_id, attempt)
                if attempt % 2:
                    compact(other)
                merge(results, [other])
                act = "write" if run_id not in final else act
            elif act == "prune":
                prune(results, [run_id])
                expected.pop(run_id, None)
                final.discard(run_id)
            if act == "write" or (act == "lost" and run_id not in final):
                expected[run_id] = attempt
                final |= {run_id} if act == "write" else set()
            assert seen(results) == whole(expected), (act, run_id)
        compact(results)
        assert seen(results) == whole(expected)
        assert own_files(results, "runs") == []
        assert not [line for line in check(results) if "has no record" not in line]


def _attempts(results: Path) -> set[int]:
    return set(store.load_runs(results)[0].seed)


# --- real processes ------------------------------------------------------------------------------

COMPACTOR = """
import sys
from pathlib import Path
from bench.store.compact import compact
print("go", flush=True)
while True:
    compact(Path(sys.argv[1]))
"""
WRITER = """
import sys
from pathlib import Path
from bench import store
from tests.records import epochs, record
print("go", flush=True)
for n in range(10**6):
    run_id = f"{n % 5:012x}"
    rows = [row | {"step": n} for row in epochs(run_id, n % 4)]
    store.write_run(Path(sys.argv[1]), record(run_id, seed=n), rows)
"""


@contextlib.contextmanager
def process(code: str, results: Path) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", code, str(results)], stdout=subprocess.PIPE, cwd=ROOT
    ) as one:
        try:
            assert one.stdout is not None and one.stdout.readline() == b"go\n"
            yield one
        finally:
            one.send_signal(signal.SIGKILL)


def test_readers_see_every_run_once_while_compact_is_killed_and_runs_are_rewritten(
    results: Path,
) -> None:
    newest = dict.fromkeys(IDS, 0)
    with process(WRITER, results):
        for kill in range(3):
            with process(COMPACTOR, results) as compactor:
                end = time.monotonic() + 0.5 + 0.13 * kill
                while time.monotonic() < end:
                    runs, problems = store.load_runs(results)
                    assert problems == [] and runs.run_id.tolist() == IDS
                    assert store.load_epochs(results)[1] == []
                    assert list(store.statuses(results, IDS)) == IDS
                    found = dict(zip(runs.run_id, runs.seed, strict=True))
                    newest = {name: max(newest[name], found[name]) for name in IDS}
                assert compactor.poll() is None
    compact(results)
    found = seen(results)
    assert list(found) == IDS and own_files(results, "runs") == []
    assert all(found[name][0] >= newest[name] for name in IDS), "a rerun was lost"
    assert max(newest.values()) > 4
