"""Real processes: readers while compact is killed again and again, and every run is rewritten."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import store
from bench.store.compact import compact
from bench.store.files import own_files
from tests.attempts import IDS, filled, seen, whole

ROOT = Path(__file__).parent.parent


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return filled(tmp_path / "r")


COMPACTOR = """
import sys
from pathlib import Path
from bench.store.compact import compact
print("go", flush=True)
while True:
    compact(Path(sys.argv[1]))
    (Path(sys.argv[1]) / "finished").touch()
"""
WRITER = """
import sys
from pathlib import Path
from tests.attempts import write
results = Path(sys.argv[1])
print("go", flush=True)
n = 0
while not (results / "stop").exists():
    n += 1
    write(results, f"{n % 5:012x}", n)
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
    finished = results / "finished"
    with process(WRITER, results) as writer:
        for kill in range(3):
            with process(COMPACTOR, results) as compactor:
                end = time.monotonic() + 0.5 + 0.13 * kill
                while (now := time.monotonic()) < end or (kill == 2 and not finished.exists()):
                    assert now < end + 60, "no compact finished"
                    runs, problems = store.load_runs(results)
                    assert problems == [] and runs.run_id.tolist() == IDS
                    assert store.load_epochs(results)[1] == []
                    assert list(store.statuses(results, IDS)) == IDS
                    found = dict(zip(runs.run_id, runs.seed, strict=True))
                    newest = {name: max(newest[name], found[name]) for name in IDS}
                assert compactor.poll() is None
        (results / "stop").touch()  # the writer's last run is whole
        assert writer.wait(10) == 0
    before = seen(results)
    compact(results)
    found = seen(results)
    assert found == before == whole({name: attempt for name, (attempt, _) in found.items()})
    assert list(found) == IDS and own_files(results, "runs") == []
    assert all(found[name][0] >= newest[name] for name in IDS), "a rerun was lost"
    assert max(newest.values()) > 4
