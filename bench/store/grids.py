"""grids/<grid>.json: what a grid is. Reports read exactly the run_ids it lists.

The harness writes these files and nobody else: the first key of each is the SHA-256 of all that
follows it, for a bit that flips in a trial would draw its record under another name. Files from
before there were checksums have none and are read as they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.config import FIELDS
from bench.errors import BadInput, nearest, one_line
from bench.plugins.spelling import NAME
from bench.storage import write_atomically
from bench.store.files import read_file, shown
from bench.store.parts import StoreError
from bench.store.rows import unreadable

_SEAL = re.compile(rb'\{\n "sha256": "([0-9a-f]{64})",\n')
_SPELLINGS = ("corpus", "cell", "regularizer")
_NUMBERS = {name for name, value in FIELDS.items() if not isinstance(value, (bool, str))}
_LARGEST = 1e300
"""Beyond it a float is soon infinite, and a whole number no float."""
_NOT_OURS = (ValueError, KeyError, TypeError, AttributeError, RecursionError)


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
    rest = text.removeprefix("{\n").encode()
    seal = f'{{\n "sha256": "{hashlib.sha256(rest).hexdigest()}",\n'
    try:
        write_atomically(results / "grids" / f"{grid['name']}.json", seal.encode() + rest)
    except OSError as error:
        raise StoreError(
            f"--results {results}: grids/{grid['name']}.json cannot be written: {error.strerror}"
        ) from None


def load_grid(results: Path, name: str) -> dict[str, Any]:
    """Returns a grid's definition as `save_grid` takes it; raises BadInput, with nearest names."""
    names = grid_names(results)
    if name not in names:
        raise BadInput(
            f"{results}: holds no grid called {one_line(name, 60)!r}. {nearest(name, names)}"
        )
    path = results / "grids" / f"{name}.json"
    try:
        content = read_file(path)
    except OSError as error:
        raise BadInput(f"{shown(path)}: {unreadable(error)}") from None
    try:
        return _parsed(content)
    except _NOT_OURS as error:
        raise BadInput(
            f"{shown(path)}: not a grid of ours ({type(error).__name__}: {one_line(error, 100)}); "
            "start the grid again to write it anew"
        ) from None


def _parsed(content: bytes) -> dict[str, Any]:
    """Returns a definition; raises one of `_NOT_OURS`."""
    seal = _SEAL.match(content)
    rest = memoryview(content)[seal.end() :] if seal else b""
    grid: dict[str, Any] = json.loads(content)
    # Without its place the key is of a file that was written anew by something else.
    if grid.pop("sha256", None) and not (
        seal and hashlib.sha256(rest).hexdigest() == seal[1].decode()
    ):
        raise ValueError("damaged or edited: it does not match its checksum")
    for key in ("name", "command", "wanted", "skipped"):
        grid[key]
    common = grid.pop("common", {})  # files from before it have every field in every trial
    _check(common)
    for entry in grid["wanted"]:
        _check(entry["trial"])
        entry["trial"] = common | entry["trial"]
        entry["trial"]["cell"]
        if not NAME.fullmatch(entry["run_id"]):  # it becomes the name of a file
            raise ValueError(f"run_id {one_line(entry['run_id'], 40)!r} is no name")
    for entry in grid["skipped"]:
        entry["cell"], entry["regularizer"], entry["reason"], entry["count"]
    return grid


def _check(trial: Mapping[str, Any]) -> None:
    """Raises TypeError where a field has no value that a trial could have."""
    for name, value in trial.items():
        if value is None and FIELDS.get(name) is None:
            continue
        if name in _NUMBERS:
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            right = number and -_LARGEST < value < _LARGEST
        elif name in _SPELLINGS:
            right = isinstance(value, str)
        else:
            right = not isinstance(value, (list, dict))
        if not right:
            raise TypeError(f"{name} cannot be {one_line(value, 40)}")


def grid_names(results: Path) -> list[str]:
    """Returns the names of all grids, newest first."""
    found = []
    for path in (results / "grids").glob("*.json"):
        if not path.name.startswith("."):
            with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                found.append((-path.lstat().st_mtime_ns, path.name))
    return [name.removesuffix(".json") for _, name in sorted(found)]
