"""Downloads, from a server on this machine: sources that lie, fail, stall, and the right one."""

from __future__ import annotations

import hashlib
import io
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.corpora import download, load, text_hash
from bench.corpora.__main__ import app
from bench.corpora.sources import REMOTE, SPLITS, Remote, Source, Text
from bench.errors import BadInput

TEXTS = {"train": b" a b c \n b \n", "valid": b" a \n", "test": b" c \n"}
HTML = b"<html>gone away</html>"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for split, data in members.items():
            archive.writestr(f"set/{split}.tokens", data)
        archive.writestr("../../escaped.txt", b"out of the folder")
    return out.getvalue()


class Server:
    """Answers `/x/<split>` with what `pages` holds for `x`: bytes, a status, or a pause."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.agents: set[str] = set()
        self.pages: dict[str, bytes | int | float] = {"403": 403, "html": HTML, "slow": 1.5}
        self.pages |= {"zip": zipped(**TEXTS), "broken": zipped(**TEXTS)[:-30]}
        self.pages |= {"lacking": zipped(train=TEXTS["train"]), "long": b"x" * 200_000}
        self.pages |= {"bomb": zipped(**{split: b"a " * 10**6 for split in SPLITS})}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _, page, split = self.path.split("/")
                outer.asked.append(self.path)
                outer.agents.add(self.headers["User-Agent"])
                body = TEXTS[split] if page == "right" else outer.pages[page]
                if isinstance(body, float):
                    time.sleep(body)
                    body = 503
                if isinstance(body, int):
                    self.send_error(body)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a client that has read enough hangs up

        self.http = Quiet(("127.0.0.1", 0), Handler)

    def offer(self, monkeypatch: pytest.MonkeyPatch, *pages: str) -> None:
        """Makes `ptb` a corpus of three tiny texts, to be had from these pages in turn."""
        base = f"http://127.0.0.1:{self.http.server_port}"
        zips = ("zip", "broken", "lacking", "bomb", "html.zip")
        texts = {}
        for split in SPLITS:
            sources = [Source("http://127.0.0.1:9/")] if "dead" in pages else []
            for page in pages:
                if page in zips:
                    url = f"{base}/{page.removesuffix('.zip')}/all"
                    sources.append(Source(url, f"set/{split}.tokens"))
                elif page != "dead":
                    sources.append(Source(f"{base}/{page}/{split}"))
            data = TEXTS[split]
            names = f"ptb.{split}.txt", (f"{split}.txt",)
            texts[split] = Text(*names, len(data), sha256(data), tuple(sources))
        monkeypatch.setitem(REMOTE, "ptb", Remote("tiny", "ours", texts))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.http.shutdown()
    thread.join()
    server.http.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if not p.name.startswith(".")}


RIGHT = {f"ptb.{split}.txt": data for split, data in TEXTS.items()}


@pytest.mark.parametrize(
    "pages",
    [
        ("right",),
        ("403", "right"),
        ("html", "right"),
        ("dead", "right"),
        ("long", "html", "403", "right"),
        ("zip",),
        ("html.zip", "broken", "lacking", "bomb", "zip"),
    ],
    ids="-".join,
)
def test_the_first_source_that_is_right_is_taken(
    pages: tuple[str, ...], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.offer(monkeypatch, *pages)
    corpus = load("ptb", tmp_path / "data")
    assert corpus.vocab == ("a", "b", "c", "<eos>")
    assert files(tmp_path / "data" / "ptb") == RIGHT
    assert not list(tmp_path.rglob(".fetch-*")) and not list(tmp_path.rglob("escaped*"))
    assert len(set(server.asked)) == len(server.asked), "an archive is fetched once"
    assert {agent.split("/")[0] for agent in server.agents} == {"recurrent-bench"}
    asked = len(server.asked)
    load("ptb", tmp_path / "data")
    assert len(server.asked) == asked, "what is here is not fetched again"


@pytest.mark.parametrize(
    ("pages", "cause"),
    [
        (("html",), f"found SHA-256 {sha256(HTML)}, first bytes '<html>gone away</html>'"),
        (("html", "403"), "403"),
        (("dead",), "refused"),
        (("long",), "more than 65,5"),
        (("html.zip",), "not a zip file (first bytes '<html>gone"),
        (("bomb",), "more than 12 bytes"),
        (("slow",), "timed out"),
        ((), "no source"),
    ],
)
def test_no_source_works(
    pages: tuple[str, ...],
    cause: str,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(download, "TIMEOUT_S", (0.3, 0.3))
    server.offer(monkeypatch, *pages)
    with pytest.raises(BadInput) as caught:
        text_hash("ptb", tmp_path)
    message = str(caught.value)
    assert cause in message and "\n" not in message
    assert f"put it at {tmp_path / 'ptb' / 'ptb.train.txt'}" in message
    assert f"SHA-256 {sha256(TEXTS['train'])}" in message
    assert files(tmp_path / "ptb") == {}


def test_texts_that_are_here_are_used_under_either_name(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.offer(monkeypatch, "right")
    (tmp_path / "ptb").mkdir()
    (tmp_path / "ptb" / "train.txt").write_bytes(TEXTS["train"])
    (tmp_path / "ptb" / "ptb.test.txt").write_bytes(TEXTS["test"])
    text_hash("ptb", tmp_path)
    assert server.asked == ["/right/valid"]


def test_a_wrong_text_is_named_and_left_alone(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.offer(monkeypatch, "right")
    (tmp_path / "ptb").mkdir()
    wrong = tmp_path / "ptb" / "ptb.train.txt"
    wrong.write_bytes(HTML)
    with pytest.raises(BadInput) as caught:
        load("ptb", tmp_path)
    for part in (str(wrong), sha256(TEXTS["train"]), sha256(HTML), "first bytes '<html>"):
        assert part in str(caught.value)
    assert wrong.read_bytes() == HTML


def test_a_folder_that_cannot_be_written(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.offer(monkeypatch, "right")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(BadInput, match=r"ptb.train.txt, .* missing, and .* cannot be written"):
        text_hash("ptb", tmp_path / "file")
    text_hash("ptb", tmp_path / "data")
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(BadInput, match="set BENCH_CACHE to another folder"):
        load("ptb", tmp_path / "data")


def test_two_at_once_download_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.offer(monkeypatch, "right")
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: text_hash("ptb", tmp_path), range(4)))) == 1
    assert sorted(server.asked) == ["/right/test", "/right/train", "/right/valid"]


def test_fetch(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.offer(monkeypatch, "403", "right")
    done = CliRunner().invoke(app, ["fetch", "ptb", "--data-dir", str(tmp_path)])
    assert done.exit_code == 0
    assert "ptb is complete, hash" in done.output and "403" in done.output
    assert files(tmp_path / "ptb") == RIGHT
