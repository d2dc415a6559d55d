"""Grid files, spellings and corpora made by rules: as YAML and text can be, not as people write."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.drills.fuzz_texts import CORPUS, CUT, GRID_WORDS, SPELLING_WORDS, TARGETS
from benchmarks.drills.fuzz_watch import Target
from tests.fuzzing import fed, often

Feed = Callable[[Target, bytes], None]


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Feed]:
    with fed(tmp_path_factory.mktemp("fuzz")) as one:
        yield one


# --- YAML, as text: what yaml.dump never writes ---------------------------------------------------

SCALARS = st.one_of(
    st.sampled_from(
        ["~", "null", "true", "on", "''", '"\\x41"', '"\\ud800"', ".nan", "-.INF", ".5", "5.",
         "0x1f", "0o17", "1_000", "1:30", "2026-01-01", "2026-01-01T00:00:00Z", "1e400", "-0.0",
         "9" * 400, "1" + "0" * 5000, "=", "<<", "[", "{}", "[]", "lstm", "ar:alpha=2", CORPUS,
         "'none'", "quick", "grid.yaml", "folder:path=/", "24M", "1e5"]
    ),
    st.sampled_from([word for word in GRID_WORDS if "\n" not in word]),
    st.integers().map(str),
    st.floats(allow_subnormal=False).map(str),
    st.dates().map(str),
    st.text(max_size=8),
)  # fmt: skip
TAGS = st.sampled_from(
    ["", "", "", "&a ", "&b ", "!!int ", "!!float ", "!!bool ", "!!null ", "!!str ", "!!binary ",
     "!!set ", "!!omap ", "!!timestamp ", "!!python/name:os.system ", "!x ", "! ", "!<tag:a> "]
)  # fmt: skip
KEYS = st.sampled_from([w for w in GRID_WORDS[:45] if w.isidentifier()] + ["<<", "? a", "size"])


def _flow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.tuples(KEYS, inner).map(": ".join)
    return st.tuples(
        TAGS,
        st.one_of(
            st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
            st.lists(pairs, max_size=3).map(lambda items: f"{{{', '.join(items)}}}"),
            st.tuples(st.integers(1, 400), inner).map(lambda x: "[" * x[0] + x[1] + "]" * x[0]),
        ),
    ).map("".join)


LEAVES = st.one_of(st.tuples(TAGS, SCALARS).map("".join), st.sampled_from(["*a", "*b"]))
NODES = st.recursive(LEAVES, _flow, max_leaves=8)
PART = st.tuples(st.sampled_from(["base", "axes", "blocks", "include", "reps", "name"]), NODES)
GOOD = f"base: &a {{corpus: '{CORPUS}', nhid: 9}}\n"
FILES = st.tuples(st.sampled_from(["", GOOD, "%YAML 1.1\n---\n"]), st.lists(PART, max_size=4)).map(
    lambda file: file[0] + "".join(f"{key}: {node}\n" for key, node in file[1])
)
FIELD = st.sampled_from(GRID_WORDS[:40])
SETS = st.lists(st.tuples(FIELD, st.one_of(SCALARS, st.text())).map("=".join), max_size=2)


@often(80)
@given(FILES, SETS)
@example("base: &a {cell: lstm}\naxes: {size: [{<<: *a}, *a]}\n", [])
@example("a: " + "[" * 100_000, [])
@example("".join(f"x{n}: &x{n} [{f'*x{n - 1}, ' * 9}]\n" for n in range(1, 9)), ["lr=1"])
@example(f"base: {{lr: 1{'0' * 5000}}}", ["nhid=" + "9" * 5000])
@example("base: !!float []\n", [])
@example("base: {lr: !!int {a: 1}}\n", [])
@example("blocks: []\nname: !!binary aGk=\n", ["cell=\ud800"])
def test_any_grid_file_is_trials_or_one_line(feed: Feed, text: str, sets: list[str]) -> None:
    words = [word.encode("utf-8", "backslashreplace") for word in (text, *sets)]
    feed(TARGETS["yaml"], CUT.join(words))


# --- spellings ------------------------------------------------------------------------------------

NAMES = st.sampled_from(
    ["lstm", "lstm_zoneout", "rhn", "qrnn", "eunn", "none", "ar", "tar", "l1", "nll", "augmented",
     "ptb", "synthetic", "folder", "wikitext-2", "LSTM", "", "../ar", "a b"]
)  # fmt: skip
OPTION = st.tuples(
    st.sampled_from(["zc", "zh", "depth", "window", "alpha", "beta", "of", "layers", "form",
                     "gamma", "tau", "train", "seed", "path", "", "x", "__class__"]),
    st.sampled_from(["=", "=", "=", "==", ""]),
    st.one_of(
        st.sampled_from([*SPELLING_WORDS, "raw", "all", "norm", "1e-3", "0.50", "+1", "007"]),
        st.integers().map(str), st.floats().map(repr), st.text(max_size=6),
    ),
).map("".join)  # fmt: skip
SELECTION = st.tuples(NAMES, st.lists(OPTION, max_size=3)).map(lambda s: ":".join([s[0], *s[1]]))


@often(300)
@given(st.sampled_from("crok"), st.lists(SELECTION, min_size=1, max_size=3).map("+".join))
@example("c", "rhn:depth=" + "9" * 5000)
@example("o", "augmented:gamma=-0")
@example("k", "synthetic:train=٣")
@example("k", "folder:path=~nemo\x00")
def test_any_spelling_has_one_canonical_form_or_one_line(feed: Feed, kind: str, text: str) -> None:
    feed(TARGETS["spelling"], (kind + text).encode("utf-8", "surrogatepass"))


# --- texts of a corpus ----------------------------------------------------------------------------

ODD = "ab é漢😀\n\r\t\v\0\x1c\x1f\x7f\x85\xa0\u2028\u2029\u3000\ufeff\u200b<>"
TEXTS = st.one_of(
    st.text(st.sampled_from(ODD)).map(str.encode),
    st.text(st.characters(codec="utf-8")).map(str.encode),
    st.text(st.sampled_from(ODD)).map(lambda text: text.encode("utf-16")),
    st.lists(st.sampled_from([b"<eos>", b"<unk>", b"a", b" ", b"\r\n", b"\xef\xbb\xbf"])).map(
        b"".join
    ),
    st.binary(max_size=200),
    st.just(b"w " * 30),
)


@often(250)
@given(st.lists(TEXTS, max_size=3))
@example([b"a" * 2**20, b"a " * 2**18, "é".encode() * 2**18])
@example([b"", b"", b""])
@example(["\ufeffa b\r\n".encode() * 9, b"a\0b\n", "c\u2028d".encode()])
@example([b"a b c d e f g h \xc3", b"a", b"a"])
@example([b"\n" * 50, b"\n\n", b" \n \n"])
def test_any_three_texts_are_their_words_or_one_line(feed: Feed, texts: list[bytes]) -> None:
    feed(TARGETS["corpus"], CUT.join(texts))


META = b'w{"vocab": 4, "lengths": {}, "unigram_nll": {}, "oov": []}'
HEADER = b"w\x93NUMPY\x01\x00\x76\x00"


@often(15)
@given(
    st.sampled_from([b"a", b"z"]),
    st.integers(0, 5).map(lambda n: bytes([n])),
    st.tuples(st.sampled_from([b"e", b"t", b"z", b"w"]), st.binary(max_size=12)).map(b"".join),
)
@example(b"z", b"\x02", b"e\x45\x54\x54\x27")  # a word's id beyond the vocabulary
@example(b"z", b"\x00", META)
@example(b"a", b"\x01", b"e\xff\x76\x00\x7f")  # an nll beyond any exponent
@example(b"z", b"\x00", b"w" + b"[" * 100_000)
@example(b"z", b"\x01", HEADER + b"{'descr': '<i4', 'fortran_order': (".ljust(118))
def test_a_damaged_cache_is_made_again_or_whole(
    feed: Feed, kind: bytes, file: bytes, recipe: bytes
) -> None:
    feed(TARGETS["cache"], kind + file + recipe)
