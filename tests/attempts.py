"""Results folders whose rows carry the number of the attempt that wrote them."""

from __future__ import annotations

from pathlib import Path

from bench import store
from tests.records import epochs, record

IDS = [f"{n:012x}" for n in range(5)]
TABLES = ("runs", "epochs")


def write(results: Path, run_id: str, attempt: int, status: str = "ok") -> None:
    """Writes a run whose rows all carry the number of the attempt."""
    rows = [row | {"step": attempt} for row in epochs(run_id, attempt % 4)]
    store.write_run(results, record(run_id, seed=attempt, status=status), rows)


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
    """Returns the names of all files of both tables."""
    return sorted(p.name for table in TABLES for p in (results / table).iterdir())
