"""Reads a grid's records and writes its page, its table, or the list of all grids."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import store
from bench.errors import BadInput, one_line
from bench.report import figures, limits, page, sheet, tables
from bench.report.entries import COLUMNS, Corpus, join
from bench.store.files import refuse_links

INDEX = "index"


def write_grid(results: Path, grid: str, mix: bool = False) -> Path:
    """Writes reports/<grid>.html; BadInput if the grid is unknown or writing fails."""
    return _write_grid(results, grid, mix)[0]


def write_all(results: Path, mix: bool = False) -> Path:
    """Writes every grid's page, then reports/index.html; a broken grid file is listed as such."""
    if not results.is_dir():
        raise BadInput(f"{results}: no such folder. Give the one that holds runs/ with --results.")
    listing = []
    for name in store.grid_names(results):
        entry: dict[str, Any] = {"name": name, "href": "", "problem": ""}
        try:
            path, corpora, spec = _write_grid(results, name, mix)
        except BadInput as error:
            entry["problem"] = str(error)
        else:
            runs = [run for corpus in corpora for run in corpus.runs]
            failed = sum(run.status in ("failed", "oom", "timeout") for run in runs)
            done = sum(run.status in ("ok", "diverged", "stopped") for run in runs)
            entry |= {"href": path.name, "created": spec.get("created_utc", "")}
            entry |= {"wanted": len(runs), "done": done, "failed": failed}
            entry["counts"] = tables.counts(runs)
        listing.append(entry)
    return _write(results, f"{INDEX}.html", page.render_index(listing))


def write_sheet(results: Path, grid: str, mix: bool = False) -> tuple[Path, list[str]]:
    """Writes reports/<grid>.csv; returns its path and which files cannot be read. BadInput."""
    _, corpora, problems = _read(results, grid, mix)
    # With the mark, without which Excel takes the text for another encoding.
    return _write(results, f"{grid}.csv", "\ufeff" + sheet.as_csv(corpora)), problems


def _write_grid(
    results: Path, grid: str, mix: bool
) -> tuple[Path, list[Corpus], Mapping[str, Any]]:
    spec, corpora, run_problems = _read(results, grid, mix)
    # A curve is forty rows of each run: only those that are drawn.
    drawn = [run.run_id for c in corpora for run in limits.first(c, limits.DRAWN).runs]
    epochs, epoch_problems = store.load_epochs(results, drawn, ("run_id", "epoch", "valid_nll"))
    curves = figures.curves_of(epochs)
    problems = list(dict.fromkeys(run_problems + epoch_problems))
    html = page.render(spec, corpora, curves, problems, mix)
    name = f"_{grid}" if grid.lower() == INDEX else grid
    return _write(results, f"{name}.html", html), corpora, spec


def _read(results: Path, grid: str, mix: bool) -> tuple[dict[str, Any], list[Corpus], list[str]]:
    # The name becomes a file name: nothing may lead out of the folder, nor onto the index.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", grid):
        raise BadInput(f"{one_line(grid, 60)!r} cannot name a grid: use letters, digits, . _ -")
    spec: dict[str, Any] = (
        {"created_utc": "", "merged": 0} | store.load_grid(results, grid) | {"name": grid}
    )
    ids = [str(wanted["run_id"]) for wanted in spec["wanted"]]
    records, problems = store.load_runs(results, ids, COLUMNS)
    return spec, join(spec, records, mix), problems


def _write(results: Path, name: str, text: str) -> Path:
    refuse_links(results, ["reports"])
    path = results / "reports" / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        store.write_atomically(path, text.encode())
    except OSError as error:
        raise store.StoreError(
            f"{path}: the report cannot be written: {error.strerror or error}; "
            "make room or choose another folder with --results"
        ) from None
    return path
