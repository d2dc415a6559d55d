"""Results in a bucket, against a real S3 server: sent, pulled elsewhere, killed between, drawn."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import store
from bench.errors import BadInput
from bench.storage import open_storage
from bench.storage.bucket import Bucket
from bench.store.mirror import results_folder
from tests import s3
from tests.records import epochs, record

IDS = [f"{number:012x}" for number in range(12)]


@pytest.fixture(scope="module")
def s3_server() -> Iterator[s3.Server]:
    with s3.server() as running:
        yield running


@pytest.fixture
def url(
    s3_server: s3.Server,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> str:
    """An empty folder of a bucket, and a machine (a cache) of its own for each test."""
    s3.reach(s3_server, monkeypatch)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "machine"))
    return s3_server.make_bucket(f"test-{abs(hash(request.node.name))}") + "/my/results"


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """Calls of its `setenv` make this process another machine, with a mirror of its own."""
    with monkeypatch.context() as other:
        yield other


def move(elsewhere: pytest.MonkeyPatch, tmp_path: Path, machine: str) -> None:
    elsewhere.setenv("BENCH_CACHE", str(tmp_path / machine))


def write(results: Path, run_id: str, **changes: object) -> None:
    store.write_run(results, record(run_id, **changes), epochs(run_id))


def grid(results: Path, run_ids: list[str], name: str = "small") -> None:
    wanted = [{"run_id": r, "trial": {"cell": "lstm", "rep": i}} for i, r in enumerate(run_ids)]
    command = f"python -m bench.grid {name}"
    store.save_grid(
        results, {"name": name, "command": command, "wanted": wanted, "skipped": [], "merged": 0}
    )


def tables(results: Path) -> list[object]:
    found: list[object] = []
    for load in (store.load_runs, store.load_epochs):
        rows, problems = load(results)
        assert problems == []
        found.append(rows.to_dict("records"))
    return found


def test_a_folder_is_yielded_as_it_is(tmp_path: Path) -> None:
    with results_folder(tmp_path, write=True) as results:
        assert results.folder == tmp_path
        write(results.folder, IDS[0])
        results.push_run(IDS[0])
        results.fetch(f"weights/{IDS[0]}.safetensors")
    with results_folder(f"file://{tmp_path}", write=False) as results:
        assert results.folder == tmp_path


def test_what_is_pushed_is_there_at_once_and_elsewhere(
    url: str, tmp_path: Path, elsewhere: pytest.MonkeyPatch
) -> None:
    bucket = open_storage(url)
    with results_folder(url, write=True) as results:
        grid(results.folder, IDS)
        results.push(["grids/small.json"])
        for run_id in IDS:
            write(results.folder, run_id)
            results.push_run(run_id)
        deadline = time.monotonic() + 60
        while len(bucket.names("runs")) < len(IDS):
            assert time.monotonic() < deadline
        expected = tables(results.folder)
    assert bucket.names("grids") == ["grids/small.json"]
    move(elsewhere, tmp_path, "other")
    with results_folder(url, write=False) as results:
        assert tables(results.folder) == expected
        assert store.load_grid(results.folder, "small")["wanted"][3]["run_id"] == IDS[3]


KILLED = """
import os, signal, sys
from bench import store
from bench.store.mirror import results_folder
from tests.test_mirror import IDS, grid, write
with results_folder(sys.argv[1], write=True) as results:
    grid(results.folder, IDS)
    for number, run_id in enumerate(IDS):
        if os.path.exists(results.folder / "runs" / f"{run_id}.parquet"):
            continue
        write(results.folder, run_id)
        if number % 4 == 3:
            os.kill(os.getpid(), signal.SIGKILL)  # written, and not pushed
        results.push_run(run_id)
        print(number, flush=True)
