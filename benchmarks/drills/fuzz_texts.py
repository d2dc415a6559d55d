"""What people write, fuzzed: grid files with `--set`, spellings, texts of a corpus, its cache."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import shutil
from pathlib import Path
from unittest.mock import patch

import numpy as np

from bench import synthetic
from bench.config import FIELDS, Grid, Trial, expand, load_grid, override, run_id, sources_of
from bench.config import objective as objectives
from bench.config.grid import PRESETS
from bench.corpora import Corpus, canonical, check_length, identity, load, text_hash
from bench.corpora.__main__ import show_corpus
from bench.plugins import Registry, find, select_cell, select_regularizers, spell_regularizers
from benchmarks.drills.fuzz_damage import damaged
from benchmarks.drills.fuzz_watch import Target

CORPUS = "synthetic:train=1500:valid=300:test=300"
CUT = b"\n%%\n"
"""Between the grid file and each `--set`, and between the texts of a corpus, in one input."""
MAX_TRIALS = 300
"""A larger product is read, not expanded: 200,000 trials are work that was asked for, no hang."""
_SPLITS = ("train", "valid", "test")


@functools.cache
def registry() -> Registry:
    """Returns the plugins of the tree, found once."""
    return find()


# --- grid files -----------------------------------------------------------------------------------


def read_grid(data: bytes, here: Path) -> None:
    """`bench.grid FILE --set … --dry-run` up to the run_ids: file, changes, expansion."""
    text, *sets = data.split(CUT)
    (here / "grid.yaml").write_bytes(text)
    grid = override(load_grid("grid.yaml"), [s.decode("utf-8", "surrogateescape") for s in sets])
    if not _small(grid):
        return
    trials = expand(grid, registry(), here / "data").trials
    ids = {run_id(trial, sources_of(trial, registry()), "text") for trial in trials}
    assert len(ids) == len(trials), "two trials of one run_id"
    for trial in trials:
        assert Trial.model_validate(trial.model_dump()) == trial


def _small(grid: Grid) -> bool:
    steps = [step for b in grid.blocks for axis in b.axes.values() for step in (b.base, *axis)]
    steps += [block.base for block in grid.blocks]
    if any("num_params" in step for step in steps):  # counting words may make or fetch a corpus
        corpora = {step["corpus"] for step in steps if "corpus" in step}
        if corpora != {CORPUS} or any("corpus" not in block.base for block in grid.blocks):
            return False
    sizes = (b.reps * math.prod(len(axis) for axis in b.axes.values()) for b in grid.blocks)
    return sum(sizes) <= MAX_TRIALS


_GRIDS = (
    f"base: {{corpus: '{CORPUS}', nhid: 10, epochs: 2}}\naxes: {{cell: [lstm, gru]}}\nreps: 2\n",
    "name: mine\nbase: &b {lr: 1e-7, dropouth: .3}\naxes:\n  size: [{nhid: 8}, {nhid: 9, lr: 2}]\n"
    "  regularizer: [none, 'ar:alpha=2+tar:beta=1']\n\n%%\nlr=1,2\n%%\ncell=gru",
    "blocks:\n- base: {cell: lstm}\n  reps: 2\n- axes: {optimizer: [sgd, nt-asgd]}\n",
    "include: [quick]\nkeep_weights: best\n\n%%\nobjective=augmented:gamma=1",
    f"base: {{corpus: '{CORPUS}', num_params: 20k}}\naxes: {{cell: [lstm, qrnn]}}\n",
    "base: {eval_mc: none, tied: true, rep: 1, emsize: ~, min_lr: .inf, clip: .nan}\n",
)
GRID_WORDS = [
    *FIELDS, "num_params", "name", "description", "base", "axes", "reps", "blocks", "include",
    "keep_weights", "best", "none", "nt-asgd", "fp64", "augmented", "quick", "grid.yaml", CORPUS,
    "folder:path=", "true", "null", ".nan", "-.inf", "1e400", "0x1f", "2026-01-01", "9" * 40,
    "!!int ", "!!bool ", "!!float ", "!!null ", "!!binary ", "!!set ", "!!python/object:os.system ",
    "!!timestamp ", "%YAML 1.1\n", "%TAG ! x", "&a ", "*a", "<<: ", "? ", "- ", ": ", "--- ",
    "...\n", "|2-\n", ">+\n", "{}", "[]", "'", '"', "\\x", "\n%%\n", "\n  ", "\t", "\u2028",
    "\x85", "\ufeff", "\0",
]  # fmt: skip


def _grid_seeds() -> list[bytes]:
    presets = [path.read_bytes() for path in sorted(PRESETS.glob("*.yaml"))]
    return [text.encode() for text in _GRIDS] + presets


# --- spellings ------------------------------------------------------------------------------------


def read_spelling(data: bytes, here: Path) -> None:
    """A cell, regularizer, objective or corpus; its canonical spelling is one that stays."""
    kind, text = data[:1], data[1:].decode("utf-8", "surrogateescape")
    if kind == b"c":
        cell = select_cell(text, registry())
        assert select_cell(cell.spelling, registry()) == cell
    elif kind == b"r":
        chosen = select_regularizers(text, registry())
        assert select_regularizers(spell_regularizers(chosen), registry()) == chosen
    elif kind == b"o":
        spelled = objectives.canonical(text)
        assert objectives.canonical(spelled) == spelled
        assert objectives.parse(spelled) == objectives.parse(text)
    else:
        spelled = canonical(text)
        assert canonical(spelled) == spelled and identity(spelled) == identity(text)


_SPELLINGS = (
    "clstm", "clstm_zoneout:zc=0.25:zh=0.025", "crhn:depth=5", "cqrnn:window=2", "cdir/x.y-z",
    "rnone", "rar:alpha=2+tar:beta=1", "rtar:form=norm:layers=all:of=raw", "rl1:alpha=-1e-7",
    "onll", "oaugmented:gamma=0.5:tau=20", "kptb", "kwikitext-2", "kfolder:path=~/x:y=z",
    f"k{CORPUS}:seed=1",
)  # fmt: skip
SPELLING_WORDS = [
    ":", "=", "+", ",", "-", ".", "/", "~", "e", "inf", "nan", "true", "False", "1e400", "-0",
    "1_0", "０", "٣", "\0", "\u2028", "../", "~nemo", "alpha", "beta", "train", "valid", "seed",
    "path", "folder:path=", "9" * 30,
]  # fmt: skip


# --- texts of a corpus, and their cache -----------------------------------------------------------


def read_corpus(data: bytes, here: Path) -> None:
    """`folder:path=DIR`: hash, words, cache; every word is where `str.split` has it."""
    parts = data.removeprefix(_MADE_UP).split(CUT)
    if data.startswith(_MADE_UP):
        parts = ["".join(_LETTERS[b % len(_LETTERS)] for b in part).encode() for part in parts]
    texts = dict(zip(_SPLITS, parts, strict=False))
    _lay(here, texts)
    found = text_hash(_TEXTS, here)
    corpus = load(_TEXTS, here, found)
    _sound(corpus)
    train = _words(texts["train"])
    assert [corpus.vocab[i] for i in corpus.train] == train
    for split, ids in (("valid", corpus.valid), ("test", corpus.test)):
        words = [word if word in set(train) else "<unk>" for word in _words(texts[split])]
        assert [corpus.vocab[i] for i in ids] == words
    again = load(_TEXTS, here / "nowhere", found)  # from the cache, without the text
    assert again.vocab == corpus.vocab and (again.test == corpus.test).all()
    check_length(corpus, bptt=3, batch_size=2)


_TEXTS = "folder:path=texts"
_MADE_UP = b"%"
"""Begins an input whose bytes choose letters: random bytes are UTF-8 too rarely."""
_LETTERS = "ab é漢😀\n\n\r\t\v\0\x1c\x1f\x7f\x85\xa0\u2028\u3000\ufeff\u200b<>%"


def _lay(here: Path, texts: dict[str, bytes]) -> None:
    (here / "texts").mkdir()
    for split, text in texts.items():
        (here / "texts" / f"{split}.txt").write_bytes(text)


def _words(text: bytes) -> list[str]:
    ended = text if text.endswith(b"\n") else text + b"\n"
    return ended.decode().replace("\n", " <eos> ").split()


def _sound(corpus: Corpus) -> None:
    """Asserts what the loop relies on."""
    for ids in (corpus.train, corpus.valid, corpus.test):
        assert ids.dtype == np.int32 and ids.ndim == 1 and not ids.flags.writeable
        assert len(ids) == 0 or 0 <= ids.min() <= ids.max() < len(corpus.vocab)
    assert all(isinstance(corpus.unigram_nll[split], float) for split in ("valid", "test"))
    for nll in (corpus.source_nll or {}).values():
        assert nll.dtype == np.float64 and nll.ndim == 1
    for types, tokens in corpus.oov.values():
        assert isinstance(types, int) and isinstance(tokens, int)


_CORPORA = (
    b"a b c\nb a\n\n%%\na b\n\n%%\nc d\n",
    "\ufeffa\r\nb\u2028c\x85d\xa0e\n\n%%\n\u3000f \x1c g\n\n%%\n<unk> <eos>\n".encode(),
    b"a\0b \xff\xfe\n\n%%\n \n\n%%\n",
    b"%" + bytes(range(60)) + CUT + b"\0\1\2\6\0" + CUT + bytes(range(1, 40)),
    b"a " * 40 + CUT + b"a" * 400 + CUT + "é漢😀".encode(),
)


def read_cache(data: bytes, here: Path) -> None:
    """A damaged file of a cached corpus is seen and made again, or harms nobody."""
    spelling = ("synthetic:train=60:valid=20:test=20", _TEXTS)[data[:1] > b"m"]
    _lay(here, {split: b"a b c\nb a\n" * 4 + split.encode() for split in _SPLITS})
    found, files = _cached(spelling, here)
    for number, (name, content) in enumerate(files.items()):
        file = here / "cache" / "tokens" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        hit = number == int.from_bytes(data[1:2]) % len(files)
        file.write_bytes(damaged(content, data[2:]) if hit else content)
    with patch("bench.synthetic.generate", _generated), contextlib.redirect_stdout(io.StringIO()):
        _sound(load(spelling, here, found))
        show_corpus(spelling, here)


_generated = functools.cache(synthetic.generate)
_made: dict[str, tuple[str, dict[str, bytes]]] = {}


def _cached(spelling: str, here: Path) -> tuple[str, dict[str, bytes]]:
    """Returns the hash of a corpus's text and the files of its cache, made the first time."""
    if spelling not in _made:
        found, folder = text_hash(spelling, here), here / "cache" / "tokens"
        load(spelling, here, found)
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
        _made[spelling] = found, {str(p.relative_to(folder)): p.read_bytes() for p in files}
        shutil.rmtree(folder)  # a file that is mapped must never shrink
    return _made[spelling]


