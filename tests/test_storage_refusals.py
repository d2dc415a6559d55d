"""Storage that is not there, closed, mute, or not the same for all nodes: each is one line."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.errors import BadInput
from bench.storage import (
    check_answers,
    is_remote,
    open_storage,
    probe,
    probe_from_node,
)
from tests import s3

UNANSWERED = 20
"""Seconds; the promise is about 15, and this machine may be busy."""


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


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("", "neither a folder nor a URL"),
        ("a\0b", "neither a folder nor a URL"),
        ("s3:/bucket/x", "begins with s3://"),  # what Path makes of a URL
        ("gs:bucket", "begins with gs://"),
        ("s3://", "names no bucket"),
        ("s3://a bucket/x", "names no bucket"),
        ("s3://bucket/../x", "not a folder of a bucket"),
        ("s3://bucket//x", "not a folder of a bucket"),
        ("s3://bucket/x?regoin=eu", "Did you mean region"),
        ("s3://bucket/x?scheme=ftp&region=eu", "scheme"),
        ("nope://bucket/x", "no scheme"),
        ("simplecache::s3://bucket", "not a URL"),
        ("az://bucket/x", "adlfs"),  # what to install
    ],
)
def test_what_is_no_location_is_said_in_a_line(location: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        open_storage(location)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    for url in ("s3://key:secret@bucket/x", "sftp://me:secret@host/x"):
        with pytest.raises(BadInput, match="password") as refused:
            open_storage(url)
        assert "secret" not in str(refused.value)


def test_urls_are_remote_and_folders_are_not() -> None:
    assert [is_remote(x) for x in ("s3://b", "gs://b/c", "memory://x")] == [True] * 3
    assert [is_remote(x) for x in ("results", "/a/b", "file:///a", "a:b")] == [False] * 4


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    storage = open_storage(str(tmp_path / "file" / "below"))
    for use in (lambda: storage.put("a", b""), lambda: storage.get("a")):
        with pytest.raises(OSError, match=f"{tmp_path}.*Not a directory"):
            use()


def test_a_write_that_fails_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    storage.put("a", b"old")
    program = (
        "import resource, signal, sys; from bench.storage import open_storage\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "open_storage(sys.argv[1]).put('a', b'new' * 100)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True
    )
    assert "File too large" in done.stderr
    assert storage.get("a") == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_bucket_that_is_not_there_is_named(bucket: str) -> None:
    storage = open_storage("s3://no-such-bucket/x")
    for use in (lambda: storage.put("a", b""), lambda: storage.get("a"), storage.names):
        with pytest.raises(OSError, match=r"s3://no-such-bucket/x: .*bucket") as error:
            use()
        assert "\n" not in str(error.value)
        assert "Request ID" not in str(error.value)


def test_a_server_by_the_url_alone(
    bucket: str, s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_storage(bucket).put("a", b"1")
    host = s3_server.url.removeprefix("http://")
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    monkeypatch.delenv("AWS_REGION")
    url = f"{bucket}?endpoint_override={host}&scheme=http&region=us-east-1"
    assert open_storage(url).get("a") == b"1"


def test_wrong_keys_are_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3.server() as strict:
        s3.reach(strict, monkeypatch)
        storage = open_storage(strict.make_bucket("closed"))
        storage.put("a", b"")
        strict.check_keys()
        for use in (lambda: storage.put("a", b""), lambda: storage.get("a"), storage.names):
            with pytest.raises(OSError, match=r"s3://closed: AWS Error (ACCESS|INVALID_ACCESS)"):
                use()
        with pytest.raises(BadInput, match=r"s3://closed: .*must be writable"):
            probe(storage)


def test_a_server_that_dies_in_mid_use(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3.server() as dying:
        s3.reach(dying, monkeypatch)
        storage = open_storage(dying.make_bucket("gone"))
        storage.put("a", b"1")
        dying.kill()
        for use in (
            lambda: storage.put("a", b"2"),
            lambda: storage.get("a"),
            storage.names,
            lambda: storage.delete("a"),
        ):
            start = time.monotonic()
            with pytest.raises(OSError, match="s3://gone: AWS Error NETWORK_CONNECTION"):
                use()
            assert time.monotonic() - start < UNANSWERED


@pytest.mark.slow
@pytest.mark.parametrize("url", ["s3://mute/x", "gs://mute/x"])
def test_a_server_that_never_answers(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        host = f"127.0.0.1:{mute.getsockname()[1]}"
        storage = open_storage(f"{url}?endpoint_override={host}&scheme=http")
        start = time.monotonic()
        with pytest.raises(BadInput, match=f"{url}.*: ") as refused:
            probe(storage)
        assert time.monotonic() - start < UNANSWERED
        assert len(str(refused.value)) < 500
        with pytest.raises(OSError, match=url):
            storage.put("a", b"1")
        assert time.monotonic() - start < UNANSWERED + 50


# --- nodes that do not see it ---------------------------------------------------------------------


def test_a_node_with_a_folder_of_its_own_is_named(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "shared"))
    token = probe(storage)
    alone = probe_from_node(str(tmp_path / "other"), token, "b")
    assert alone == "does not see what the driver wrote"
    fine = probe_from_node(storage.location, token, "a")
    with pytest.raises(BadInput, match=r"--storage .*shared: node b: does not see.*every node"):
        check_answers(storage, token, {"a": fine, "b": alone})
    assert storage.names() == []


def test_a_node_whose_writes_do_not_arrive_is_named(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "shared"))
    token = probe(storage)
    shutil.copytree(tmp_path / "shared", tmp_path / "copy")  # a mount that reads a stale copy
    answers = {n: probe_from_node(str(tmp_path / "copy"), token, n) for n in ("a", "b")}
    with pytest.raises(BadInput, match=r"node a \(and 1 more\): writes what the driver does not"):
        check_answers(storage, token, answers)


def test_a_node_that_cannot_write_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    said = probe_from_node(str(tmp_path / "file" / "x"), "0" * 16, "a")
    assert "Not a directory" in said
    assert probe_from_node("nope://x", "0" * 16, "a").startswith("nope://x: no scheme")


def test_the_probe_of_a_storage_that_cannot_be_written_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BadInput, match="Not a directory; it must be writable"):
        probe(open_storage(str(tmp_path / "file")))
