"""Draws a grid's records as one self-contained HTML page; reads records, decides nothing.

Imports stay inside the functions: `python -m bench.report --help` must not pay for pandas.
"""

from __future__ import annotations

from pathlib import Path


def build(results: Path, grid: str) -> Path:
    """Writes the report of one grid and returns its path.

    Works at any moment, also while the grid runs: trials without a record are shown as not yet
    run. BadInput if the grid is unknown or the page cannot be written.
    """
    from bench.report.page import write_grid

    return write_grid(results, grid)


def build_all(results: Path) -> Path:
    """Writes one report per grid and `reports/index.html`, newest first; returns the index."""
    from bench.report.page import write_all

    return write_all(results)
