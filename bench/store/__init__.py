"""Records: two typed tables in Parquet files, and the grids that list them."""

from bench.storage import write_atomically
from bench.store.grids import grid_names, load_grid, save_grid
from bench.store.parts import StoreError, prepare, write_run
from bench.store.read import load_epochs, load_runs, statuses
from bench.store.schema import (
    EPOCH_RESULT_COLUMNS,
    EPOCHS,
    FINAL,
    RESULT_COLUMNS,
    RUNS,
    STATUSES,
)

__all__ = [
    "EPOCHS",
    "EPOCH_RESULT_COLUMNS",
    "FINAL",
    "RESULT_COLUMNS",
    "RUNS",
    "STATUSES",
    "StoreError",
    "grid_names",
    "load_epochs",
    "load_grid",
    "load_runs",
    "prepare",
    "save_grid",
    "statuses",
    "write_atomically",
    "write_run",
]
