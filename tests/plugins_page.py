"""`python -m tests.plugins_page` writes docs/plugins.md from the docstrings of the plugins."""

from __future__ import annotations

from pathlib import Path

from bench.plugins import find
from bench.plugins.facts import Plugin
from bench.plugins.spelling import spell

FILE = Path(__file__).resolve().parent.parent / "docs" / "plugins.md"
HEAD = """# Cells and regularizers

Made by `python -m tests.plugins_page` from the files. `python -m bench.plugins show NAME` prints
the formula, the shapes, what departs from the paper, and what was published. *Memory* marks the
cells that hand over c at every step, which `tar_memory` needs.

"""


def page() -> str:
    """Returns the text of docs/plugins.md."""
    text = HEAD
    for kind, found in find().items():
        text += f"## {kind.capitalize()}s\n\n"
        text += f"| {kind} | what it is | hyper-parameters | paper |\n| --- | --- | --- | --- |\n"
        text += "".join(map(_row, found.values())) + "\n"
    return text.rstrip() + "\n"


def _row(plugin: Plugin) -> str:
    params = "<br>".join(
        f"`{p.name}={spell(p.default)}`"
        + (f" ({', '.join(map(spell, p.choices))})" if p.choices else "")
        for p in plugin.params
    )
    what = plugin.summary.rstrip(".") + (". *Memory*" if plugin.flags.get("memory") else "")
    paper = " ".join(plugin.paper.split()).rstrip(".")
    return f"| `{plugin.name}` | {what.replace('|', chr(92) + '|')} | {params} | {paper} |\n"


if __name__ == "__main__":
    FILE.write_text(page())
    print(f"{FILE.name}: {len(page().splitlines())} lines")