def _cache_seeds() -> list[bytes]:
    recipes = [b"", b"e", b"t\x01\x00", b"t\xff\xff", b"e\x00\x40\x00\x00\x01\x00\x07\xff"]
    recipes += [b"w{}", b'w{"vocab": 1, "lengths": {}, "unigram_nll": {}, "oov": {}}', b"w\n\n"]
    return [bytes([k, n]) + r for k in b"az" for n in range(6) for r in recipes]


TARGETS = {
    "yaml": Target(
        read_grid,
        (".yaml", ".yml", "/", "preset", "--set", "cell ", "regularizer "),
        _grid_seeds,
        tuple(word.encode() for word in GRID_WORDS),
    ),
    "spelling": Target(
        read_spelling,
        ("cell", "regularizer", "objective", "corpus"),
        lambda: [text.encode() for text in _SPELLINGS],
        tuple(word.encode() for word in SPELLING_WORDS),
    ),
    "corpus": Target(
        read_corpus,
        ("corpus ",),
        lambda: list(_CORPORA),
        (CUT, b"\r\n", b"\xef\xbb\xbf", "\u2028".encode(), b"\xc2\x85", b"\0", b"<unk>", b"<eos>"),
    ),
    "cache": Target(
        read_cache,
        ("corpus ",),
        _cache_seeds,
        (b'"vocab"', b'"lengths"', b'"unigram_nll"', b'"oov"', b"NaN", b"1e999", b"null", b"[]"),
    ),
}
