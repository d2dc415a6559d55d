"""An --address where no Ray cluster answers: one clear line in good time, nothing written."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.backends import ray_cluster
from tests.conftest import Verb
from tests.grids import grid_file
from tests.test_bad_input import refused

pytestmark = pytest.mark.xdist_group("address")


@pytest.fixture(params=["silent", "talks HTTP"])
def other_server(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a server that is not Ray's: it says nothing, or something else."""
    server = socket.create_server(("127.0.0.1", 0))
    kept: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            kept.append(connection)
            if request.param == "talks HTTP":
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()
    for connection in kept:
        connection.close()


def test_the_limit_is_ten_seconds() -> None:
    assert ray_cluster.CONNECT_SECONDS == 10


@pytest.mark.parametrize("how", ["option", "environment"])
def test_nothing_listens(
    verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    words = ["--address", "127.0.0.1:1"] if how == "option" else []
    if how == "environment":
        monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    started = time.monotonic()
    outcome = verb("grid", grid_file(tmp_path, "{cell: [lstm]}"), *words)
    assert time.monotonic() - started < 10
    refused(outcome, "--address 127.0.0.1:1: nothing answers there")
    assert "is the cluster up, and the port that of `ray start` (6379)?" in outcome.err
    assert not (tmp_path / "results").exists()


def test_what_listens_is_not_ray(
    verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other_server: int
) -> None:
    monkeypatch.setattr(ray_cluster, "CONNECT_SECONDS", 3)  # so that the suite waits less
    started = time.monotonic()
    address = f"127.0.0.1:{other_server}"
    outcome = verb("grid", grid_file(tmp_path, "{cell: [lstm]}"), "--address", address)
    assert time.monotonic() - started < 12
    refused(outcome, f"--address {address}: no Ray cluster")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    "address",
    ["nowhere", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:0", "127.0.0.1:99999",
     "ray://127.0.0.1:10001", "http://127.0.0.1:1", ":", "127.0.0.1:-1", "\n", "x" * 500],
)  # fmt: skip
def test_what_is_no_address(verb: Verb, tmp_path: Path, address: str) -> None:
    outcome = verb("grid", grid_file(tmp_path, "{cell: [lstm]}"), "--address", address)
    refused(outcome, ": write auto, local or HOST:PORT")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 70, "exa mple", "ä..ö"])
def test_a_host_that_cannot_be(verb: Verb, tmp_path: Path, host: str) -> None:
    outcome = verb("grid", grid_file(tmp_path, "{cell: [lstm]}"), "--address", f"{host}:6379")
    refused(outcome, "--address ")
    assert not (tmp_path / "results").exists()


def test_auto_where_no_cluster_runs(
    verb: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray._private.services as services

    # Another test may have a cluster running at this moment.
    monkeypatch.setattr(services, "canonicalize_bootstrap_address", lambda _: None)
    outcome = verb("grid", grid_file(tmp_path, "{cell: [lstm]}"), "--address", "auto")
    refused(outcome, "--address auto: no Ray cluster runs here; start one with `ray start --head`")
    assert not (tmp_path / "results").exists()
