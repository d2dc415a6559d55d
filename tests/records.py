"""Made-up records for tests of the store."""

from __future__ import annotations

from typing import Any

from bench.store.schema import EPOCHS, RUNS

_VALUES = {"string": "text", "int32": 3, "int64": 4, "float64": 0.5, "bool": True}


def record(run_id: str = "0123456789ab", **changes: Any) -> dict[str, Any]:
    """Returns a record with a value in every column."""
    values: dict[str, Any] = {c.name: _VALUES[c.type] for c in RUNS}
    values |= {"schema": 1, "run_id": run_id, "status": "ok", "stop_reason": "annealed"}
    values |= {"plugin_origin": "tree"}
    values |= {"cell": "lstm", "regularizer": "none", "regularizer_hparams": '{"none": {}}'}
    return values | changes


def epochs(run_id: str = "0123456789ab", count: int = 2) -> list[dict[str, Any]]:
    """Returns epoch records with a value in every column."""
    row: dict[str, Any] = {c.name: _VALUES[c.type] for c in EPOCHS} | {"run_id": run_id}
    return [row | {"epoch": number + 1} for number in range(count)]
