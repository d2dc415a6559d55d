"""`python -m tests.commands_page` writes docs/commands.md from the verbs themselves."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from bench.__main__ import VERBS
from bench.plugins.spelling import spell

FILE = Path(__file__).resolve().parent.parent / "docs" / "commands.md"
_KINDS = {int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}
_HEAD = """# Commands

Made from the commands themselves by `python -m tests.commands_page`. Each verb answers `--help`
with the same. `bench VERB`, as a console script, is the same as `python -m bench.VERB`.

| exit code | meaning |
| --- | --- |
| 0 | every wanted trial has a record that is ok, diverged or stopped |
| 1 | some failed; of `store check` and `plugins check`: something is wrong |
| 2 | bad input, said in one line; nothing was started and nothing written |
| 130 | interrupted; what is done is kept, and the line to go on is printed |

| variable | meaning |
| --- | --- |
| `BENCH_DATA` | the folder of the corpora, where `--data-dir` is not given |
| `BENCH_CACHE` | the folder of tokenised corpora; else the user's cache |
| `RAY_ADDRESS` | the Ray cluster that `bench.grid` joins, where `--address` is not given |
"""


def page() -> str:
    """Returns the text of docs/commands.md."""
    return _HEAD + "".join(_verb(verb) for verb in VERBS)


def commands(verb: str) -> Iterator[tuple[str, Any]]:
    """Yields the commands of a verb, `store` and then `store check` and so on, by their words."""
    try:
        module = importlib.import_module(f"bench.{verb}.__main__")
    except ModuleNotFoundError:
        module = importlib.import_module(f"bench.{verb}")
    command = typer.main.get_command(module.app)
    yield verb, command
    for name, inner in getattr(command, "commands", {}).items():
        yield f"{verb} {name}", inner


def options(command: Any) -> Iterator[Any]:
    """Yields the options of a command, without --help."""
    for param in command.params:
        if param.opts[0].startswith("-") and param.opts[0] != "--help":
            yield param


def _verb(verb: str) -> str:
    text = f"\n## {verb}\n"
    for words, command in commands(verb):
        if hasattr(command, "commands"):  # they follow
            text += f"\n{VERBS[verb][0].upper()}{VERBS[verb][1:]}.\n"
            continue
        if " " in words:
            text += f"\n### {words}\n"
        arguments = [p for p in command.params if not p.opts[0].startswith("-")]
        shown = [_argument(param) for param in arguments]
        rows = [_row(param) for param in options(command)]
        usage = " ".join(["python -m bench." + words, *shown, *(["[OPTIONS]"] if rows else [])])
        text += f"\n```\n{usage}\n```\n\n{_paragraphs(command.help)}\n"
        for param in arguments:
            if param.help:
                text += f"\n`{_argument(param)}`: {param.help}{_default_of_argument(param)}\n"
        if rows:
            text += "\n| option | meaning | default |\n| --- | --- | --- |\n" + "".join(rows)
    return text


def _argument(param: Any) -> str:
    name: str = param.metavar or param.name.upper()
    name += "..." if param.nargs == -1 else ""
    return name if param.required or name.startswith("[") else f"[{name}]"


def _default_of_argument(param: Any) -> str:
    return "" if param.default is None else f" Default: `{spell(param.default)}`."


def _row(param: Any) -> str:
    help_text, default = param.help or "", ""
    written = re.search(r"\s*\[default: (.*)\]$", help_text)
    if written:
        help_text, default = help_text[: written.start()], written[1]
    elif param.is_flag:
        default = "on" if param.default else ""
    elif param.default is not None:
        default = f"`{spell(param.default)}`"
    name = ", ".join(f"`{opt}`" for opt in (*param.opts, *param.secondary_opts))
    if not param.is_flag:
        kind = param.metavar or _KINDS[param.type_descriptor.annotation]
        name = f"`{param.opts[0]} {kind}`"
    meaning = help_text + (" May be given more than once." if param.multiple else "")
    cells = (cell.replace("|", "\\|") for cell in (name, _tags(meaning), default))
    return f"| {' | '.join(cells)} |\n"


def _paragraphs(text: str | None) -> str:
    """A docstring with each paragraph on one line."""
    return _tags("\n\n".join(" ".join(part.split()) for part in (text or "").split("\n\n")))


def _tags(text: str) -> str:
    return re.sub(r"<\w+>", r"`\g<0>`", text)  # `<eos>`, which would else be read as HTML


if __name__ == "__main__":
    FILE.write_text(page())
    print(f"{FILE.name} written")