"""


def test_a_driver_killed_between_writing_and_sending_loses_nothing(
    url: str, tmp_path: Path, elsewhere: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        write(tmp_path / "undisturbed", IDS[number])
    ends: list[int] = []
    while not ends or ends[-1] != 0:
        assert len(ends) < 6
        program = [sys.executable, "-c", KILLED, url]
        done = subprocess.run(program, capture_output=True, text=True)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        ends.append(done.returncode)
    assert ends == [-signal.SIGKILL] * 3 + [0]
    move(elsewhere, tmp_path, "other")
    with results_folder(url, write=False) as results:
        assert tables(results.folder) == tables(tmp_path / "undisturbed")


def test_records_of_other_machines_come_and_go(
    url: str, tmp_path: Path, elsewhere: pytest.MonkeyPatch
) -> None:
    with results_folder(url, write=True) as results:
        write(results.folder, IDS[0], status="failed", error_text="of the first")
        write(results.folder, IDS[1])
    move(elsewhere, tmp_path, "other")
    with results_folder(url, write=True) as results:
        assert store.statuses(results.folder, IDS) == {IDS[0]: "failed", IDS[1]: "ok"}
        write(results.folder, IDS[0], error_text="a rerun's, of other size")
        write(results.folder, IDS[2])
    open_storage(url).delete(f"runs/{IDS[1]}.parquet")
    move(elsewhere, tmp_path, "machine")
    for writes in (True, False):
        with results_folder(url, write=writes) as results:
            assert store.statuses(results.folder, IDS) == {IDS[0]: "ok", IDS[2]: "ok"}
    assert len(open_storage(url).names("runs")) == 2


def test_of_two_that_changed_one_file_the_better_is_kept_and_else_the_one_in_the_bucket(
    url: str, tmp_path: Path, elsewhere: pytest.MonkeyPatch
) -> None:
    with results_folder(url, write=True) as first:
        write(first.folder, IDS[0], status="failed", error_text="old")
    path = first.folder / "runs" / f"{IDS[0]}.parquet"
    move(elsewhere, tmp_path, "other")
    for mine, later in (("failed", 3600), ("ok", -3600)):
        with results_folder(url, write=True) as results:
            write(results.folder, IDS[0], status="failed", error_text=f"before mine is {mine}")
        write(first.folder, IDS[0], status=mine, error_text="mine")
        os.utime(path, (time.time() + later, time.time() + later))  # clocks are not asked
        move(elsewhere, tmp_path, "machine")
        with results_folder(url, write=True):
            pass
        move(elsewhere, tmp_path, "other")
        with results_folder(url, write=False) as results:
            found = store.load_runs(results.folder)[0]["error_text"].tolist()
        assert found == ["mine" if mine == "ok" else "before mine is failed"]


def test_a_lost_index_loses_no_record(url: str) -> None:
    with results_folder(url, write=True) as results:
        for run_id in IDS[:3]:
            write(results.folder, run_id)
    index = results.folder / "index.jsonl"
    for content in (b"", b'["runs/x", nonsense\n\xff\n[]\n', index.read_bytes()[:-30]):
        index.write_bytes(content)
        write(results.folder, IDS[5])
        with results_folder(url, write=True) as again:
            assert len(tables(again.folder)[0]) == 4  # type: ignore[arg-type]
    assert len(open_storage(url).names("runs")) == 4


def unread(path: Path) -> tuple[int, int]:
    """Returns what tells a file from one written anew; to read it changes neither."""
    seen = path.stat()
    return seen.st_ino, seen.st_mtime_ns


def test_what_is_here_already_is_not_fetched_again(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with results_folder(url, write=True) as results:
        write(results.folder, IDS[0])
    marked = results.folder / "runs" / f"{IDS[0]}.parquet"
    before = unread(marked)
    with results_folder(url, write=True):
        assert unread(marked) == before
    with results_folder(url, write=False) as results:
        first = unread(results.folder / "runs" / f"{IDS[0]}.parquet")
    gets: list[str] = []
    get = Bucket.get

    def counted(self: Bucket, name: str) -> bytes | None:
        gets.append(name)
        return get(self, name)

    monkeypatch.setattr(Bucket, "get", counted)
    # What is as young as the youngest in the bucket may change once more and look the same.
    for tick, fetched in ((2.0, 1), (-1.0, 1), (-1.0, 0)):
        monkeypatch.setattr("bench.store.unsent._TICK", tick)
        gets.clear()
        with results_folder(url, write=False) as results:
            assert unread(results.folder / "runs" / f"{IDS[0]}.parquet") == first
        assert gets == [f"runs/{IDS[0]}.parquet"] * fetched


def test_weights_travel_when_asked_for_and_go_with_a_rerun(
    url: str, tmp_path: Path, elsewhere: pytest.MonkeyPatch
) -> None:
    name = f"weights/{IDS[0]}.safetensors"
    with results_folder(url, write=True) as results:
        store.write_run(results.folder, record(IDS[0]), epochs(IDS[0]), b"tensors")
        results.push_run(IDS[0])
    move(elsewhere, tmp_path, "other")
    with results_folder(url, write=True) as results:
        assert not (results.folder / name).exists()
        results.fetch(name)
        assert (results.folder / name).read_bytes() == b"tensors"
        write(results.folder, IDS[0], error_text="a rerun without weights")
        results.push_run(IDS[0])
    assert open_storage(url).names("weights") == []


def test_a_server_that_dies_costs_no_trial_and_no_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "machine"))
    with s3.server() as dying:
        s3.reach(dying, monkeypatch)
        url = dying.make_bucket("short-lived")
        with (
            pytest.raises(store.StoreError, match=r"s3://short-lived: AWS Error.*4 files wait in"),
            results_folder(url, write=True) as results,
        ):
            write(results.folder, IDS[0])
            results.push_run(IDS[0])
            bucket = open_storage(url)
            while bucket.get(f"runs/{IDS[0]}.parquet") is None:
                pass
            dying.kill()
            for run_id in IDS[1:3]:
                start = time.monotonic()
                write(results.folder, run_id)
                results.push_run(run_id)
                assert time.monotonic() - start < 5  # the training does not wait for the bucket
        expected = tables(results.folder)
        with (
            pytest.raises(BadInput, match=r"--results s3://short-lived: AWS Error"),
            results_folder(url, write=True),
        ):
            pytest.fail("it was opened")
    assert len(expected[0]) == 3  # type: ignore[arg-type]


def test_a_bucket_without_results_and_one_that_is_not_there(url: str) -> None:
    with pytest.raises(BadInput, match="holds no results"), results_folder(url, write=False):
        pytest.fail("it was opened")
    for write_it in (True, False):
        with (
            pytest.raises(BadInput, match="--results s3://not-there: there is no bucket"),
            results_folder("s3://not-there", write=write_it),
        ):
            pytest.fail("it was opened")


def test_foreign_names_in_a_bucket_stay_there(url: str, tmp_path: Path) -> None:
    bucket = open_storage(url)
    bucket.put("runs/deep/er/x.parquet", b"")
    bucket.put("runs/a b.parquet", b"")
    bucket.put("notes.txt", b"")
    with results_folder(url, write=True) as results:
        write(results.folder, IDS[0])
    assert [p.name for p in (results.folder / "runs").iterdir()] == [f"{IDS[0]}.parquet"]
    assert {"runs/deep/er/x.parquet", "runs/a b.parquet", "notes.txt"} < set(bucket.names())
