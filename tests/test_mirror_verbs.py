"""The verbs on results in a bucket, against a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import store
from bench.report import build
from bench.storage import open_storage
from bench.store.mirror import results_folder
from tests import s3
from tests.conftest import Verb
from tests.test_generate import train
from tests.test_mirror import IDS, grid, write


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
def filled(url: str) -> str:
    with results_folder(url, write=True) as results:
        grid(results.folder, IDS)
        for run_id in IDS:
            write(results.folder, run_id)
    return url


def test_store_check_and_orphans_take_a_url(filled: str, verb: Verb) -> None:
    done = verb("store", "check", "--results", filled)
    assert (done.code, done.out) == (0, "12 records, 0 problems\n"), done.err
    open_storage(filled).put(f"runs/{IDS[0]}.parquet", b"PAR1 torn")
    done = verb("store", "check", "--results", filled)
    assert done.code == 1
    assert "12 records, 1 problem\n" in done.out
    assert "orphans" in verb("store", "orphans", "--results", filled).out


def test_store_merge_takes_urls_on_both_sides(filled: str, verb: Verb, tmp_path: Path) -> None:
    open_storage(filled).put(f"weights/{IDS[0]}.safetensors", b"tensors")
    done = verb("store", "merge", filled, "--results", tmp_path / "here")
    assert "12 runs came into" in done.out, done.err
    assert (tmp_path / "here" / "weights" / f"{IDS[0]}.safetensors").read_bytes() == b"tensors"
    other = filled.replace("/my/results", "/merged")
    done = verb("store", "merge", tmp_path / "here", "--results", other)
    assert "12 runs came into" in done.out, done.err
    names = open_storage(filled).names()
    assert open_storage(other).names() == names
    assert len(names) == 26


@pytest.mark.parametrize("word", ["compact", "prune"])
def test_compact_and_prune_refuse_a_url_and_say_what_to_do(
    filled: str, verb: Verb, word: str
) -> None:
    done = verb("store", word, "--results", filled)
    assert done.code == 2
    assert f"bench.store merge {filled} --results" in done.err
    assert len(open_storage(filled).names()) == 25


def test_text_and_report_of_a_bucket_are_those_of_the_folder(
    url: str, verb: Verb, tmp_path: Path
) -> None:
    run_id = train(verb)
    text = verb("generate", run_id, "--words", 40).out
    (name,) = store.grid_names(tmp_path / "results")
    page = build(tmp_path / "results", name).read_text()
    done = verb("store", "merge", "results", "--results", url)
    assert "1 runs came into" in done.out, done.err
    assert verb("generate", run_id, "--words", 40, "--results", url).out == text != ""
    with results_folder(url, write=False) as results:
        path = build(results.folder, name)
        results.push([f"reports/{path.name}"])
    assert path.read_text() == page
    assert open_storage(url).get(f"reports/{path.name}") == page.encode()
    open_storage(url).delete(f"weights/{run_id}.safetensors")
    done = verb("generate", run_id, "--results", url)
    assert done.code == 2
    assert f"--results {url}" in done.err
