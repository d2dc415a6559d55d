"""What has gone wrong between mirrors and buckets: other drivers, lost indexes, clocks, servers."""

from __future__ import annotations

import os
import shutil
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import store
from bench.errors import BadInput
from bench.storage import Found, open_storage
from bench.storage.bucket import Bucket
from bench.store.mirror import results_folder
from tests import s3
from tests.records import epochs, record

X, Y = "0" * 12, "1" * 12
RECORD, EPOCHS, WEIGHTS = f"runs/{X}.parquet", f"epochs/{X}.parquet", f"weights/{X}.safetensors"


@pytest.fixture(scope="module")
def s3_server() -> Iterator[s3.Server]:
    with s3.server() as running:
        yield running


@pytest.fixture
def url(
    s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> str:
    """An empty folder of a bucket for each test."""
    s3.reach(s3_server, monkeypatch)
    return s3_server.make_bucket(f"test-{abs(hash(request.node.name))}") + "/my/results"


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Makes this process another machine, with a mirror of its own; it begins as `one`."""

    def move(name: str) -> None:
        monkeypatch.setenv("BENCH_CACHE", str(tmp_path / name))

    move("one")
    return move


def write(
    results: Path, run_id: str = X, value: float = 1.0, weights: bytes | None = None, **more: Any
) -> None:
    """Writes a run whose record and epochs tell it from others."""
    rows = [row | {"valid_nll": value} for row in epochs(run_id)]
    store.write_run(results, record(run_id, valid_nll=value, **more), rows, weights)


def values(results: Path) -> tuple[list[float], set[float]]:
    """Returns the values in the records, and in the epochs."""
    runs, problems = store.load_runs(results)
    curves, more = store.load_epochs(results)
    assert problems == more == []
    return runs["valid_nll"].tolist(), {*curves["valid_nll"]}


def pulled(url: str, write_it: bool = False) -> Path:
    with results_folder(url, write=write_it) as results:
        return results.folder


def test_what_another_driver_writes_while_one_starts_stays(
    url: str, monkeypatch: pytest.MonkeyPatch, machine: Callable[[str], None]
) -> None:
    put = Bucket.put

    def meanwhile(bucket: Bucket, name: str, content: bytes) -> None:
        put(bucket, name, content)
        if name == f"runs/{Y}.parquet":  # the bucket is listed, and nothing is fetched yet
            write(first.folder, value=2.0)

    with results_folder(url, write=True) as first:
        write(first.folder, status="lost", value=1.0)
        first.push_run(X)
        while not open_storage(url).names("runs"):
            pass
        write(first.folder, Y, value=2.0)
        monkeypatch.setattr(Bucket, "put", meanwhile)
        with results_folder(url, write=True):
            monkeypatch.setattr(Bucket, "put", put)
            assert values(first.folder) == ([2.0, 2.0], {2.0})
        first.push_run(X)
    machine("other")
    assert values(pulled(url)) == ([2.0, 2.0], {2.0})


def test_a_start_with_a_lost_index_or_a_copied_cache_sends_and_deletes_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch, machine: Callable[[str], None], tmp_path: Path
) -> None:
    with results_folder(url, write=True) as results:
        write(results.folder, weights=b"tensors")
        results.push_run(X)
    before = open_storage(url).listing()
    assert WEIGHTS in before
    machine("two")
    (pulled(url, write_it=True) / "index.jsonl").unlink()
    pulled(url, write_it=True)
    shutil.copytree(tmp_path / "two", tmp_path / "three", copy_function=shutil.copyfile)
    machine("three")
    sent: list[str] = []
    monkeypatch.setattr(Bucket, "put", lambda self, name, content: sent.append(name))
    pulled(url, write_it=True)
    assert sent == [] and open_storage(url).listing() == before
    machine("one")  # which has the weights
    (pulled(url, write_it=True) / "index.jsonl").unlink()
    pulled(url, write_it=True)
    assert sent == [] and open_storage(url).listing() == before


def test_weights_go_with_a_rerun_that_was_killed_before_it_was_sent(
    url: str, machine: Callable[[str], None]
) -> None:
    with results_folder(url, write=True) as results:
        write(results.folder, weights=b"tensors")
    write(results.folder, value=2.0)
    pulled(url, write_it=True)
    assert open_storage(url).names("weights") == []
    write(results.folder, value=3.0, weights=b"of the third")
    pulled(url, write_it=True)
    assert open_storage(url).get(WEIGHTS) == b"of the third"


def test_lost_is_not_sent_over_the_final_record_of_another_machine(
    url: str, machine: Callable[[str], None]
) -> None:
    with results_folder(url, write=True) as first:
        machine("other")
        with results_folder(url, write=True) as second:
            write(second.folder, weights=b"tensors", value=2.0)
            second.push_run(X)
        before = open_storage(url).listing()
        write(first.folder, status="lost", value=1.0)
        first.push_run(X)
    assert open_storage(url).listing() == before
    machine("one")
    assert values(pulled(url, write_it=True)) == ([2.0], {2.0})


def test_two_servers_of_one_url_have_a_mirror_each(
    url: str, s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with results_folder(url, write=True) as results:
        write(results.folder)
    write(results.folder, Y)  # killed before it was sent
    with s3.server() as other:
        s3.reach(other, monkeypatch)
        other.make_bucket(url.split("/")[2])
        assert values(pulled(url, write_it=True)) == ([], set())
        assert open_storage(url).names("runs") == []
    s3.reach(s3_server, monkeypatch)
    pulled(url, write_it=True)
    assert open_storage(url).names("runs") == [RECORD, f"runs/{Y}.parquet"]


def test_a_bucket_that_comes_back_empty_takes_no_record_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with s3.server() as short:
        s3.reach(short, monkeypatch)
        url = short.make_bucket("short-lived")
        with results_folder(url, write=True) as results:
            write(results.folder)
        pulled(url)
        reset = urllib.request.Request(f"{short.url}/moto-api/reset", method="POST")
        urllib.request.urlopen(reset, timeout=20).close()
        short.make_bucket("short-lived")
        for write_it in (True, False):
            with pytest.raises(BadInput, match=r"none of the 1 records known here .*kept in"):
                pulled(url, write_it)
        assert values(results.folder) == ([1.0], {1.0})
        (results.folder / "index.jsonl").unlink()  # as the line says
        pulled(url, write_it=True)
        assert open_storage(url).names() == [EPOCHS, RECORD]
        assert values(pulled(url)) == ([1.0], {1.0})


@pytest.mark.parametrize("behind", [-3600.0, 600.0])
def test_a_clock_that_differs_costs_no_rerun(
    url: str, monkeypatch: pytest.MonkeyPatch, behind: float
) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - behind)
    with results_folder(url, write=True) as results:
        write(results.folder, status="failed", value=1.0)
        results.push_run(X)
    for value in (2.0, 3.0):
        write(results.folder, status="failed", value=value)  # killed before it was sent
        for name in (RECORD, EPOCHS):
            os.utime(results.folder / name, (time.time(), time.time()))
        assert values(pulled(url, write_it=True)) == ([value], {value})
        assert values(pulled(url)) == ([value], {value})


@pytest.mark.parametrize("write_it", [True, False])
@pytest.mark.parametrize("name", [RECORD, EPOCHS])
def test_what_is_damaged_here_and_looks_the_same_is_fetched_anew(
    url: str, monkeypatch: pytest.MonkeyPatch, write_it: bool, name: str
) -> None:
    monkeypatch.setattr("bench.store.unsent._TICK", -1.0)
    monkeypatch.setattr("bench.store.pull._WRITING", 0.0)
    with results_folder(url, write=True) as results:
        write(results.folder)
    for _ in range(2):  # by then the bucket's own time is known
        path = pulled(url, write_it) / name
    before, seen = path.read_bytes(), path.stat()
    damaged = bytearray(before)
    damaged[200] ^= 1
    path.write_bytes(damaged)
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    sent = open_storage(url).listing()
    pulled(url, write_it)
    assert path.read_bytes() == before
    assert open_storage(url).listing() == sent


def test_a_reader_keeps_the_epochs_of_its_record_until_the_rerun_is_there(
    url: str, tmp_path: Path, machine: Callable[[str], None]
) -> None:
    with results_folder(url, write=True) as results:
        write(results.folder, value=1.0)
    machine("reader")
    assert values(pulled(url)) == ([1.0], {1.0})
    write(tmp_path / "rerun", value=2.0)
    for name, expected in ((EPOCHS, ([1.0], {1.0})), (RECORD, ([2.0], {2.0}))):
        open_storage(url).put(name, (tmp_path / "rerun" / name).read_bytes())
        assert values(pulled(url)) == expected


def test_a_reader_meets_a_rerun_between_a_record_and_its_epochs(
    url: str, tmp_path: Path, machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with results_folder(url, write=True) as results:
        write(results.folder, value=1.0, error_text="the first")
    write(tmp_path / "rerun", value=2.0, error_text="a rerun")
    get, rerun = Bucket.get, [EPOCHS, RECORD]

    def meanwhile(bucket: Bucket, name: str) -> bytes | None:
        content = get(bucket, name)
        while name == RECORD and rerun:
            put = rerun.pop(0)
            bucket.put(put, (tmp_path / "rerun" / put).read_bytes())
        return content

    machine("reader")
    monkeypatch.setattr(Bucket, "get", meanwhile)
    assert values(pulled(url)) == ([2.0], {2.0})
    assert rerun == []


def test_a_record_that_comes_after_the_epochs_were_listed_comes_with_them(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "new")
    bucket = open_storage(url)
    listing = Bucket.listing

    def meanwhile(self: Bucket, prefix: str = "") -> dict[str, Found]:
        if prefix == "runs":
            for name in (EPOCHS, RECORD):
                bucket.put(name, (tmp_path / "new" / name).read_bytes())
        found = listing(self, prefix)
        return {} if prefix == "epochs" else found  # it was listed a moment before

    monkeypatch.setattr(Bucket, "listing", meanwhile)
    assert values(pulled(url)) == ([1.0], {1.0})
