"""Plugins of installed packages: found without an import, hashed, harmless when broken."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.errors import BadInput
from bench.plugins import find, load_class, select_cell, source_hash
from tests.conftest import Verb
from tests.packages import BOMB, CELL, cells, package


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


# --- one that works -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["mycells.made_up", "mycells.made_up:Cell", "mycells.made_up : Cell"]
)
def test_it_is_found_and_loaded_without_importing_its_package(site: Path, value: str) -> None:
    folder = package(site, cells(f"made_up = {value}"))
    plugin = find()["cell"]["made_up"]
    assert plugin.broken is None
    assert (plugin.path, plugin.origin) == (folder / "made_up.py", "entry point mycells 1.2")
    assert plugin.hash == source_hash(folder / "made_up.py")
    assert (plugin.summary, plugin.paper) == (
        "A made-up cell.",
        "Nobody et al. 2026, arXiv 2601.00001",
    )
    chosen = select_cell("made_up:zc=0.25", find())
    assert chosen.spelling == "made_up:zc=0.25"
    assert load_class(chosen.plugin).gain == 2
    assert "mycells" not in sys.modules
    (folder / "_gates.py").write_text("GAIN = 3\n")
    assert find()["cell"]["made_up"].hash != plugin.hash, "the hash covers its parts"


def test_deeper_and_single_modules_are_found(site: Path) -> None:
    folder = package(site, cells("deep = mycells.a.b.deep\nalone = alone"))
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "__init__.py").write_text(BOMB)
    source = CELL.replace("from ._gates import GAIN", "GAIN = 1")
    (folder / "a" / "b" / "deep.py").write_text(source)
    (site / "alone.py").write_text(source)
    found = find()["cell"]
    assert found["deep"].path == folder / "a" / "b" / "deep.py"
    assert (found["deep"].broken, found["alone"].broken) == (None, None)


def test_list_and_show_name_the_package(verb: Verb, site: Path) -> None:
    package(site, cells("made_up = mycells.made_up"))
    out = verb("plugins", "list")
    squeezed = " ".join(out.out.split())
    assert (out.code, out.err) == (0, "")
    assert "made_up A made-up cell. zc=0.5 Paper: Nobody et al. 2026, arXiv 2601.00001" in squeezed
    assert "from entry point mycells 1.2" in squeezed
    assert "from entry point mycells 1.2\n" in verb("plugins", "show", "made_up").out


# --- broken ones ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "source", "cause"),
    [
        ("made_up", "quite_absent.made_up", "", "there is no module quite_absent"),
        ("made_up", "mycells.gone", "", "there is no file gone.py in the package mycells"),
        ("made_up", "mycells.a.gone", "", "there is no file a/gone.py in the package mycells"),
        ("made_up", "mycells", "", "mycells is no single .py file; name the module in it"),
        ("made_up", "sys", "", "sys is no single .py file"),
        ("made_up", "mycells.made_up:Zelle", CELL, "the class must be called exactly Cell"),
        ("made_up", "my cells!", "", "write package.module or package.module:Cell"),
        ("made_up", "../made_up", "", "write package.module or package.module:Cell"),
        ("other", "mycells.made_up", CELL, "the entry point must be called made_up, as its file"),
        ("made_up", "mycells.made_up", "class Cell(\n", "made_up.py:1: '(' was never closed"),
        ("made_up", "mycells.made_up", "x = 1\n", "must define a class called exactly Cell"),
        ("made_up", "mycells.made_up", f"import quite_absent\n{CELL}", "which is not installed"),
        ("made_up", "mycells.made_up", f"from mycells import x\n{CELL}", "imports 'mycells' by na"),
        ("made_up", "mycells.made_up", f"from .other import x\n{CELL}", "imports .other; what is"),
        ("made_up", "mycells.made_up", f"from ._gone import x\n{CELL}", "imports _gone.py, which"),
    ],
)  # fmt: skip
def test_a_broken_one_is_listed_with_its_cause_and_harms_nothing(
    verb: Verb, site: Path, name: str, value: str, source: str, cause: str
) -> None:
    folder = package(site, cells(f"{name} = {value}"))
    (folder / "made_up.py").write_text(source)
    registry = find()
    broken = registry["cell"][name].broken or ""
    assert cause in broken
    assert "entry point mycells 1.2" in broken
    assert select_cell("lstm", registry).plugin.broken is None
    with pytest.raises(BadInput, match=f"cell {name} is broken: entry point mycells"):
        select_cell(name, registry)
    out = verb("plugins", "list")
    assert (out.code, out.err) == (0, "")
    assert "1 broken:" in out.out
    assert cause in " ".join(out.out.split())


@pytest.mark.parametrize(
    "text", ["[bench.cells]\njust words\n", "[bench.cells\n[bench.cells]\nx\n"]
)
def test_entry_points_that_cannot_be_read_are_listed_as_such(site: Path, text: str) -> None:
    package(site, text)
    cause = find()["cell"]["mycells"].broken or ""
    assert cause.startswith("entry point mycells 1.2: its entry points cannot be read")


@pytest.mark.parametrize("text", [b"just words", b"[a\n[b", b"\xff\xfe", b""])
def test_what_others_break_is_no_concern_of_ours(site: Path, text: bytes) -> None:
    before = find()
    package(site, "")
    (site / "mycells-1.2.dist-info" / "entry_points.txt").write_bytes(text)
    (site / "empty-1.dist-info").mkdir()
    (site / "empty-1.dist-info" / "entry_points.txt").write_text(cells("x = mycells.x"))
    after = find()
    assert set(after["regularizer"]) == set(before["regularizer"])
    assert set(before["cell"]) <= set(after["cell"]) <= {*before["cell"], "x"}


# --- two with one name ----------------------------------------------------------------------------


def test_a_namesake_of_the_tree_is_broken_and_the_trees_is_chosen(verb: Verb, site: Path) -> None:
    folder = package(site, cells("lstm = mycells.lstm"))
    (folder / "lstm.py").write_text(CELL)
    registry = find()
    assert select_cell("lstm", registry).plugin.origin == "tree"
    cause = registry["cell"]["lstm (entry point mycells 1.2)"].broken or ""
    assert "two cells are called 'lstm'" in cause
    assert str(folder / "lstm.py") in cause and "lstm.py (tree); rename or uninstall one" in cause
    assert "1 broken:" in verb("plugins", "list").out
    shown = verb("plugins", "show", "lstm").out
    assert shown.count("\ncell lstm  (") + shown.startswith("cell lstm  (") == 2
    key = "lstm (entry point mycells 1.2)"
    assert f"\n  {key}\n" in verb("plugins", "list").out
    alone = verb("plugins", "show", key).out
    assert alone.startswith(f"cell lstm  ({folder / 'lstm.py'}") and "BROKEN: " in alone
    assert alone.count("cell lstm  (") == 1
    assert verb("plugins", "check", key).err.startswith("bench: cell lstm is broken: entry point")
    with pytest.raises(BadInput, match="Did you mean lstm") as error:
        select_cell("lstmm", registry)
    assert "entry point" not in str(error.value)


def test_two_packages_with_one_name_are_both_broken(site: Path) -> None:
    package(site, cells("made_up = mycells.made_up"))
    package(site, cells("made_up = yours.made_up"), name="yours", version="3")
    registry = find()["cell"]
    named = [p for p in registry.values() if p.name == "made_up"]
    assert len(named) == 2
    for plugin, other in zip(named, reversed(named), strict=True):
        assert f"{plugin.path} and {other.path} ({other.origin})" in (plugin.broken or "")


def test_the_file_itself_given_by_plugins_is_no_namesake(site: Path) -> None:
    folder = package(site, cells("made_up = mycells.cells.made_up"))
    (folder / "cells").mkdir()
    for name in ("made_up.py", "_gates.py"):
        (folder / name).rename(folder / "cells" / name)
    named = [p for p in find(folder)["cell"].values() if p.name == "made_up"]
    assert [(p.origin, p.broken) for p in named] == [(str(folder), None)]


def test_a_package_that_is_there_twice_counts_once(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(site, cells("made_up = mycells.made_up"))
    package(tmp_path / "new", cells("made_up = mycells.made_up"), version="2.0")
    monkeypatch.syspath_prepend(str(tmp_path / "new"))
    plugin = find()["cell"]["made_up"]
    assert (plugin.broken, plugin.origin) == (None, "entry point mycells 2.0")
