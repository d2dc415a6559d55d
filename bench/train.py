"""`python -m bench.train`: trains one trial without Ray, recorded like a grid of one."""

from __future__ import annotations

import inspect
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.config import FIELDS, Grid, canonical, expand
from bench.config.grid import Block
from bench.plugins.spelling import spell
from bench.store import RUNS

app = typer.Typer(add_completion=False, rich_markup_mode=None)


def train(
    results: str,
    data_dir: Path | None,
    plugins: Path | None,
    device: str | None,
    rerun: str | None,
    keep_weights: str,
    report: bool,
    **fields: str | None,
) -> int:
    """Train one trial in this process, recorded like a grid of one.

    Every field of a trial is an option; cells and regularizers are spelled name:key=value.
    """
    import hashlib

    from bench.launch import launch
    from bench.options import Options
    from bench.plugins import find

    given = {name: value for name, value in fields.items() if value is not None}
    grid = Grid("train", (Block(given, {}, 1, "bench.train"),), where="bench.train")
    (trial,) = expand(grid, find(plugins), data_dir).trials
    name = f"train-{hashlib.sha256(canonical(trial).encode()).hexdigest()[:8]}"
    grid = replace(grid, name=name)
    options = Options(
        results=results,
        data_dir=data_dir,
        plugins=plugins,
        device=device,
        backend="local",
        jobs=0,
        rerun=rerun,
        keep_weights=keep_weights,
        report=report,
    )
    return launch(grid, options, "train", sys.argv[1:])


def _signature() -> inspect.Signature:
    """One option per field of a trial, so that a new field needs no second list here."""
    own: dict[str, tuple[Any, Any]] = {}
    meanings = {column.name: column.meaning for column in RUNS}
    for name, default in FIELDS.items():
        shown = {"emsize": "nhid", "min_lr": "lr / 4^6", "eval_mc": "none"}.get(
            name, spell(default)
        )
        type_ = {"emsize": int, "min_lr": float, "eval_mc": int}.get(name, type(default))
        option = typer.Option(
            f"--{name.replace('_', '-')}",
            metavar={int: "INT", float: "FLOAT", bool: "true|false"}.get(type_, "TEXT"),
            help=f"{meanings[name][0].upper()}{meanings[name][1:]}. [default: {shown}]",
        )
        own[name] = (Annotated[str | None, option], None)
    size = typer.Option(metavar="COUNT", help="In place of nhid: solve it for so many, as in 24M.")
    own |= {
        "num_params": (Annotated[str | None, size], None),
        "results": (
            Annotated[
                str, typer.Option(metavar="DIR|URL", help="Folder of the records, or a bucket's.")
            ],
            "results",
        ),
        "data_dir": (
            Annotated[
                Path | None,
                typer.Option(help="Folder of the corpora. [default: $BENCH_DATA or a cache]"),
            ],
            None,
        ),
        "plugins": (
            Annotated[
                Path | None,
                typer.Option(help="A further folder that holds cells/ and regularizers/."),
            ],
            None,
        ),
        "device": (
            Annotated[str | None, typer.Option(metavar="cpu|cuda", help="Where to train.")],
            None,
        ),
        "rerun": (
            Annotated[
                str | None, typer.Option(metavar="failed|all", help="Run it although recorded.")
            ],
            None,
        ),
        "keep_weights": (
            Annotated[str, typer.Option(metavar="none|best", help="Keep the best weights.")],
            "best",
        ),
        "report": (
            Annotated[bool, typer.Option("--report/--no-report", help="Draw the report.")],
            False,
        ),
    }
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Signature(
        [
            inspect.Parameter(name, keyword, default=default, annotation=annotation)
            for name, (annotation, default) in own.items()
        ],
        return_annotation=int,
    )


train.__signature__ = _signature()  # type: ignore[attr-defined]
train.__annotations__ = {p.name: p.annotation for p in _signature().parameters.values()}
app.command()(train)


if __name__ == "__main__":
    from bench.__main__ import run

    run(app, name="python -m bench.train")
