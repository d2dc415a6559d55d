"""Draws a grid's records as one self-contained HTML page; reads records, decides nothing.

Imports stay inside the functions: `python -m bench.report --help` must not pay for pandas.
"""

from __future__ import annotations

from pathlib import Path


def build(results: Path, grid: str, mix: bool = False) -> Path:
    """Writes the report of one grid and returns its path.

    Works at any moment, also while the grid runs: trials without a record are shown as not yet
    run. Records that differ in what moves numbers are averaged only with `mix`, and the page says
    so. BadInput if the grid is unknown or the page cannot be written.
    """
    from bench.report.write import write_grid

    return write_grid(results, grid, mix)


def build_all(results: Path, mix: bool = False) -> Path:
    """Writes one report per grid and `reports/index.html`, newest first; returns the index."""
    from bench.report.write import write_all

    return write_all(results, mix)


def export(results: Path, grid: str, mix: bool = False) -> tuple[Path, list[str]]:
    """Writes the entries of one grid as a table, GRID.csv.

    Returns its path and a line for each file of records that could not be read. BadInput as above.
    """
    from bench.report.write import write_sheet

    return write_sheet(results, grid, mix)
