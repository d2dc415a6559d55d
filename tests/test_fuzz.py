"""Random YAML, random grids and random options: never a traceback, never a file elsewhere."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from bench.__main__ import VERBS, main
from bench.config import FIELDS, Trial, expand, load_grid, preset_names, run_id, sources_of
from bench.config.yaml12 import parse
from bench.errors import BadInput
from bench.plugins import find
from bench.store import prepare
from tests.fuzzing import often
from tests.grids import TINY

REGISTRY = find()
CORPUS = "synthetic:train=1500:valid=300:test=300"


WORDS = [
    *FIELDS, *preset_names(), "name", "base", "axes", "reps", "blocks", "include", "description",
    "keep_weights", "lstm", "gru", "none", "ar", "tar", "ar:alpha=2+tar:beta=1", "ar:alpha=x",
    "best", "synthetic", CORPUS, "folder:path=.", "sgd", "fp64", "made-up", "../x", "a/b",
    "x" * 300, "",
]  # fmt: skip
SCALARS = st.one_of(
    st.sampled_from(WORDS),
    st.text(max_size=20),
    st.integers(-3, 40),
    st.integers(),
    st.floats(allow_subnormal=False),  # training in this process flushes them
    st.booleans(),
    st.none(),
)
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)
    ),
    max_leaves=12,
)
BASES = st.dictionaries(st.sampled_from(list(FIELDS)), SCALARS, max_size=4)
SIZES = st.lists(
    st.one_of(SCALARS, st.dictionaries(st.sampled_from(list(FIELDS)), SCALARS, max_size=2)),
    max_size=3,
)
AXES = st.dictionaries(st.one_of(st.sampled_from(list(FIELDS)), st.just("size")), SIZES, max_size=3)
BLOCK = st.fixed_dictionaries(
    {},
    optional={"base": st.one_of(BASES, JUNK), "axes": st.one_of(AXES, JUNK), "reps": SCALARS},
)
GRIDS = st.one_of(
    JUNK,
    st.fixed_dictionaries(
        {},
        optional={
            "name": SCALARS,
            "base": st.one_of(BASES, JUNK),
            "axes": st.one_of(AXES, JUNK),
            "reps": st.one_of(st.integers(1, 3), SCALARS),
            "blocks": st.one_of(st.lists(BLOCK, max_size=3), JUNK),
            "include": st.one_of(st.lists(SCALARS, max_size=2), JUNK),
            "keep_weights": SCALARS,
        },
    ),
)
PIECES = [
    "a", "base", "axes", ": ", ":", "\n", "\n  ", "\n    ", "- ", "-", "? ", "[", "]", "{", "}",
    ",", "&x ", "*x", "*y", "<<", "!!int ", "!!bool ", "!!float ", "!!null ", "!!binary ", "!!set ",
    "!x ", "!", "|", ">", "|2-", "'", '"', "#", "%", "%YAML 1.1\n", "---", "...", "\t", "\r", "1",
    "1e-7", ".nan", "on", "~", "\0", "\x85", "\ufeff", "\ud800", "é", "\\", "\\x", "@", "`", "lstm",
]  # fmt: skip


def harmless(line: str) -> None:
    assert line and "\n" not in line and line.isprintable() and len(line) <= 1000


@often(500)
@given(st.one_of(st.text(), st.lists(st.sampled_from(PIECES), max_size=40).map("".join)))
@example("!!bool maybe: !!timestamp x")
@example("a: !!int {b: 1}")
@example("\ud800: 1")
def test_random_text_is_a_mapping_or_bad_input(text: str) -> None:
    try:
        assert isinstance(parse(text, "grid"), dict)
    except BadInput as error:
        harmless(str(error))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, some folders below the one that may be written."""
    folder = tmp_path / "a" / "b" / "c"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return folder


@often(200)
@given(GRIDS)
@example({"base": {"lr": 10**400}})
@example({"base": {"nhid": float("inf")}})
@example({"axes": {"size": [{}, {}]}})
def test_a_random_grid_expands_or_is_bad_input(here: Path, content: Any) -> None:
    path = here / "made-up.yaml"
    try:
        text = yaml.safe_dump(content, allow_unicode=True)
        path.write_text(text)
    except UnicodeEncodeError:
        path.write_text(json.dumps(content))
    try:
        expansion = expand(load_grid("made-up.yaml"), REGISTRY)
    except BadInput as error:
        harmless(str(error))
        return
    assert expansion.trials
    ids = [run_id(t, sources_of(t, REGISTRY), "text") for t in expansion.trials]
    assert len(ids) == len(expansion.trials)
    for trial in expansion.trials:
        # What travels to a worker comes back as it was.
        assert Trial.model_validate(json.loads(json.dumps(trial.model_dump()))) == trial


# --- options --------------------------------------------------------------------------------------

