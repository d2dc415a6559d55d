"""`python -m bench.report [GRID]`: draws the records as a page and prints its path."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def report(
    grid: Annotated[
        str | None, typer.Argument(help="Name of a grid; without it all grids, newest first.")
    ] = None,
    results: Annotated[
        str, typer.Option(metavar="DIR|URL", help="Folder that holds the records, or a bucket's.")
    ] = "results",
    csv: Annotated[
        bool,
        typer.Option("--csv", help="Write GRID.csv instead: a row for each entry of the summary."),
    ] = False,
    mix: Annotated[
        bool,
        typer.Option("--mix", help="Average records that differ in device, versions or switches."),
    ] = False,
) -> None:
    """Draws results/reports/GRID.html, one self-contained file, from the records as they are."""
    from bench.errors import BadInput
    from bench.report import build, build_all, export
    from bench.store.mirror import results_folder

    if csv and grid is None:
        raise BadInput("--csv: say which grid: python -m bench.report GRID --csv")
    with results_folder(results, write=False) as opened:
        if grid is None:
            path = build_all(opened.folder, mix)
            opened.push(f"reports/{page.name}" for page in path.parent.glob("*.html"))
        elif csv:
            path, problems = export(opened.folder, grid, mix)
            for problem in problems:
                typer.echo(problem, err=True)
        else:
            path = build(opened.folder, grid, mix)
        opened.push([f"reports/{path.name}"])
        typer.echo(path)


if __name__ == "__main__":
    from bench.__main__ import run

    run(app, name="python -m bench.report")
