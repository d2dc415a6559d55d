"""grids/<grid>.json: what a grid is. Reports read exactly the run_ids it lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.errors import BadInput, nearest, one_line
from bench.storage import write_atomically
from bench.store.parts import StoreError


def save_grid(results: Path, grid: dict[str, Any]) -> None:
    """Writes a grid's definition; raises StoreError.

    Keys: name, command, created_utc, wanted (a list of {"run_id", "trial"}, in order), skipped (a
    list of {"cell", "regularizer", "reason", "count"}), merged. What all trials have in common is
    written once, as `common`: a file of 100,000 trials is a quarter as large.
    """
    trials = [entry["trial"] for entry in grid["wanted"]]
    common = {
        name: value
        for name, value in (trials[0] if trials else {}).items()
        if all(name in trial and trial[name] == value for trial in trials)
    }
    wanted = [
        entry | {"trial": {k: v for k, v in entry["trial"].items() if k not in common}}
        for entry in grid["wanted"]
    ]
    head = {key: value for key, value in grid.items() if key != "wanted"} | {"common": common}
    lines = ",\n  ".join(json.dumps(entry, ensure_ascii=False) for entry in wanted)
    text = json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}")
    text += f',\n "wanted": [\n  {lines}\n ]\n}}\n'
    try:
        write_atomically(results / "grids" / f"{grid['name']}.json", text.encode())
    except OSError as error:
        raise StoreError(
            f"--results {results}: grids/{grid['name']}.json cannot be written: {error.strerror}"
        ) from None


def load_grid(results: Path, name: str) -> dict[str, Any]:
    """Returns a grid's definition as `save_grid` takes it; raises BadInput, with nearest names."""
    if name not in grid_names(results):
        raise BadInput(
            f"{results}: holds no grid called {one_line(name, 60)!r}. "
            f"{nearest(name, grid_names(results))}"
        )
    path = results / "grids" / f"{name}.json"
    try:
        grid: dict[str, Any] = json.loads(path.read_bytes())
        for key in ("name", "command", "wanted", "skipped"):
            grid[key]
        common = grid.pop("common", {})  # files from before it have every field in every trial
        for entry in grid["wanted"]:
            entry["trial"] = common | entry["trial"]
            entry["run_id"], entry["trial"]["cell"]
        for entry in grid["skipped"]:
            entry["cell"], entry["regularizer"], entry["reason"], entry["count"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput(
            f"{path}: not a grid of ours ({type(error).__name__}: {one_line(error, 100)}); "
            "start the grid again to write it anew"
        ) from None
    return grid


def grid_names(results: Path) -> list[str]:
    """Returns the names of all grids, newest first."""
    files = [p for p in (results / "grids").glob("*.json") if not p.name.startswith(".")]
    return [p.stem for p in sorted(files, key=lambda p: (-p.stat().st_mtime_ns, p.name))]
