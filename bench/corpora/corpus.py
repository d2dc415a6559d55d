"""A corpus as arrays of word ids, memory-mapped from the cache.

The arrays live in the cache, in a folder named by the hash of the text, so a second trial on a
machine reads no text. Builders work in a folder of their own under a lock and rename it when it is
complete: what has the final name is whole, and what a killed builder left is removed by the next.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.corpora.sources import SPLITS
from bench.corpora.spelling import SYNTHETIC, canonical, parse
from bench.corpora.texts import cache_dir, text_hash
from bench.corpora.tokens import EVALUATED, FORMAT, build, digest_of, digests
from bench.errors import BadInput, one_line

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MAX_NLL = 700.0  # nats; its exponential is just a float


@dataclass(frozen=True, eq=False)
class Corpus:
    """A corpus as arrays of word ids.

    spelling: canonical. hash: of its texts, 64 hex digits.
    vocab: the word of each id, by first appearance in train; `<eos>` is one of them. Words of valid
        and test that train lacks are `<unk>`, which is added at the end if it is needed and absent.
    train, valid, test: int32 [N], read-only and memory-mapped.
    source_nll: for valid and test, float64 [N], the nats of each token under the source that made
        the text; None for text of unknown origin.
    unigram_nll: for valid and test, nats per token over tokens 1..N-1 under the word frequencies of
        train (plus one each, if a word of the vocabulary has no count).
    oov: for valid and test, how many word types and how many tokens train lacks.
    """

    spelling: str
    hash: str
    vocab: tuple[str, ...]
    train: NDArray[np.int32]
    valid: NDArray[np.int32]
    test: NDArray[np.int32]
    source_nll: dict[str, NDArray[np.float64]] | None
    unigram_nll: dict[str, float]
    oov: dict[str, tuple[int, int]]


def load(spelling: str, data_dir: Path, expected_hash: str | None = None) -> Corpus:
    """Returns the corpus, from the cache if it is there, else building the cache from the text.

    With `expected_hash` and a cache for it no text is read. Raises BadInput when the text is
    missing or wrong, when its hash is not the expected one, or when the cache cannot be written.
    """
    import filelock

    spelling = canonical(spelling)
    if expected_hash is not None:
        corpus = _open(spelling, expected_hash)
        if corpus is not None:
            return corpus
    found = text_hash(spelling, data_dir)
    if expected_hash is not None and found != expected_hash:
        raise BadInput(
            f"corpus {spelling}: its text here has hash {found}, expected {expected_hash}: use "
            "the same text on every machine, or start again"
        )
    corpus = _open(spelling, found)
    if corpus is not None:
        return corpus
    folder = _folder(spelling, found)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder.with_name(f"{folder.name}.lock")):
            corpus = _open(spelling, found)  # perhaps another process was quicker
            if corpus is None:
                _renew(spelling, found, data_dir, folder)
                corpus = _open(spelling, found)
    except OSError as error:
        raise BadInput(
            f"corpus {spelling}: its cache {folder} cannot be written "
            f"({one_line(error.strerror or error, 80)}); set BENCH_CACHE to another folder"
        ) from error
    if corpus is None:
        raise BadInput(f"corpus {spelling}: its cache {folder} is damaged; delete it")
    return corpus


def check_length(corpus: Corpus, *, bptt: int, batch_size: int) -> None:
    """Raises BadInput unless each of `batch_size` columns of train fills a window of `bptt`."""
    column = len(corpus.train) // batch_size
    if column < bptt + 1:
        raise BadInput(
            f"corpus {corpus.spelling}: train has {len(corpus.train):,} tokens, {column:,} in each "
            f"of {batch_size} columns: less than one window of bptt {bptt} + 1; use a longer text, "
            "or a smaller batch_size or bptt"
        )
    for split, ids in (("valid", corpus.valid), ("test", corpus.test)):
        if len(ids) < 2:
            raise BadInput(f"corpus {corpus.spelling}: {split} has fewer than 2 tokens")


def _folder(spelling: str, text: str) -> Path:
    # A folder with the very text of a synthetic sample shares its hash, but not its source nll.
    kind = "-synthetic" if parse(spelling)[0] == SYNTHETIC else ""
    return cache_dir() / "tokens" / f"{text}-v{FORMAT}{kind}"


def _open(spelling: str, text: str) -> Corpus | None:
    """Returns the corpus from the cache, or None if it is absent or damaged."""
    import numpy as np

    folder = _folder(spelling, text)
    try:
        meta = json.loads((folder / "meta.json").read_bytes())
        # A bit that flipped is another text under this one's hash. Caches from before there were
        # checksums have none, and are made again.
        if meta.get("sha256") != digest_of(meta) or meta["files"] != digests(folder):
            return None
        vocab = tuple((folder / "vocab.txt").read_bytes().decode().split("\n")[:-1])
        arrays = {file.stem: np.load(file, mmap_mode="r") for file in folder.glob("*.npy")}
        if len(vocab) != meta["vocab"] or {k: len(a) for k, a in arrays.items()} != meta["lengths"]:
            return None
        source_nll = {s: arrays[f"{s}-nll"] for s in EVALUATED if f"{s}-nll" in arrays}
        if not all(_are_ids(arrays[split], len(vocab)) for split in SPLITS):
            return None
        if not all(_are_nats(nll, len(arrays[split])) for split, nll in source_nll.items()):
            return None
        return Corpus(
            spelling,
            text,
            vocab,
            arrays["train"],
            arrays["valid"],
            arrays["test"],
            source_nll=source_nll or None,
            unigram_nll={split: _nats(meta["unigram_nll"][split]) for split in EVALUATED},
            oov={split: _two_counts(*meta["oov"][split]) for split in EVALUATED},
        )
    except Exception:  # a cut or foreign file raises anything, a tokenize.TokenError too
        return None


def _are_ids(array: NDArray[Any], words: int) -> bool:
    """Whether these are ids of so many words; another one would end training, on a GPU all of it.

    Reads the array once, which takes 4 ms for each ten million tokens that are in memory.
    """
    if array.dtype != "int32" or array.ndim != 1:
        return False
    return len(array) == 0 or bool(array.min() >= 0 and array.max() < words)


def _are_nats(array: NDArray[Any], tokens: int) -> bool:
    """Whether this is an nll for each of so many tokens."""
    if array.dtype != "float64" or array.shape != (tokens,):
        return False
    return tokens == 0 or bool(array.min() >= 0 and array.max() < _MAX_NLL)


def _nats(value: object) -> float:
    # NaN is that of a split of one token, which `check_length` refuses in its own words.
    if not isinstance(value, float) or value < 0 or value >= _MAX_NLL:
        raise ValueError
    return value


def _two_counts(types: object, tokens: object) -> tuple[int, int]:
    if not isinstance(types, int) or not isinstance(tokens, int):
        raise ValueError
    return types, tokens


def _renew(spelling: str, text: str, data_dir: Path, folder: Path) -> None:
    """Makes the cached folder of a corpus. The caller holds its lock."""
    for left in folder.parent.glob(f".{folder.name}.*"):  # by a builder that was killed
        shutil.rmtree(left)
    work = folder.with_name(f".{folder.name}.{os.getpid()}")
    work.mkdir()
    try:
        if build(spelling, data_dir, work) != text:
            raise BadInput(f"corpus {spelling}: its text changed while it was read; start again")
        if folder.exists():  # damaged: _open refused it
            shutil.rmtree(folder)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
