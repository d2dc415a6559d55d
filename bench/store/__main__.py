"""`python -m bench.store`: checks, merges, compacts and tidies a results folder."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)
Results = Annotated[str, typer.Option(metavar="DIR|URL", help="Folder of the records.")]


@app.command()
def check(results: Results = "results") -> int:
    """Read every record and name the files that are broken or none of ours."""
    from bench.store.care import check as problems_of
    from bench.store.care import count
    from bench.store.mirror import results_folder

    with results_folder(results, write=False) as opened:
        _there(opened.folder)
        problems = problems_of(opened.folder)
        for line in problems:
            print(line)
        number = count(opened.folder)
    print(f"{number} records, {len(problems)} problem{'s' * (len(problems) != 1)}")
    return 1 if problems else 0


@app.command()
def merge(
    sources: Annotated[list[str], typer.Argument(metavar="DIR|URL…")], results: Results = "results"
) -> None:
    """Bring the records of other results folders into this one; the first final record is kept."""
    from bench.store.care import merge as merge_folders
    from bench.store.mirror import results_folder

    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(results_folder(s, write=False)) for s in sources]
        for source in opened:
            source.fetch("weights/")
        into = stack.enter_context(results_folder(results, write=True))
        count, remarks = merge_folders(into.folder, [source.folder for source in opened])
    for line in remarks:
        print(line)
    print(f"{count} runs came into {results}, {len(remarks)} remarks")


@app.command()
def compact(results: Results = "results") -> int:
    """Fold the part-files of all runs into one large file per table, which is read far faster.

    Readers may read and grids may run meanwhile; killed at any moment, it loses nothing.
    """
    from bench.store.compact import compact as fold

    folder = _folder(results, "compact")
    _there(folder)
    folded, problems = fold(folder)
    for line in problems:
        print(line)
    print(f"{folded} records folded, {len(problems)} problem{'s' * (len(problems) != 1)}")
    return 1 if problems else 0


@app.command()
def orphans(
    results: Results = "results",
    plugins: Annotated[Path | None, typer.Option(help="A further plugin folder.")] = None,
) -> None:
    """List the records whose plugin source is no longer in the tree."""
    from bench.plugins import find
    from bench.store.care import orphans as orphans_of
    from bench.store.mirror import results_folder

    with results_folder(results, write=False) as opened:
        _there(opened.folder)
        found = orphans_of(opened.folder, find(plugins))
    for run_id, why in found:
        print(f"{run_id}  {why}")
    print(f"{len(found)} orphans")


@app.command()
def prune(
    results: Results = "results",
    plugins: Annotated[Path | None, typer.Option(help="A further plugin folder.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it.")] = False,
) -> None:
    """Delete the orphans, what killed writers left behind, and checkpoints nobody goes on from.

    Without --yes it only says so.
    """
    from bench.plugins import find
    from bench.store.care import orphans as orphans_of
    from bench.store.care import prune as delete

    folder = _folder(results, "prune")
    _there(folder)
    found = orphans_of(folder, find(plugins))
    for run_id, why in found:
        print(f"{run_id}  {why}")
    if not yes:
        print(f"{len(found)} orphans would be deleted; --yes does it")
        return
    files = delete(folder, [run_id for run_id, _ in found])
    print(f"{len(found)} orphans and {files} files deleted")


@app.command()
def document() -> None:
    """Print docs/results.md, which is made from the schema."""
    from bench.store.document import as_markdown

    print(as_markdown(), end="")


def _folder(results: str, verb: str) -> Path:
    from bench.errors import BadInput
    from bench.storage import is_remote, local_path

    if is_remote(results):
        raise BadInput(
            f"--results {results}: {verb} works on a folder; this makes one of it: "
            f"python -m bench.store merge {results} --results DIR"
        )
    return local_path(results)


def _there(results: Path) -> None:
    from bench.errors import BadInput

    if not (results / "runs").is_dir():
        raise BadInput(f"--results {results}: no results folder; it has no runs/")


if __name__ == "__main__":
    from bench.__main__ import run

    run(app, name="python -m bench.store")
