"""What the pages say is there: links, presets, plugins, verbs, options."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.__main__ import VERBS
from bench.config import preset_names
from bench.plugins import find
from tests import commands_page, plugins_page

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
        ROOT / "results" / "README.md",
        *(ROOT / "docs").glob("*.md"),
    ]
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def names(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(text: str) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The headings of a page as they are linked to."""
    found = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found}


def dead(page: Path, text: str) -> list[str]:
    """Links of a page that lead to no file, or to no heading in it."""
    wrong = []
    for link in LINK.findall(prose(text)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, heading = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (
            heading and heading not in anchors(text if target == page else target.read_text())
        ):
            wrong.append(link)
    return wrong


def cited(text: str) -> set[str]:
    """Files of the tree that a page names in backticks or gives to Python: `docs/results.md`."""
    words = re.findall(r"`([\w./-]+)`", text)
    folders = ("bench/", "cells/", "docs/", "regularizers/", "tests/")
    return {w for w in words if w.startswith(folders) and re.search(r"\.\w+$", w)}


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_link_leads_somewhere(page: Path) -> None:
    assert dead(page, page.read_text()) == []


def test_a_dead_link_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# A `heading`, here\n```\n# no heading\n```\n")
    text = (
        "# Top\n[a](there.md) [b](#top) [c](there.md#a-heading-here) [d](https://example.com/x)\n"
    )
    page = tmp_path / "page.md"
    page.write_text(text)
    assert dead(page, text) == []
    assert dead(page, "```\n[a](gone.md)\n```\n") == []
    for link in ("gone.md", "#bottom", "there.md#no-heading", "sub/there.md"):
        assert dead(page, f"# Top\n[x]({link})\n") == [link]


# Files that the reader is to write, or that are written as an example.
NOT_OURS = {"cells/mgu.py", "cells/mine.py", "regularizers/curvature.py"}


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "commands.md"], ids=names)
def test_every_file_that_is_named_exists(page: Path) -> None:
    gone = {name for name in cited(page.read_text()) if not (ROOT / name).exists()}
    assert gone - NOT_OURS == set()


def test_every_page_is_named_by_another() -> None:
    links = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in LINK.findall(prose(page.read_text()))
    }
    named = {ROOT / name for page in PAGES for name in cited(page.read_text())}
    assert [p.name for p in (ROOT / "docs").glob("*.md") if p not in links | named] == []


# --- what there is, is told -----------------------------------------------------------------------


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_named(name: str) -> None:
    assert f"`{name}`" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, found in find().items() for name in found]
)
def test_every_plugin_of_the_tree_is_named(kind: str, name: str) -> None:
    assert f"`{name}`" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_the_readme_and_has_its_section(verb: str) -> None:
    assert f"python -m bench.{verb}" in (ROOT / "README.md").read_text()
    assert f"\n## {verb}\n" in (ROOT / "docs" / "commands.md").read_text()


def unknown(text: str) -> list[str]:
    """Verbs and options that a page tells to use and that are not there."""
    wrong = []
    for verb, rest in re.findall(r"python -m bench\.([a-z]\w*)([^'`\n#]*)", text):
        if verb not in VERBS:
            wrong.append(verb)
            continue
        known = {"--help"}
        for _, command in commands_page.commands(verb):
            for param in commands_page.options(command):
                known.update((*param.opts, *param.secondary_opts))
        given = re.findall(r"(?<!\S)--[a-z][a-z-]*", rest)
        wrong += [f"{verb} {option}" for option in given if option not in known]
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_the_commands_of_a_page_are_there(page: Path) -> None:
    assert unknown(page.read_text()) == []


def test_an_absent_command_is_noticed() -> None:
    assert unknown("python -m bench.grid quick --set lr=1 --no-report  # --gone\n") == []
    assert unknown("`python -m bench.grind` or `python -m bench.grid --gone`") == [
        "grind",
        "grid --gone",
    ]


# --- docs/commands.md -----------------------------------------------------------------------------


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    assert commands_page.FILE.read_text() == commands_page.page(), (
        "write it anew: python -m tests.commands_page"
    )


def test_the_page_of_plugins_is_what_the_plugins_say() -> None:
    assert plugins_page.FILE.read_text() == plugins_page.page(), (
        "write it anew: python -m tests.plugins_page"
    )


def test_every_command_and_option_is_on_that_page() -> None:
    page = commands_page.FILE.read_text()
    count = 0
    for verb in VERBS:
        section = page.partition(f"\n## {verb}\n")[2].partition("\n## ")[0]
        for words, command in commands_page.commands(verb):
            assert f"python -m bench.{words}" in section
            for param in commands_page.options(command):
                for option in (*param.opts, *param.secondary_opts):
                    assert f"`{option}" in section, f"{words} {option}"
                    count += 1
    assert count > 60
    grid = page.partition("\n## grid\n")[2].partition("\n## ")[0]
    for option in ("--dry-run", "--set", "--backend", "--address", "--rerun", "--gpus-per-trial"):
        assert f"`{option}" in grid


def test_the_gotchas_give_reasons() -> None:
    text = (ROOT / "docs" / "gotchas.md").read_text()
    assert len(text.splitlines()) < 80
    entries = re.findall(r"^- \*\*(.+?)\*\*(.*?)(?=^- |^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert len(entries) > 15
    assert [title for title, reason in entries if len(reason.split()) < 8] == []
