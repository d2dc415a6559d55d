"""Words and their numbers: fast, and equal to the plain definition, whatever the text."""

from __future__ import annotations

import hashlib
import io
import json
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.corpora import load
from bench.corpora.tokens import _TO_SPACE, _WIDE_SPACE, _blocks, build, distinct
from bench.corpora.windows import columns, evaluation_columns

SPACES = "".join(c for c in map(chr, range(sys.maxunicode + 1)) if c.isspace())
# `|`, `<eos>` and `<unk>` mean something to the code; \0 and \x1b are no white space.
PIECES = st.sampled_from([*SPACES, *"aé𝄞|\0\x1b\x7f\ufeff\u200b", "<eos>", "<unk>", "word", "  "])


def plain(block: bytes) -> list[str]:
    return block.decode(errors="replace").replace("\n", " <eos> ").split()


def write(folder: Path, train: bytes, valid: bytes, test: bytes) -> str:
    folder.mkdir()
    for split, data in {"train": train, "valid": valid, "test": test}.items():
        (folder / f"{split}.txt").write_bytes(data)
    return f"folder:path={folder}"


@given(st.lists(PIECES).map("".join), st.sampled_from(" \n"))
@settings(deadline=None)  # the first call imports pyarrow
def test_distinct_words_give_the_tokens_of_a_plain_split(text: str, end: str) -> None:
    block = (text + end).encode()
    words, places = distinct(block)
    assert [words[place] for place in places] == plain(block)
    # By first appearance. A word with gaps of several lengths may stand there more than once.
    assert list(dict.fromkeys(words)) == list(dict.fromkeys(plain(block)))


@given(st.binary(max_size=40).map(lambda data: data + b"\n"))
@settings(deadline=None)
def test_bytes_that_are_no_utf8_are_read_as_ever(block: bytes) -> None:
    words, places = distinct(block)
    assert [words[place] for place in places] == plain(block)


@pytest.mark.parametrize("block", [b"", b" ", b" \t "])
def test_a_block_without_a_word(block: bytes) -> None:
    words, places = distinct(block)
    assert words == [] and len(places) == 0


def test_the_tables_hold_the_white_space_of_python_and_nothing_else() -> None:
    every = "".join(map(chr, (*range(0xD800), *range(0xE000, sys.maxunicode + 1))))
    wide = set(_WIDE_SPACE.findall(every))
    narrow = {chr(c) for c in range(256) if _TO_SPACE[c] == ord(" ")}
    assert wide | narrow == set(SPACES) and not wide & narrow
    kept = bytes(c for c in range(256) if chr(c) not in narrow)
    assert kept.translate(_TO_SPACE) == kept


@given(
    train=st.lists(PIECES).map(lambda parts: "a" + "".join(parts)),
    valid=st.lists(PIECES).map(lambda parts: "b" + "".join(parts)),
    block=st.integers(1, 40),
)
@settings(max_examples=50, deadline=None)
def test_a_built_folder_equals_the_definition(
    train: str, valid: str, block: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("corpus")
    texts = [train.encode(), valid.encode(), b"c\n"]
    spelling = write(folder / "texts", *texts)
    (folder / "built").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.corpora.tokens.BLOCK", block)
        patch.setattr("bench.corpora.tokens._CHUNK", 3)
        build(spelling, folder, folder / "built")
    tokens = [plain(re.sub(b"\n?$", b"\n", text, count=1)) for text in texts]
    vocab = list(dict.fromkeys(tokens[0]))
    lacking = [[word for word in split if word not in vocab] for split in tokens]
    if any(lacking) and "<unk>" not in vocab:
        vocab.append("<unk>")
    ids = {word: number for number, word in enumerate(vocab)}
    assert (folder / "built" / "vocab.txt").read_bytes().decode().split("\n") == [*vocab, ""]
    for name, split in zip(("train", "valid", "test"), tokens, strict=True):
        built = np.load(folder / "built" / f"{name}.npy")
        assert built.dtype == np.int32
        assert built.tolist() == [ids.get(word, ids.get("<unk>")) for word in split]
    meta = json.loads((folder / "built" / "meta.json").read_text())
    assert meta["vocab"] == len(vocab)
    assert meta["oov"] == {
        "valid": [len(set(lacking[1])), len(lacking[1])],
        "test": [len(set(lacking[2])), len(lacking[2])],
    }
    known = Counter(ids[word] for word in tokens[0])
    counts = np.array([known[number] for number in range(len(vocab))])
    p = (counts + (not counts.all())) / (counts + (not counts.all())).sum()
    predicted = np.load(folder / "built" / "valid.npy")[1:]
    assert meta["unigram_nll"]["valid"] == pytest.approx(-np.log(p[predicted]).mean())


@pytest.mark.parametrize("space", [c for c in SPACES if c.isascii()])
def test_memory_holds_one_block_of_a_line_without_end(
    space: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (("word" + space) * 500).encode()
    monkeypatch.setattr("bench.corpora.tokens.BLOCK", 64)
    blocks = list(_blocks(io.BytesIO(text), hashlib.sha256()))
    assert b"".join(blocks) == (text if space == "\n" else text + b"\n")
    assert max(map(len, blocks)) <= 64 + len("word ")
    assert all(block[-1:].decode() in (space, "\n") for block in blocks)


@pytest.mark.parametrize("text", [b"", b"\n", b" ", b"word", b"word\n", b"a\tb", b"x" * 99 + b"\r"])
def test_the_last_block_ends_a_line(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.corpora.tokens.BLOCK", 64)
    digest = hashlib.sha256()
    blocks = list(_blocks(io.BytesIO(text), digest))
    assert b"".join(blocks) == (text if text.endswith(b"\n") else text + b"\n")
    assert digest.digest() == hashlib.sha256(text).digest()


FORMAT_1 = {
    "meta.json": "a60a6fcdb92b",
    "test.npy": "4c15088abf60",
    "train.npy": "812f51c2c57c",
    "valid.npy": "3ec2ac2732e9",
    "vocab.txt": "73112c187a52",
}


def test_the_files_of_the_cache_are_those_of_format_1(tmp_path: Path) -> None:
    texts = "a b  <unk>\tè\n\n b\u3000a\rc\n".encode(), b"a d\nd e\n", b"a\n"
    spelling = write(tmp_path / "texts", *texts)
    (tmp_path / "built").mkdir()
    build(spelling, tmp_path, tmp_path / "built")
    found = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in tmp_path.glob("built/*")}
    assert {name: digest[:12] for name, digest in sorted(found.items())} == FORMAT_1


def test_columns_are_a_view_of_the_mapped_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    corpus = load(write(tmp_path / "texts", b"a b c\n" * 50, b"a\n", b"b c\n"), tmp_path)
    cols = columns(corpus.train, 7)
    assert np.shares_memory(cols.numpy(), corpus.train)
    assert cols[:, 1].tolist() == corpus.train[28:56].tolist()
    assert all(cut.element_size() == 4 for cut in evaluation_columns(corpus.test, 2))
