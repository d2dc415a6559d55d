"""`python -m bench.report [GRID]`: draws the records as a page and prints its path."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def report(
    grid: Annotated[
        str | None, typer.Argument(help="Name of a grid; without it all grids, newest first.")
    ] = None,
    results: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder that holds the records.")
    ] = Path("results"),
) -> None:
    """Draws results/reports/GRID.html, one self-contained file, from the records as they are."""
    from bench.report import build, build_all

    typer.echo(build_all(results) if grid is None else build(results, grid))


if __name__ == "__main__":
    from bench.__main__ import run

    run(app, name="python -m bench.report")
