"""Corpora: spellings, hashes, tokens, the cache, columns and windows, and their bad inputs."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.corpora import (
    Corpus,
    canonical,
    check_length,
    default_data_dir,
    identity,
    load,
    text_hash,
)
from bench.corpora.windows import columns, evaluation_columns, in_text_order, windows
from bench.errors import BadInput
from bench.synthetic import generate

NOWHERE = Path("/no data folder is needed here")
TEXTS = {"train": "a b <unk> a\n\n b a c\n", "valid": "a d\nd e\n", "test": "a\n"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tokens"


def folder(where: Path, **changed: str | bytes | None) -> str:
    """Writes three texts, some of them changed (None: left out); returns the corpus' spelling."""
    where.mkdir(exist_ok=True)
    for split, text in (TEXTS | changed).items():
        if text is not None:
            data = text.encode() if isinstance(text, str) else text
            (where / f"{split}.txt").write_bytes(data)
    return f"folder:path={where}"


def words(corpus: Corpus, split: str) -> str:
    return " ".join(corpus.vocab[i] for i in getattr(corpus, split))


# Spellings


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("ptb", "ptb"),
        ("synthetic", "synthetic"),
        ("synthetic:train=200000:seed=0:valid=20000", "synthetic"),
        ("synthetic:train=050000:seed=1", "synthetic:seed=1:train=50000"),
        ("synthetic:train=50000:test=5000", "synthetic:train=50000"),
        ("synthetic:valid=5000:train=50000:test=4", "synthetic:test=4:train=50000"),
        ("synthetic:valid=20000:train=50000", "synthetic:train=50000:valid=20000"),
        ("synthetic:valid=1:train=1", "synthetic:train=1"),
        ("folder:path=/a:b/c=d", "folder:path=/a:b/c=d"),
        ("folder:path=/a/../b", "folder:path=/b"),
    ],
)
def test_canonical(written: str, expected: str) -> None:
    assert canonical(written) == canonical(expected) == expected
    assert identity(written) == ("folder" if expected.startswith("folder") else expected)


def test_a_relative_folder_becomes_absolute() -> None:
    assert canonical("folder:path=x") == f"folder:path={Path.cwd() / 'x'}"


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ("pbt", "Did you mean ptb?"),
        ("wikitext2", "Did you mean wikitext-2"),
        ("", "Known: folder, ptb, synthetic, wikitext-2"),
        ("../x", "unknown"),
        ("x" * 300 + "\n", "unknown"),
        ("ptb:seed=1", "takes no options"),
        ("synthetic:trian=5", "Did you mean train"),
        ("synthetic:train", "Write key=value"),
        ("synthetic:", "has no value"),
        ("synthetic:train=ten", "whole number from 1 to 20000000"),
        ("synthetic:train=0", "from 1"),
        ("synthetic:train=-5", "from 1"),
        ("synthetic:train=5_000", "from 1"),
        ("synthetic:train=\u0665", "from 1"),
        ("synthetic:test=" + "9" * 10_000, "from 1"),
        ("synthetic:train=1e5", "from 1"),
        ("synthetic:seed=9223372036854775808", "from 0"),
        ("synthetic:seed=1:seed=1", "twice"),
        ("folder", "folder:path=DIR"),
        ("folder:path=", "folder:path=DIR"),
        ("folder:dir=/x", "folder:path=DIR"),
        ("folder:path=a\0b", "folder:path=DIR"),
    ],
)
def test_bad_spellings(written: str, named: str) -> None:
    for reads in (canonical, identity, lambda spelling: text_hash(spelling, NOWHERE)):
        with pytest.raises(BadInput) as caught:
            reads(written)
        assert named in str(caught.value)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


# Texts and tokens


