"""`python -m bench.plugins`: list, show, check, new."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.contract import CHECKS
from bench.plugins import find
from tests.conftest import Verb

BROKEN = "import quite_absent\n"
TINY = "synthetic:train=2000:valid=300:test=300"


def write(folder: Path, kind: str, name: str, source: str) -> Path:
    path = folder / kind / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    return path


def test_list_shows_every_plugin_its_parameters_and_its_state(verb: Verb, tmp_path: Path) -> None:
    path = write(tmp_path, "cells", "made_up", BROKEN)
    out = verb("plugins", "list", "--plugins", tmp_path)
    assert (out.code, out.err) == (0, "")
    lines, squeezed = out.out.splitlines(), " ".join(out.out.split())
    for plugins in find().values():
        for name, plugin in plugins.items():
            assert len([x for x in lines if x.startswith(f"  {name} ")]) == 1
            assert plugin.paper
            params = " ".join(p.name + "=" for p in plugin.params)
            assert f" {name} {plugin.summary} " in squeezed
            assert f" Paper: {plugin.paper} " in squeezed
            assert re.search(re.escape(params).replace("=", r"=\S+"), squeezed)
    assert " alpha=2 of=dropped|raw layers=last|all form=mean_square|norm Paper: Merity" in squeezed
    (line,) = [x for x in lines if x.split()[:1] == ["made_up"]]
    assert line.split()[1] == "BROKEN,"
    assert f"from {path}" in squeezed
    end = squeezed.partition(" regularizers; ")[2]
    assert end == (
        f"1 broken: cell made_up: {path}: made_up.py imports 'quite_absent', which is not installed"
    )


@pytest.mark.parametrize("columns", ["80", "100", "200", "20"])
def test_the_list_fits_the_terminal(
    verb: Verb, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    out = verb("plugins", "list").out
    assert max(map(len, out.splitlines())) <= min(100, max(60, int(columns)))
    assert out.splitlines()[-1].endswith("; none broken")


def test_without_a_word_it_lists(verb: Verb) -> None:
    assert verb("plugins").out == verb("plugins", "list").out


def test_show_prints_docstring_parameters_file_and_hash(verb: Verb) -> None:
    out = verb("plugins", "show", "tar")
    tar = find()["regularizer"]["tar"]
    assert out.code == 0
    assert f"regularizer tar  ({tar.path}, source {tar.hash})" in out.out
    assert "beta: float = 1   (scales the penalty)" in out.out
    assert "layers: last|all = last\n" in out.out
    assert tar.doc.strip() in out.out


def test_show_of_a_broken_plugin_says_why(verb: Verb, tmp_path: Path) -> None:
    write(tmp_path, "regularizers", "made_up", BROKEN)
    out = verb("plugins", "show", "made_up", "--plugins", tmp_path)
    assert out.code == 0
    assert "source unread)" in out.out
    assert "BROKEN: " in out.out


@pytest.mark.parametrize("word", ["show", "check"])
def test_an_unknown_name_is_answered_with_the_nearest(verb: Verb, word: str) -> None:
    out = verb("plugins", word, "lstn")
    assert (out.code, out.out) == (2, "")
    assert out.err.startswith(
        "bench: no plugin is called 'lstn'. Did you mean lstm or t_lstm? Known: ar, "
    )
    assert len(out.err.splitlines()) == 1


@pytest.mark.parametrize("what", ["absent.py", "./cells", "a" * 400 + ".py", "x" * 5000 + "/y"])
def test_a_file_that_is_not_there_is_one_clear_line(verb: Verb, what: str) -> None:
    out = verb("plugins", "check", what)
    assert out.code == 2
    assert out.err.startswith("bench: ")
    assert out.err.endswith(": no such file\n")
    assert len(out.err.splitlines()) == 1


@pytest.mark.parametrize("name", ["lstm", "tar"])
def test_check_says_of_each_rule_that_it_holds(verb: Verb, name: str) -> None:
    out = verb("plugins", "check", name)
    kind = "cell" if name == "lstm" else "regularizer"
    assert out.code == 0
    *lines, last = out.out.splitlines()
    assert [x.split()[1] for x in lines] == [f"{c.__name__}:" for c in CHECKS[kind]]
    assert all(x.split()[0] == "ok" for x in lines)
    assert last == f"{kind} {name}: all rules hold"


def test_check_names_the_broken_rule_and_goes_on(verb: Verb, tmp_path: Path) -> None:
    verb("plugins", "new", "cell", "made_up")
    path = tmp_path / "cells" / "made_up.py"
    source = path.read_text()
    assert source.count("raw.append(h)") == 1
    path.write_text(source.replace("raw.append(h)", "raw.append(h * torch.rand(()))"))
    out = verb("plugins", "check", path)
    assert out.code == 1
    wrong = [x for x in out.out.splitlines() if x.split()[0] == "FAIL"]
    assert any("randomness_from_noise: raw under two global seeds differs by" in x for x in wrong)
    assert len([x for x in out.out.splitlines() if x.startswith("  ")]) == len(CHECKS["cell"])
    assert out.out.splitlines()[-1] == f"cell made_up: {len(wrong)} broken"

    path.write_text(source.replace("raw.append(h)", "raw.append(h.item())"))
    out = verb("plugins", "check", path)
    assert out.code == 1
    assert "FAIL  shapes: RuntimeError: " in out.out
    assert "Traceback" in out.out
    assert f'{path}", line' in out.out


def test_check_of_a_broken_file_is_bad_input(verb: Verb, tmp_path: Path) -> None:
    path = write(tmp_path, "elsewhere", "made_up", "class Cell(\n")
    out = verb("plugins", "check", path)
    assert (out.code, out.out) == (2, "")
    assert out.err.startswith(f"bench: cell made_up is broken: {path}:1: ")
    assert len(out.err.splitlines()) == 1


def test_check_tells_a_regularizer_by_its_class(verb: Verb, tmp_path: Path) -> None:
    verb("plugins", "new", "regularizer", "made_up")
    elsewhere = tmp_path / "elsewhere.py"
    (tmp_path / "regularizers" / "made_up.py").rename(elsewhere)
    out = verb("plugins", "check", "elsewhere.py")
    assert out.out.splitlines()[-1] == "regularizer elsewhere: all rules hold"


@pytest.mark.parametrize("kind", ["cell", "regularizer"])
def test_a_new_plugin_passes_every_rule_and_trains(verb: Verb, tmp_path: Path, kind: str) -> None:
    out = verb("plugins", "new", kind, "made_up")
    path = Path(f"{kind}s") / "made_up.py"
    assert out.code == 0
    assert out.out == f"{path} written; next: python -m bench.plugins check {path}\n"

    out = verb("plugins", "check", path)
    assert out.out.splitlines()[-1] == f"{kind} made_up: all rules hold", out.out

    chosen = "made_up:gain=0.5" if kind == "cell" else "made_up:alpha=0.5"
    tiny = f"--corpus {TINY} --nhid 8 --batch-size 5 --bptt 10 --epochs 1 --lr 1".split()
    out = verb("train", f"--{kind}", chosen, "--plugins", ".", *tiny)
    assert out.code == 0, out.err
    assert "1 trial: 1 ok" in out.out
    assert len(list((tmp_path / "results" / "runs").glob("*.parquet"))) == 1


@pytest.mark.parametrize(
    ("kind", "name", "line"),
    [
        ("cells", "made_up", "new cells: write `new cell NAME` or `new regularizer NAME`"),
        ("cell", "../made_up", "the name '../made_up' must be letters, digits and _"),
        ("cell", "a/b", "must be letters, digits and _"),
        ("cell", "", "the name '' must be letters, digits and _"),
        ("cell", "_part", "must be letters, digits and _"),
        ("cell", "my-cell", "must be letters, digits and _"),
        ("cell", "x" * 300, "must be letters, digits and _"),
    ],
)
def test_new_refuses_what_cannot_be_a_name(
    verb: Verb, tmp_path: Path, kind: str, name: str, line: str
) -> None:
    out = verb("plugins", "new", kind, name)
    assert out.code == 2
    assert out.err.startswith("bench: new ")
    assert line in out.err
    assert not list(tmp_path.iterdir())


def test_new_overwrites_nothing(verb: Verb, tmp_path: Path) -> None:
    verb("plugins", "new", "cell", "made_up")
    path = tmp_path / "cells" / "made_up.py"
    path.write_text("mine")
    out = verb("plugins", "new", "cell", "made_up")
    assert (out.code, path.read_text()) == (2, "mine")
    assert out.err == "bench: cells/made_up.py exists already; choose another name\n"
    (tmp_path / "regularizers").write_text("a file where the folder should be")
    out = verb("plugins", "new", "regularizer", "made_up")
    assert out.code == 2
    assert out.err.startswith("bench: regularizers/made_up.py: cannot be written: ")
