"""`python -m bench.plugins`: lists, shows, checks and begins plugins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bench.plugins import Plugin, Registry

app = typer.Typer(add_completion=False, rich_markup_mode=None)
Folder = Annotated[
    Path | None,
    typer.Option("--plugins", help="A further folder that holds cells/ and regularizers/."),
]


@app.callback(invoke_without_command=True)
def plugins(context: typer.Context) -> None:
    """Cells and regularizers: one file each, found by listing cells/ and regularizers/."""
    if context.invoked_subcommand is None:
        _list(None)


@app.command("list")
def list_(plugins: Folder = None) -> None:
    """List every plugin: name, hyper-parameters with defaults, what it is, and its state."""
    _list(plugins)


def _list(extra: Path | None) -> None:
    from bench.plugins import find
    from bench.plugins.listing import listing

    for line in listing(find(extra)):
        print(line)


@app.command()
def show(name: str, plugins: Folder = None) -> None:
    """Show one plugin: its docstring, hyper-parameters, file and source hash."""
    from bench.plugins import find
    from bench.plugins.listing import figures

    registry = find(plugins)
    every = [(key, p) for found in registry.values() for key, p in found.items()]
    chosen = [p for key, p in every if name in (key, p.name)]  # a name means its namesakes too
    if not chosen:
        raise _unknown(name, registry)
    for plugin in chosen:
        print(f"{plugin.kind} {plugin.name}  ({plugin.path}, source {plugin.hash or 'unread'})")
        if plugin.origin not in ("tree", str(plugin.path.parent.parent)):
            print(f"from {plugin.origin}")
        if plugin.broken:
            print(f"BROKEN: {plugin.broken}")
        for param in plugin.params:
            scales = "   (scales the penalty)" if param.name == plugin.coefficient else ""
            print(f"  {param.text}{scales}")
        print(f"\n{plugin.doc.strip()}")
        for i, line in enumerate(figures(plugin)):
            print(f"\n{line}" if i == 0 else line)


@app.command()
def check(what: Annotated[str, typer.Argument(metavar="NAME|FILE")], plugins: Folder = None) -> int:
    """Hold a plugin, found or in a file anywhere, to the contract suite."""
    from bench.contract import run
    from bench.errors import BadInput

    plugin = _find(what, plugins)
    if plugin.broken:
        raise BadInput(f"{plugin.kind} {plugin.name} is broken: {plugin.broken}")
    wrong = 0
    for rule, meaning, cause, trace in run(plugin):
        print(f"  {'ok  ' if cause is None else 'FAIL'}  {rule}: {cause or meaning}")
        if trace:
            print(trace.rstrip())
        wrong += cause is not None
    print(f"{plugin.kind} {plugin.name}: {'all rules hold' if not wrong else f'{wrong} broken'}")
    return 1 if wrong else 0


@app.command()
def new(kind: Annotated[str, typer.Argument(metavar="cell|regularizer")], name: str) -> None:
    """Write ./cells/NAME.py or ./regularizers/NAME.py, a working skeleton to change."""
    from bench.errors import BadInput, one_line
    from bench.plugins import FOLDER
    from bench.plugins.skeletons import CELL, REGULARIZER
    from bench.plugins.spelling import NAME

    if kind not in FOLDER:
        raise BadInput(f"new {one_line(kind, 40)}: write `new cell NAME` or `new regularizer NAME`")
    if not NAME.fullmatch(name) or not name.isidentifier():
        raise BadInput(
            f"new {kind}: the name {one_line(name, 60)!r} must be letters, digits and _ and begin "
            "with a letter"
        )
    path = Path(FOLDER[kind]) / f"{name}.py"
    if path.exists():
        raise BadInput(f"{path} exists already; choose another name")
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_text((CELL if kind == "cell" else REGULARIZER).format(name=name))
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from None
    print(f"{path} written; next: python -m bench.plugins check {path}")


def _find(what: str, extra: Path | None) -> Plugin:
    from bench.errors import BadInput
    from bench.plugins import FOLDER, find, read

    path = Path(what)
    if path.suffix == ".py" or "/" in what:
        if not os.path.isfile(path):  # noqa: PTH113 - False, too, for a name that cannot be
            raise BadInput(f"{what}: no such file")
        text = path.read_bytes()
        kind = "regularizer" if b"class Regularizer" in text else "cell"
        if path.resolve().parent.name == FOLDER["regularizer"]:
            kind = "regularizer"
        return read(path.resolve(), kind, str(path.parent))
    registry: Registry = find(extra)
    for found in registry.values():
        if what in found:
            return found[what]
    raise _unknown(what, registry)


def _unknown(name: str, registry: Registry) -> Exception:
    from bench.errors import BadInput, nearest

    names = {plugin.name for found in registry.values() for plugin in found.values()}
    return BadInput(f"no plugin is called {name!r}. {nearest(name, names)}")


if __name__ == "__main__":
    from bench.__main__ import run

    run(app, name="python -m bench.plugins")