def test_tokens_of_a_folder(tmp_path: Path) -> None:
    spelling = folder(tmp_path / "texts")
    corpus = load(spelling, NOWHERE)
    assert words(corpus, "train") == "a b <unk> a <eos> <eos> b a c <eos>"
    assert words(corpus, "valid") == "a <unk> <eos> <unk> <unk> <eos>"
    assert corpus.vocab == ("a", "b", "<unk>", "<eos>", "c")
    assert corpus.oov == {"valid": (2, 3), "test": (0, 0)}
    assert corpus.hash == text_hash(spelling, NOWHERE)
    assert corpus.source_nll is None
    # Of 10 tokens in train, 1 is <unk> and 3 are <eos>; the first token is not predicted.
    expected = -(3 * math.log(1 / 10) + 2 * math.log(3 / 10)) / 5
    assert corpus.unigram_nll["valid"] == pytest.approx(expected)
    for ids in (corpus.train, corpus.valid, corpus.test):
        assert ids.dtype == np.int32 and isinstance(ids, np.memmap) and not ids.flags.writeable


def test_unk_is_added_only_if_it_is_needed_and_absent(tmp_path: Path) -> None:
    assert "<unk>" not in load(folder(tmp_path / "1", train="a d e\n"), NOWHERE).vocab
    corpus = load(folder(tmp_path / "2", train="a b\n"), NOWHERE)
    assert corpus.vocab == ("a", "b", "<eos>", "<unk>")
    # <unk> has no count in train, so each word of the vocabulary gets one more: 7 in all.
    expected = -(3 * math.log(1 / 7) + 2 * math.log(2 / 7)) / 5
    assert corpus.unigram_nll["valid"] == pytest.approx(expected)


@given(text=st.text(alphabet="ab \n\r\t\u3000é𝄞", min_size=1).map(lambda t: "x" + t))
@settings(max_examples=60, deadline=None)
def test_tokens_equal_a_plain_reading(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    lines = text.removesuffix("\n").split("\n")
    expected = [word for line in lines for word in (*line.split(), "<eos>")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.corpora.tokens.BLOCK", 5)  # words and characters are cut everywhere
        patch.setattr("bench.corpora.texts.BLOCK", 3)
        spelling = folder(tmp_path_factory.mktemp("texts"), train=text, valid=text, test=text)
        corpus = load(spelling, NOWHERE)
    for split in ("train", "valid", "test"):
        assert words(corpus, split).split(" ") == expected


@pytest.mark.parametrize(
    "files", ["ptb.{}.txt", "wiki.{}.tokens", "{}.tokens", "my-{}.raw", "{}ation.en"]
)
def test_names_of_files_in_a_folder(files: str, tmp_path: Path) -> None:
    for split, text in TEXTS.items():
        (tmp_path / files.format(split)).write_text(text, encoding="utf-8")
    (tmp_path / ".test.swp").write_text("an editor's")
    assert text_hash(f"folder:path={tmp_path}", NOWHERE) == text_hash(
        folder(tmp_path / "plain"), NOWHERE
    )


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"valid": None}, "no text for valid; add valid.txt"),
        ({"test": ""}, "test.txt is empty"),
        ({"test": " \n\n"}, "test.txt holds no word"),
        ({"train": b"a\nb \xff c\n"}, "train.txt is not UTF-8: byte 4 (line 2) is 0xff"),
        ({"train": b"a\n" * 2**20 + b"\xc3"}, "byte 2,097,152 (line 1,048,577) is 0xc3"),
        ({"train": "ab\n".encode("utf-16")}, "not UTF-8: byte 0 (line 1) is 0xff"),
    ],
)
def test_bad_texts(changed: dict[str, str | bytes | None], named: str, tmp_path: Path) -> None:
    spelling = folder(tmp_path / "texts", **changed)
    for reads in (text_hash, load):
        with pytest.raises(BadInput, match=re.escape(named)):
            reads(spelling, NOWHERE)
    assert not (tmp_path / "cache").exists(), "nothing was written"


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no folder that can be read"):
        text_hash(f"folder:path={tmp_path / 'absent'}", NOWHERE)
    spelling = folder(tmp_path, train=None)
    for name in ("a.train", "b.train"):
        (tmp_path / name).write_text("a")
    with pytest.raises(BadInput, match=r"several files for train \(a.train, b.train\)"):
        text_hash(spelling, NOWHERE)