VALUES = st.one_of(
    st.sampled_from(
        ["lstm", "lstn", "ar", "tiny.yaml", "absent.yaml", "cell", "regularizer", "made_up",
         "nowhere", "results", ".", "0", "1", "-1", "1.5", "nan", "local", "ray", "cpu", "auto",
         "best", "failed", "nhid=8", "nhid=0", "lr=1,2", "cell=gru", "regularizer=ar+tar", "=",
         "a=b=c", "nhid=", "", "nhid=8,8", "folder:path=nowhere", "synthetic:train=x",
         "127.0.0.1:1", "x" * 300, "é", "\udcff", "--", "a\nb", "../x", "a/b",
         "0123456789ab", "%s", "{}", "[/bold]"]
    ),
    # No slash: a random absolute path could be anybody's. No NUL: no process can be given one.
    st.text(st.characters(blacklist_characters="\0/~", blacklist_categories=["Cs"]), max_size=12),
)  # fmt: skip
OPTIONS = {
    "grid": ["--set", "--reps", "--name", "--results", "--data-dir", "--plugins", "--device",
             "--backend", "--jobs", "--address", "--cpus-per-trial", "--gpus-per-trial",
             "--max-retries", "--rerun", "--keep-weights", "--no-report", "--help"],
    "plugins": ["list", "show", "check", "new", "--plugins", "--help"],
    "store": ["check", "merge", "orphans", "prune", "--results", "--plugins", "--yes", "--help"],
    "corpora": ["list", "show", "fetch", "--data-dir", "--help"],
    "report": ["--results", "--help"],
    "generate": ["--words", "--results", "--temperature", "--seed", "--help"],
}  # fmt: skip
# Those that go first, since little is reached without them.
BEGIN = {"grid": [["--dry-run"], ["tiny.yaml", "--dry-run"]]}


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    verb = draw(st.sampled_from([v for v in VERBS if v != "train"] + ["grid"] * 3))
    begin = BEGIN.get(verb, [[]])[-1 if draw(st.booleans()) else 0]
    word = st.one_of(st.sampled_from(OPTIONS[verb]), VALUES)
    words = draw(st.lists(word, max_size=6))
    # Nothing may be downloaded or made at length in a test.
    if "fetch" in words or (verb == "grid" and "tiny.yaml" not in begin):
        words = [w for w in words if not w.startswith(("p", "s", "w", "q"))]
    return [verb, *begin, *words]


WRITTEN: list[str] | None = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if WRITTEN is None:
        return
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, str | bytes) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            WRITTEN.append(os.path.realpath(os.fsdecode(path)))
    elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.symlink", "shutil.rmtree"):
        WRITTEN.extend(os.path.realpath(os.fsdecode(a)) for a in arguments if isinstance(a, str))


@pytest.fixture(scope="module")
def watched() -> Iterator[list[str]]:
    """The paths written, made or removed by Python from here on."""
    global WRITTEN
    sys.addaudithook(_watch)
    WRITTEN = []
    yield WRITTEN
    WRITTEN = None


@often(150)
@given(command_lines())
@example(["grid", "tiny.yaml", "--dry-run"])
@example(["grid", "tiny.yaml", "--dry-run", "--results", "x" * 300])
@example(["grid", "tiny.yaml", "--dry-run", "--data-dir", "x" * 300])
@example(["grid", "tiny.yaml", "--dry-run", "--results", "\udcff"])
@example(["store", "merge", "x" * 300])
@example(["store", "check", "--results", "x" * 300])
@example(["report", "x" * 300, "--results", "\udcff"])
@example(["plugins", "show", "\udcff"])
@example(["plugins", "list", "--plugins", "x" * 300])
@example(["corpora", "show", "folder:path=" + "x" * 300])
@example(["corpora", "show", "folder:path=\udcff"])
@example(["generate", "x" * 300])
@example(["generate", "\udcff"])
@example(["generate", "0123456789ab", "--temperature", "nan"])
def test_random_options_end_with_a_code_and_write_nothing_elsewhere(
    here: Path, tmp_path: Path, watched: list[str], words: list[str]
) -> None:
    (here / "tiny.yaml").write_text(f"name: tiny\n{TINY}\naxes: {{cell: [lstm, gru]}}\n")
    prepare(here / "results")
    assert str(here / "tiny.yaml") in watched, "the watch sleeps"
    watched.clear()
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["bench", *words]
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as end,
    ):
        main(words)
    assert end.value.code in (0, 1, 2)
    if end.value.code == 2:
        assert err.getvalue().startswith("bench: ")
        first, *rest = err.getvalue().splitlines()
        assert first.isprintable() and len(first) < 1100
        assert not rest or rest[0].startswith("Traceback"), rest
        assert "bench/" not in "".join(rest)
    allowed = (str(tmp_path), os.path.realpath(os.environ["BENCH_CACHE"]), "/dev/null")
    elsewhere = [p for p in watched if not p.startswith(allowed) and not p.endswith(".pyc")]
    assert elsewhere == [], words
    if words[0] in ("grid", "report", "generate"):
        assert not list((here / "results" / "runs").iterdir())
