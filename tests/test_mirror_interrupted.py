"""Ctrl-C with results in a bucket that is slow, mute or dead: it ends soon, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import store
from bench.storage import open_storage
from bench.storage.bucket import Bucket
from bench.store.mirror import results_folder
from tests import s3
from tests.test_mirror import IDS, write

SOON = 6
"""Seconds; the promise is about three, and this machine may be busy."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[s3.Server]:
    with s3.server() as running:
        s3.reach(running, monkeypatch)
        monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "machine"))
        yield running


@pytest.mark.parametrize("end", ["body", "close"])
def test_what_a_slow_bucket_has_not_got_waits_for_the_next_start(
    server: s3.Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    end: str,
) -> None:
    url = server.make_bucket("slow")
    put = Bucket.put

    def slowly(self: Bucket, name: str, content: bytes) -> None:
        threading.Event().wait(1)
        put(self, name, content)

    monkeypatch.setattr(Bucket, "put", slowly)
    with pytest.raises(KeyboardInterrupt), results_folder(url, write=True) as results:
        for run_id in IDS:
            write(results.folder, run_id)
            results.push_run(run_id)
        start = time.monotonic()
        if end == "body":
            raise KeyboardInterrupt
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    assert time.monotonic() - start < SOON
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"--results {url}; " in said and "files wait in" in said and "sends them" in said
    monkeypatch.setattr(Bucket, "put", put)
    with results_folder(url, write=True):
        pass
    assert len(open_storage(url).names("runs")) == len(IDS)


def test_what_is_sent_in_time_needs_no_word(
    server: s3.Server, capsys: pytest.CaptureFixture[str]
) -> None:
    url = server.make_bucket("quick")
    with pytest.raises(KeyboardInterrupt), results_folder(url, write=True) as results:
        write(results.folder, IDS[0])
        results.push_run(IDS[0])
        (results.folder / "grids" / "quick.log").write_bytes(b"a log is no result")
        raise KeyboardInterrupt
    assert capsys.readouterr().err == ""
    assert len(open_storage(url).names("runs")) == 1


INTERRUPTED = """
import sys
from bench.storage.bucket import Bucket
from bench.store.mirror import results_folder
from tests.test_mirror import IDS, write
try:
    with results_folder(sys.argv[1], write=True) as results:
        print(results.folder, flush=True)
        sys.stdin.readline()  # by now the server is mute
        if sys.argv[2] == "push":
            write(results.folder, IDS[0])
            results.push_run(IDS[0])
            raise KeyboardInterrupt
        real = Bucket.listing

        def listing(*given):
            print("lists", flush=True)
            return real(*given)

        Bucket.listing = listing
        results.fetch("weights/")
except KeyboardInterrupt:
    print("to go on", flush=True)
    sys.exit(130)
"""


@pytest.mark.parametrize("what", ["push", "fetch"])
def test_a_mute_bucket_holds_up_neither_the_command_nor_the_end_of_the_process(
    server: s3.Server, what: str
) -> None:
    url = server.make_bucket("mute")
    program = [sys.executable, "-c", INTERRUPTED, url, what]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(program, text=True, **pipes) as running:  # type: ignore[call-overload]
        folder = Path(running.stdout.readline().strip())
        os.kill(server.process.pid, signal.SIGSTOP)
        start = time.monotonic()
        running.stdin.write("\n")
        running.stdin.flush()
        if what == "fetch":
            assert running.stdout.readline() == "lists\n"
            time.sleep(0.5)  # by now it waits inside a library
            running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
        took = time.monotonic() - start
    os.kill(server.process.pid, signal.SIGCONT)
    assert (running.returncode, out) == (130, "to go on\n"), err
    assert ("2 files wait in" in err) == (what == "push") and "Traceback" not in err
    assert took < SOON
    if what == "push":
        with results_folder(url, write=True) as results:
            assert results.folder == folder
            assert store.statuses(results.folder, IDS) == {IDS[0]: "ok"}
        assert len(open_storage(url).names("runs")) == 1
