"""What is to be trained: trials, grid files and run_ids."""

from bench.config.expand import Expansion, expand
from bench.config.grid import Grid, check_name, load_grid, override, preset_names
from bench.config.trial import (
    FIELDS,
    PROTOCOL,
    Trial,
    canonical,
    make_trial,
    run_id,
    select,
    sources_of,
)

__all__ = [
    "FIELDS",
    "PROTOCOL",
    "Expansion",
    "Grid",
    "Trial",
    "canonical",
    "check_name",
    "expand",
    "load_grid",
    "make_trial",
    "override",
    "preset_names",
    "run_id",
    "select",
    "sources_of",
]
