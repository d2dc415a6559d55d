"""The cache of tokens under rough treatment, and the command line of the corpora."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.corpora import load
from bench.corpora.__main__ import app
from bench.errors import BadInput

TEXTS = {"train": b" a b c \n b \n", "valid": b" a \n", "test": b" c \n"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


@pytest.fixture
def spelling(tmp_path: Path) -> str:
    folder = tmp_path / "texts"
    folder.mkdir()
    for split, data in TEXTS.items():
        (folder / f"{split}.txt").write_bytes(data * 20_000)
    return f"folder:path={folder}"


def run_python(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_cached_corpus_needs_no_text(spelling: str, cache: Path) -> None:
    first = load(spelling, Path("/"))
    assert (cache / f"{first.hash}-v1" / "train.npy").exists()
    elsewhere = load("folder:path=/not here", Path("/"), first.hash)
    assert elsewhere.vocab == first.vocab and (elsewhere.train == first.train).all()
    with pytest.raises(BadInput, match="expected 0000"):
        load(spelling, Path("/"), "0" * 64)


def test_processes_that_build_at_once(spelling: str, cache: Path, tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from bench.corpora import load;"
        "import numpy, filelock; go = Path(sys.argv[2])\n"
        "while not go.exists(): time.sleep(0.001)\n"
        "c = load(sys.argv[1], Path('/')); print(c.hash, len(c.train), int(c.train.sum()))"
    )
    builders = [run_python(code, spelling, tmp_path / "go") for _ in range(3)]
    time.sleep(0.5)
    (tmp_path / "go").touch()
    said = {builder.communicate()[0] for builder in builders}
    corpus = load(spelling, Path("/"))
    assert said == {f"{corpus.hash} {len(corpus.train)} {int(corpus.train.sum())}\n"}
    assert [p.name for p in cache.iterdir() if p.is_dir()] == [f"{corpus.hash}-v1"]


def test_what_a_killed_builder_left_is_removed(spelling: str, cache: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from bench.corpora import corpus\n"
        "def build(spelling, data_dir, folder):\n"
        "    (folder / 'train.npy').write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "corpus.build = build; corpus.load(sys.argv[1], Path('/'))"
    )
    killed = run_python(code, spelling)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert [p.is_dir() for p in cache.glob(".*")] == [True]
    load(spelling, Path("/"))
    assert not list(cache.glob(".*"))


@pytest.mark.parametrize("name", ["meta.json", "vocab.txt", "train.npy", "test.npy"])
def test_a_damaged_cache_is_built_again(spelling: str, cache: Path, name: str) -> None:
    whole = load(spelling, Path("/"))
    ids = whole.train.tolist()
    damaged = cache / f"{whole.hash}-v1" / name
    del whole
    os.truncate(damaged, damaged.stat().st_size // 2)
    assert load(spelling, Path("/")).train.tolist() == ids
    damaged.unlink()
    assert load(spelling, Path("/")).train.tolist() == ids


@pytest.mark.parametrize("spelling", ["folder:path=TEXTS", "synthetic:train=2000"])
def test_a_flipped_bit_is_another_text_and_is_built_again(
    spelling: str, cache: Path, tmp_path: Path
) -> None:
    for split, data in TEXTS.items():
        (tmp_path / f"{split}.txt").write_bytes(data * 5)
    spelling = spelling.replace("TEXTS", str(tmp_path))
    text_hash = load(spelling, Path("/")).hash
    (folder,) = (p for p in cache.iterdir() if p.is_dir())
    contents = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert {"train.npy", "vocab.txt", "meta.json"} < contents.keys()
    for name, content in contents.items():
        for place in (len(content) // 2, len(content) - 4):
            spoilt = bytearray(content)
            spoilt[place] ^= 1
            (folder / name).write_bytes(spoilt)
            load(spelling, Path("/"), text_hash)
            assert {p.name: p.read_bytes() for p in folder.iterdir()} == contents, name


def test_a_cache_from_before_there_were_checksums_is_made_again(spelling: str, cache: Path) -> None:
    whole = load(spelling, Path("/"))
    meta = cache / f"{whole.hash}-v1" / "meta.json"
    said = json.loads(meta.read_text())
    meta.write_text(json.dumps({k: v for k, v in said.items() if k not in ("files", "sha256")}))
    assert load(spelling, Path("/"), whole.hash).oov == whole.oov
    assert json.loads(meta.read_text()) == said


# The command line


def test_show_and_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = CliRunner().invoke(app, ["show", "synthetic:train=2000"])
    assert shown.exit_code == 0
    for part in ("vocabulary", "oov tokens", "unigram ppl", "source ppl", "3.153437 nats"):
        assert part in shown.output
    listed = CliRunner().invoke(app, ["list", "--data-dir", str(tmp_path)])
    assert listed.output.count("not here yet") == 2 and str(tmp_path) in listed.output
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    assert CliRunner().invoke(app, []).output == listed.output


def test_bad_input_is_one_line_and_exit_code_2() -> None:
    command = [sys.executable, "-m", "bench.corpora", "show", "pbt"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "Did you mean ptb" in done.stderr
