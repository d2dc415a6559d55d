"""Storage: one contract over a folder, a real S3 server and a driver of fsspec; every refusal."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.storage import (
    Storage,
    check_answers,
    identity,
    is_it,
    open_storage,
    probe,
    probe_from_node,
)
from bench.storage.bucket import Bucket
from tests import s3


@pytest.fixture(scope="module")
def s3_server() -> Iterator[s3.Server]:
    with s3.server() as running:
        yield running


@pytest.fixture
def bucket(
    s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> str:
    """A bucket of its own for each test, in reach of this process."""
    s3.reach(s3_server, monkeypatch)
    return s3_server.make_bucket(f"test-{abs(hash(request.node.name))}")


@pytest.fixture(params=["folder", "file", "s3", "s3-prefix", "fsspec"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param.startswith("s3"):
        url = request.getfixturevalue("bucket")
        return open_storage(url + "/a/deep folder" * (request.param == "s3-prefix"))
    return open_storage(
        {
            "folder": str(tmp_path / "shared"),
            "file": f"file://{tmp_path}/shared%20disk",
            "fsspec": f"memory://{tmp_path.name}-{time.monotonic_ns()}/a",
        }[request.param]
    )


# --- the contract ---------------------------------------------------------------------------------


def test_what_is_put_is_got_and_listed_and_deleted(storage: Storage) -> None:
    assert storage.names() == []
    assert storage.get("checkpoints/r/000001.json") is None
    storage.put("checkpoints/r/000002.json", b"two")
    storage.put("checkpoints/r/000001.json", b"")
    storage.put("checkpoints/other", b"x" * 10)
    storage.put("top", b"\0\xff")
    assert storage.get("checkpoints/r/000002.json") == b"two"
    assert storage.get("checkpoints/r/000001.json") == b""
    assert storage.get("top") == b"\0\xff"
    rest = ["checkpoints/r/000001.json", "checkpoints/r/000002.json"]
    assert storage.names() == ["checkpoints/other", *rest, "top"]
    assert storage.names("checkpoints/r") == storage.names("checkpoints/r/") == rest
    assert storage.names("checkpoints/none") == []
    storage.put("top", b"anew")
    assert storage.get("top") == b"anew"
    for name in (*rest, "never/there"):
        storage.delete(name)
    assert storage.names() == ["checkpoints/other", "top"]
    assert storage.get("checkpoints/r/000002.json") is None


def test_a_listing_tells_sizes_and_times(storage: Storage) -> None:
    before = time.time()
    storage.put("a/b", b"12345")
    found = storage.listing()["a/b"]
    assert found.size == 5
    assert found.modified is not None
    assert before - 2 < found.modified < time.time() + 2  # S3 tells whole seconds


def test_a_large_file_arrives_whole(storage: Storage) -> None:
    content = os.urandom(30_000_000)  # an upload in three parts on S3
    storage.put("weights/large", content)
    assert storage.get("weights/large") == content


def test_a_prefix_is_a_folder_and_not_the_beginning_of_a_name(storage: Storage) -> None:
    storage.put("run/1", b"1")
    storage.put("running/1", b"2")
    assert storage.names("run") == ["run/1"]


@pytest.mark.parametrize(
    "name", ["", "/a", "a/", "a//b", "../a", "a/../b", ".", "a/.hidden", "a\\b", "a\0b", "a\nb"]
)
def test_a_name_that_leaves_the_storage_is_refused(storage: Storage, name: str) -> None:
    for use in (storage.get, storage.delete, lambda n: storage.put(n, b"")):
        with pytest.raises(ValueError, match="no name of a stored file"):
            use(name)
    assert storage.names() == []


def test_threads_share_a_storage(storage: Storage) -> None:
    def work(number: int) -> None:
        for turn in range(5):
            storage.put(f"t/{number}", b"%d %d" % (number, turn))
            assert storage.get(f"t/{number}") == b"%d %d" % (number, turn)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [storage.get(f"t/{n}") for n in range(8)] == [b"%d 4" % n for n in range(8)]


def test_a_reader_never_meets_half_a_file(storage: Storage) -> None:
    whole = [bytes([n]) * 200_000 for n in range(4)]
    storage.put("a/x", whole[0])
    done = threading.Event()

    def write() -> None:
        for turn in range(40):
            storage.put("a/x", whole[turn % 4])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    met = set()
    while not done.is_set():
        met.add(storage.get("a/x"))
        assert storage.names() == ["a/x"]
    writer.join()
    assert met <= set(whole)


def test_a_file_that_grows_while_it_is_read_arrives_whole(bucket: str) -> None:
    storage = open_storage(bucket)
    assert isinstance(storage, Bucket)
    system, sizes = storage._system, [1000, 5000]

    class Growing:
        """The same bucket, in which another machine writes whenever a file was just opened."""

        def __getattr__(self, name: str) -> Any:
            return getattr(system, name)

        def open_input_file(self, path: str) -> Any:
            opened = system.open_input_file(path)
            if sizes:
                open_storage(bucket).put("a", b"b" * sizes.pop(0))
            return opened

    storage.put("a", b"a" * 100)
    storage._system = Growing()
    assert storage.get("a") == b"b" * 5000
    sizes += range(6000, 7000)
    with pytest.raises(OSError, match="a changes faster than it can be read"):
        storage.get("a")


# --- do all nodes see it? -------------------------------------------------------------------------


def test_nodes_that_see_the_storage_pass_and_leave_nothing(storage: Storage) -> None:
    token = probe(storage)
    nodes = ("10.0.0.1:6379", "node two")
    if storage.location.startswith("memory"):
        return check_answers(storage, token, {})
    answers = {node: probe_from_node(storage.location, token, node) for node in nodes}
    assert answers == dict.fromkeys(nodes, "")
    assert len(storage.names("probe")) == 3
    check_answers(storage, token, answers)
    assert storage.names() == []


def test_a_storage_tells_itself_from_others(storage: Storage, tmp_path: Path) -> None:
    assert not is_it(storage, "")
    name = identity(storage)
    assert name and identity(storage) == name
    assert is_it(storage, name) and not is_it(storage, "other")
    assert not is_it(open_storage(str(tmp_path / "elsewhere")), name)
    assert identity(open_storage(str(tmp_path / "elsewhere"))) != name


def test_two_who_name_a_storage_at_once_are_both_right(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, others = type(storage).put, list[str]()

    def meanwhile(self: Storage, name: str, content: bytes) -> None:
        if not others:
            others.append("")
            others[:] = [identity(storage)]
        put(self, name, content)

    monkeypatch.setattr(type(storage), "put", meanwhile)
    name = identity(storage)
    assert is_it(storage, name) and is_it(storage, others[0])
    assert identity(storage) in (name, others[0])


def test_importing_storage_imports_no_driver() -> None:
    program = (
        "import sys, bench.storage as s; s.open_storage('a').names()\n"
        "print({'pyarrow', 'fsspec', 'torch'} & {n.partition('.')[0] for n in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
