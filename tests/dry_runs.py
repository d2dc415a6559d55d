"""What a dry run printed, as a table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bench.store.care import read_record
from tests.conftest import Verb

LOCAL = ("--backend", "local", "--jobs", 0, "--no-report")
Row = dict[str, str]


def dry(verb: Verb, grid: str, *words: object) -> tuple[dict[str, Row], list[str]]:
    """Returns the rows of the table by run_id, and the lines below it."""
    outcome = verb("grid", grid, "--dry-run", *words)
    assert outcome.code == 0 and outcome.err == "", outcome
    lines = outcome.out.splitlines()
    head = re.split(r"\s{2,}", lines[0])
    assert head[0] == "run_id"
    rows = {}
    for line in lines[1:]:
        if not re.match(r"[0-9a-f]{12}  ", line):
            break
        cells = re.split(r"\s{2,}", line)
        rows[cells[0]] = dict(zip(head, [*cells, ""], strict=False))
    return rows, lines[1 + len(rows) :]


def recorded(results: Path = Path("results")) -> list[dict[str, Any]]:
    """Returns the records of a folder."""
    records = [read_record(path) for path in sorted((results / "runs").iterdir())]
    return [record for record in records if record is not None]
