"""What is to be trained: trials, grid files and run_ids."""

from bench.config.grid import (
    Expansion,
    Grid,
    check_name,
    expand,
    load_grid,
    override,
    preset_names,
)
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