def test_length(tmp_path: Path) -> None:
    corpus = load(folder(tmp_path / "texts", train="a b c\n" * 5), NOWHERE)  # 20 tokens
    check_length(corpus, bptt=4, batch_size=4)
    with pytest.raises(BadInput, match=r"20 tokens, 5 in each of 4 columns.*bptt 5"):
        check_length(corpus, bptt=5, batch_size=4)
    with pytest.raises(BadInput, match="0 in each of 40 columns"):
        check_length(corpus, bptt=1, batch_size=40)


def test_synthetic_corpus() -> None:
    spelling = "synthetic:train=3000:seed=4"
    corpus = load(spelling, NOWHERE)
    assert corpus.spelling == "synthetic:seed=4:train=3000"
    assert corpus.source_nll is not None
    for split, ids in (("valid", corpus.valid), ("test", corpus.test)):
        sample = generate(split, 300, 4)
        np.testing.assert_array_equal(corpus.source_nll[split], sample.nll)
        assert len(ids) == len(sample.nll)
    assert text_hash(spelling, NOWHERE) == corpus.hash != text_hash("synthetic:train=3000", NOWHERE)


@pytest.mark.parametrize(
    ("name", "tokens", "vocabulary", "unigram"),
    [
        ("ptb", (929_589, 73_760, 82_430), 10_000, 639.3),
        ("wikitext-2", (2_088_628, 217_646, 245_569), 33_278, 911.7),
    ],
)
def test_counts_of_real_text(
    name: str, tokens: tuple[int, ...], vocabulary: int, unigram: float, real_data: Path
) -> None:
    corpus = load(name, real_data)
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == tokens
    assert len(corpus.vocab) == vocabulary
    assert corpus.oov == {"valid": (0, 0), "test": (0, 0)}
    assert math.exp(corpus.unigram_nll["test"]) == pytest.approx(unigram, abs=0.06)


# Columns and windows


@given(n=st.integers(1, 300), batch_size=st.integers(1, 8), bptt=st.integers(1, 40))
def test_windows_predict_each_token_of_a_column_once(n: int, batch_size: int, bptt: int) -> None:
    cols = columns(np.arange(n, dtype=np.int32), batch_size)
    assert cols.shape == (n // batch_size, batch_size)
    assert cols.t().reshape(-1).tolist() == list(range(n // batch_size * batch_size))
    parts = list(windows(cols, bptt))
    assert all(len(tokens) == bptt for tokens, _ in parts[:-1])
    for tokens, targets in parts:
        assert 1 <= len(tokens) <= bptt
        assert tokens.dtype == targets.dtype == torch.int64 and tokens.is_contiguous()
        assert torch.equal(tokens + 1, targets)
    if parts:
        assert torch.equal(torch.cat([targets for _, targets in parts]), cols[1:].long())
        assert torch.equal(torch.cat([tokens for tokens, _ in parts]), cols[:-1].long())


@given(count=st.integers(2, 200), n=st.integers(1, 30))
def test_evaluation_predicts_each_token_but_the_first_once(count: int, n: int) -> None:
    tokens, targets = evaluation_columns(np.arange(count, dtype=np.int32), n)
    assert tokens.shape == targets.shape == (-(-(count - 1) // n), n)
    real = targets >= 0
    assert int(real.sum()) == count - 1
    assert torch.equal(targets[real], tokens[real] + 1)
    assert in_text_order(targets, count - 1).tolist() == list(range(1, count))
    for c in range(1, n):
        if real[0, c]:
            assert tokens[0, c] == targets[-1, c - 1]


# Light imports, places


def test_importing_corpora_is_light() -> None:
    code = (
        "import sys, bench.corpora, bench.corpora.__main__, bench.synthetic as s; s.source();"
        "print({'torch', 'numpy', 'ray', 'pandas', 'pooch', 'requests'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_DATA", str(tmp_path))
    assert default_data_dir() == tmp_path
    monkeypatch.delenv("BENCH_DATA")
    monkeypatch.delenv("BENCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert default_data_dir() == tmp_path / "x" / "recurrent-bench" / "data"
