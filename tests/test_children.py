"""Processes that run trials: told to end, orphaned, unable to start; and what they leave behind."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench import store
from bench.backends.child import GRACE, Child
from bench.backends.pool import Pool, thread_limits
from bench.config import Trial
from bench.job import LEFT, Job
from tests.grids import ROOT, bench, grid_file, rogue
from tests.jobs import job_of
from tests.test_resume import wait_until

CORPUS = "synthetic:train=4000:valid=300:test=300"
HOLD = """if self.calls > 300 and os.path.exists(os.environ.get("HOLD", "")):
            __import__("time").sleep(0.01)"""
PARENT = """
import json, sys, time
from pathlib import Path
from bench.backends.child import Child
from bench.job import Job
jobs = [Job(**job) for job in json.loads(sys.argv[1])]
children = [Child(slot, {}, 1) for slot in range(len(jobs))]
for child, job in zip(children, jobs):
    assert child.connection.recv() == ("room", None)
    child.give(job)
    print(child.process.pid, flush=True)
time.sleep(3600)  # and never reads what they say
"""


def long_job(folder: Path, rep: int = 0) -> Job:
    """A job that lasts for as long as the file HOLD is there, in its first epoch."""
    rogue(folder / "p", "holds", call=HOLD)
    trial = Trial(
        corpus=CORPUS,
        cell="holds",
        nhid=8,
        batch_size=2,
        bptt=2,
        epochs=1,
        rep=rep,
    )
    job = job_of(trial, folder / "p")
    return dataclasses.replace(job, checkpoints=str(folder / "r"), checkpoint_every="3600s")


@pytest.fixture
def child() -> Iterator[Child]:
    one = Child(0, thread_limits(1), 1)
    yield one
    one.close()


@pytest.fixture
def hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "hold"
    path.touch()
    monkeypatch.setenv("HOLD", str(path))
    return path


def hear(child: Child, wanted: Callable[[Any], bool], seconds: float = 60) -> Any:
    """Returns the first thing of this kind that a process says."""
    while child.connection.poll(seconds):
        said = child.connection.recv()
        if wanted(said):
            return said
    pytest.fail(f"not heard: {child.said()}")


def gone(pids: list[int]) -> bool:
    found = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    return all(process.status() == psutil.STATUS_ZOMBIE for process in found)


def test_told_to_end_while_it_waits_for_a_job(child: Child) -> None:
    hear(child, lambda said: said[0] == "room")
    child.stop()
    child.stop()  # a second word is none
    assert hear(child, lambda said: True, 5) == ("end", None)
    assert child.end() == (0, "its process ended with exit code 0")


@pytest.mark.parametrize("seconds", [0.0, 0.3, 1.0])
def test_told_to_end_while_it_imports(child: Child, seconds: float) -> None:
    time.sleep(seconds)  # wherever it is by then
    child.stop()
    began = time.monotonic()
    code = child.process.wait(30)
    assert time.monotonic() - began < 20
    assert code in (0, -signal.SIGTERM) and child.said() == ""


def test_told_to_end_while_it_trains(tmp_path: Path, hold: Path) -> None:
    child = Child(0, thread_limits(1), 1)
    job = long_job(tmp_path)
    hear(child, lambda said: said[0] == "room")
    child.give(job)
    hear(child, lambda said: said[0] == "message" and "about" in said[1])
    child.stop()
    told = hear(child, lambda said: said[0] == "message" and "vanished" in said[1], 5)[1]
    assert told == {"run_id": job.run_id, "vanished": LEFT}
    assert hear(child, lambda said: True, 5) == ("end", None)
    assert child.end()[0] == 0
    child.close()
    assert len(list(tmp_path.glob(f"r/checkpoints/{job.run_id}/*.safetensors"))) == 1


def orphan(tmp_path: Path, jobs: list[Job], ready: Callable[[list[int]], bool]) -> float:
    """Kills a parent once it is `ready`; returns the seconds until its children were gone."""
    words = json.dumps([dataclasses.asdict(job) for job in jobs])
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, words], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    with parent:
        assert parent.stdout is not None
        pids = [int(parent.stdout.readline()) for _ in jobs]
        try:
            wait_until(lambda: ready(pids))
            assert not any(gone([pid]) for pid in pids)
        finally:
            parent.kill()
    began = time.monotonic()
    wait_until(lambda: gone(pids), 30)
    return time.monotonic() - began


def in_first_epoch(pids: list[int]) -> bool:
    """Whether all of them train: torch is there, and they linger in each window."""
    return all(psutil.Process(pid).cpu_times().user > 0.5 for pid in pids)


def test_without_its_parent_it_writes_where_it_stands_and_ends(tmp_path: Path, hold: Path) -> None:
    jobs = [long_job(tmp_path), long_job(tmp_path, rep=1)]
    took = orphan(tmp_path, jobs, in_first_epoch)
    assert took < GRACE + 2, "both of them, also the one whose parent had started it first"
    found = sorted(path.parent.name for path in tmp_path.glob("r/checkpoints/*/*.safetensors"))
    assert found == sorted(job.run_id for job in jobs)


def test_what_an_orphan_started_ends_with_it(tmp_path: Path, hold: Path) -> None:
    note = tmp_path / "note"
    once = f"""if self.calls == 1:
            started = __import__("subprocess").Popen(["sleep", "900"])
            open({str(note)!r}, "w").write(str(started.pid))
        """
    job = long_job(tmp_path)
    rogue(tmp_path / "p", "holds", call=once + HOLD)
    trial = Trial(**job.trial)
    orphan(tmp_path, [job_of(trial, tmp_path / "p")], in_first_epoch)
    wait_until(lambda: gone([int(note.read_text())]), 5)


def test_a_parent_that_never_read_and_dies(tmp_path: Path) -> None:
    trial = Trial(corpus=CORPUS, nhid=200, batch_size=20, bptt=35, epochs=1)
    job = dataclasses.replace(job_of(trial), keep_weights=True)  # more than a pipe holds

    def stuck(pids: list[int]) -> bool:  # it is in the system's send, for want of room
        return "sock_alloc_send" in Path(f"/proc/{pids[0]}/wchan").read_text()

    assert orphan(tmp_path, [job], stuck) < GRACE + 2


def test_the_environment_of_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "a folder with spaces"
    own.mkdir()
    (own / "quite_own.py").write_text("HERE = 1\n")
    monkeypatch.syspath_prepend(str(own))
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    names = "'OMP_NUM_THREADS', 'CUDA_VISIBLE_DEVICES'"
    rogue(
        tmp_path / "p",
        "looks",
        top="import quite_own\nimport time",
        call="if self.calls == 3: "
        f"open(os.environ['SEEN'], 'a').write(' '.join(os.environ[n] for n in ({names})) + '\\n')\n"
        "        while self.calls == 3 and open(os.environ['SEEN']).read().count('\\n') < 2: "
        "time.sleep(0.01)",
    )
    jobs = [
        dataclasses.replace(
            job_of(Trial(corpus=CORPUS, cell="looks", nhid=8, epochs=1, rep=rep), tmp_path / "p"),
            threads=3,
        )
        for rep in range(2)
    ]
    messages: list[dict[str, Any]] = []
    pool = Pool(2, ["5", "GPU-0a1b"])
    pool.run(jobs, messages.append, lambda: False)
    pool.close()
    ends = [said["record"]["status"] for said in messages if "record" in said]
    assert ends == ["ok", "ok"], messages[-1]
    seen = sorted((tmp_path / "seen").read_text().splitlines())
    assert seen == ["3 5", "3 5", "3 GPU-0a1b", "3 GPU-0a1b"], "two layers each"


def test_processes_that_cannot_start_are_not_started_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    tries = tmp_path / "tries"
    (broken / "torch.py").write_text(
        f"open({str(tries)!r}, 'a').write('x')\nraise ImportError('a torch of one\\'s own')\n"
    )
    import torch  # before the other one is found: the driver is well

    assert torch.__version__
    monkeypatch.syspath_prepend(str(broken))
    grid = grid_file(tmp_path, "{cell: [lstm, gru]}")
    argv = ("--results", tmp_path / "r", "--backend", "local", "--jobs", 2, "--max-retries", 1)
    assert bench("grid", grid, *argv, "--no-report") == 1
    out = capsys.readouterr().out
    assert "2 trials: 2 lost" in out
    lines = [line for line in out.splitlines() if " lost · " in line]
    assert len(lines) == 2 and all("its process ended with exit code 1" in line for line in lines)
    assert 4 <= len(tries.read_text()) <= 8, "each trial twice, at most with company"
    runs, _ = store.load_runs(tmp_path / "r")
    assert all("ImportError: a torch of one's own" in text for text in runs.error_text)


def open_now() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_leaks_over_twenty_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    before = open_now()
    pids = []
    for slot in range(20):
        one = Child(slot, {}, 1)
        pids.append(one.process.pid)
        one.close()
    assert open_now() == before
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert list(tmp_path.iterdir()) == []


def test_our_code_is_that_of_the_parent_whatever_lies_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a node of a cluster a checkout may lie there, of another version and without plugins."""
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").write_text("raise ImportError('another')")
    monkeypatch.chdir(tmp_path)
    one = Child(0, thread_limits(1), 1)
    try:
        assert hear(one, lambda said: True) == ("room", None)
    finally:
        one.close()
