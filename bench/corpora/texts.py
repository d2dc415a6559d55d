"""Where the texts of a corpus are, and the hash that stands for them in every record."""

from __future__ import annotations

import codecs
import hashlib
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from bench import synthetic
from bench.corpora import download
from bench.corpora.sources import REMOTE, SPLITS
from bench.corpora.spelling import FOLDER, SYNTHETIC, folder_path, parse, synthetic_options
from bench.errors import BadInput, one_line

BLOCK = 2**18  # bytes read at a time: a text is never held whole, and a block stays in the cache


def cache_dir() -> Path:
    """Returns the folder for what can be made again, always one of the user's own.

    $BENCH_CACHE, else `recurrent-bench` in $XDG_CACHE_HOME, else in the platform's cache folder.
    """
    if own := os.environ.get("BENCH_CACHE"):
        return expanded(own, "BENCH_CACHE")
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return expanded(xdg, "XDG_CACHE_HOME") / "recurrent-bench"
    import pooch

    return Path(pooch.os_cache("recurrent-bench"))


def default_data_dir() -> Path:
    """Returns the folder that holds `ptb/` and `wikitext-2/`: $BENCH_DATA, else in the cache."""
    if own := os.environ.get("BENCH_DATA"):
        return expanded(own, "BENCH_DATA")
    return cache_dir() / "data"


def expanded(path: str | Path, what: str) -> Path:
    """Returns a path, absolute, with its `~` or `~user` replaced; BadInput for a user unknown."""
    try:
        return Path(path).expanduser().absolute()
    except RuntimeError:
        said = one_line(path, 80)
        raise BadInput(f"{what} {said}: no such user has a home here; write a path") from None


def text_hash(spelling: str, data_dir: Path, say: download.Say = lambda line: None) -> str:
    """Returns the hash of a corpus: SHA-256 over the SHA-256 of its three texts, as 64 hex digits.

    Afterwards the texts are known to be there and right: `ptb` and `wikitext-2` are downloaded
    when missing and equal the pinned ones; those of a folder are UTF-8 and hold a word each. Raises
    BadInput otherwise. `say` gets a line per step of a download.
    """
    name, _ = parse(spelling)
    if name == SYNTHETIC:
        options = synthetic_options(spelling)
        return combined(dict(zip(SPLITS, _synthetic_hashes(*options.values()), strict=True)))
    if name in REMOTE:
        download.fetch(name, data_dir, say)
    found = {}
    for split, path in text_paths(spelling, data_dir).items():
        try:
            found[split] = _checked_hash(name, path) if name == FOLDER else download.sha256_of(path)
        except OSError as error:
            raise unreadable(name, path, error) from error
        if name in REMOTE:
            download.check(name, split, path, found[split])
    return combined(found)


def combined(hashes: Mapping[str, str]) -> str:
    """Returns the hash of a corpus from the SHA-256 (hex) of each split's text."""
    lines = "".join(f"{split} {hashes[split]}\n" for split in SPLITS)
    return hashlib.sha256(lines.encode()).hexdigest()


@lru_cache(maxsize=32)
def _synthetic_hashes(train: int, valid: int, test: int, seed: int) -> tuple[str, ...]:
    sizes = zip(SPLITS, (train, valid, test), strict=True)
    samples = (synthetic.generate(split, tokens, seed) for split, tokens in sizes)
    return tuple(hashlib.sha256(sample.text).hexdigest() for sample in samples)


def unreadable(name: str, path: Path, error: OSError) -> BadInput:
    """Returns the error for a text that is there but cannot be read."""
    return BadInput(f"corpus {name}: {path} cannot be read: {one_line(error.strerror, 80)}")


def text_paths(spelling: str, data_dir: Path) -> dict[str, Path]:
    """Returns the file of each split of a corpus that lies in files. Raises BadInput if missing."""
    name, _ = parse(spelling)
    if name == FOLDER:
        folder = folder_path(spelling)
        return {split: _in_folder(folder, split) for split in SPLITS}
    paths = {}
    for split in SPLITS:
        path = download.local_path(name, split, data_dir)
        if path is None:
            file = REMOTE[name].texts[split].name
            raise BadInput(f"corpus {name}: put {file} at {data_dir / name / file}")
        paths[split] = path
    return paths


def _in_folder(folder: Path, split: str) -> Path:
    """Returns `train.txt`, else `train.tokens`, else the one file with `train` in its name."""
    try:
        files = sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))
    except OSError as error:
        raise BadInput(
            f"corpus folder: {folder} is no folder that can be read "
            f"({one_line(error.strerror, 80)}); give folder:path=DIR"
        ) from error
    for exact in (f"{split}.txt", f"{split}.tokens"):
        for file in files:
            if file.name == exact:
                return file
    similar = [file for file in files if split in file.name.lower()]
    if len(similar) == 1:
        return similar[0]
    if similar:
        listed = one_line(", ".join(file.name for file in similar), 120)
        raise BadInput(
            f"corpus folder: {folder} has several files for {split} ({listed}); name the right "
            f"one {split}.txt"
        )
    raise BadInput(f"corpus folder: {folder} has no text for {split}; add {split}.txt")


def _checked_hash(name: str, path: Path) -> str:
    """Returns the SHA-256 of a text; raises BadInput unless it is UTF-8 and holds a word."""
    digest = hashlib.sha256()
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, lines, has_word = 0, 1, False
    with path.open("rb") as file:
        while True:
            block = file.read(BLOCK)
            digest.update(block)
            pending = len(decoder.getstate()[0])  # of a character that the last block cut
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                at = offset - pending + error.start
                line = lines + block[: max(0, error.start - pending)].count(b"\n")
                raise BadInput(
                    f"corpus {name}: {path} is not UTF-8: byte {at:,} (line {line:,}) is "
                    f"0x{error.object[error.start]:02x}; convert the file to UTF-8"
                ) from error
            if not block:
                break
            has_word = has_word or not (text.isspace() or not text)
            offset += len(block)
            lines += block.count(b"\n")
    if not has_word:
        what = "holds no word" if offset else "is empty"
        raise BadInput(f"corpus {name}: {path} {what}; put the text there")
    return digest.hexdigest()
