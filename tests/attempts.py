"""Results folders whose rows carry the number of the attempt that wrote them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import store
from bench.store.files import compacted_names, part_path
from tests.records import epochs, record

IDS = [f"{n:012x}" for n in range(5)]
TABLES = ("runs", "epochs")


def write(results: Path, run_id: str, attempt: int, status: str = "ok") -> None:
    """Writes a run whose rows all carry the number of the attempt."""
    rows = [row | {"step": attempt} for row in epochs(run_id, attempt % 4)]
    started = f"2026-01-01T{attempt:09}"
    changes = {"seed": attempt, "status": status, "started_utc": started}
    store.write_run(results, record(run_id, **changes), rows)


def seen(results: Path) -> dict[str, tuple[int, list[int]]]:
    """Returns attempt and steps of every run, and asserts that each is there once."""
    runs, problems = store.load_runs(results)
    curves, more = store.load_epochs(results)
    assert problems + more == []
    assert runs.run_id.is_monotonic_increasing and runs.run_id.is_unique
    assert curves.run_id.is_monotonic_increasing
    found: dict[str, tuple[int, list[int]]] = {
        run_id: (attempt, []) for run_id, attempt in zip(runs.run_id, runs.seed, strict=True)
    }
    rows = curves[["run_id", "step", "epoch"]]
    for run_id, step, epoch in rows.itertuples(index=False, name=None):
        assert epoch == len(found[run_id][1]) + 1
        found[run_id][1].append(step)
    assert list(store.statuses(results, found)) == list(found)
    return found


def whole(attempts: dict[str, int]) -> dict[str, tuple[int, list[int]]]:
    """Returns what `seen` sees of runs in these attempts."""
    return {run_id: (n, [n] * (n % 4)) for run_id, n in sorted(attempts.items())}


def filled(results: Path) -> Path:
    """Writes attempt n of the n-th of IDS."""
    store.prepare(results)
    for n, run_id in enumerate(IDS):
        write(results, run_id, n)
    return results


def files(results: Path) -> list[str]:
    """Returns the names of all files of both tables, `compacted` for one that is."""
    names = sorted(p.name for table in TABLES for p in (results / table).iterdir())
    return [re.sub("^compacted-[0-9a-f]{16}.parquet$", "compacted", name) for name in names]


PAIR = ["compacted"] * 2
"""What `files` says of a folder that is compacted."""


def compacted(results: Path, table: str = "runs") -> Path:
    """Returns the one compacted file of a table."""
    (name,) = compacted_names(results)
    return part_path(results, table, name)


class Killed(BaseException):
    """The end of a process, as far as a test is concerned."""


def die() -> None:
    """What is done at a step by SIGKILL."""
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
