"""Grid files: a product inside a block, a union of blocks; expansion into trials."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.config.trial import FIELDS
from bench.config.yaml12 import read
from bench.errors import BadInput, nearest, one_line
from bench.plugins.spelling import NAME

PRESETS = Path(__file__).resolve().parent.parent / "presets"
SIZE = {"nhid": "num_params", "num_params": "nhid"}
SETTABLE = (*FIELDS, "num_params")
"""What a grid may set: a trial's fields, and the size that stands for an `nhid` (see sizes)."""
MAX_BLOCKS = 10_000
MAX_REPS = 10_000
_TOP = ("name", "description", "base", "axes", "reps", "blocks", "include", "keep_weights")
_BLOCK = ("base", "axes", "reps")


@dataclass(frozen=True)
class Block:
    """A product: `base` holds in every trial, each axis is a list of fields that vary together."""

    base: dict[str, Any]
    axes: dict[str, tuple[dict[str, Any], ...]]
    reps: int
    where: str


@dataclass(frozen=True)
class Grid:
    """A named union of blocks. `keep_weights` is none or best."""

    name: str
    blocks: tuple[Block, ...]
    keep_weights: str = "none"
    where: str = ""


def preset_names() -> list[str]:
    """Returns the names of the grids that travel with the harness."""
    return sorted(p.stem for p in PRESETS.glob("*.yaml"))


def check_name(name: object, where: str) -> str:
    """Returns a name that is safe as a file name; raises BadInput."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise BadInput(
            f"{where}: the name {one_line(name, 60)!r} must be 1 to 100 letters, digits, or . _ - "
            "and begin with a letter or digit"
        )
    return name


def load_grid(source: str) -> Grid:
    """Reads a preset by name or a grid file by path (`.yaml`); raises BadInput."""
    return _load(source, Path.cwd(), ())


def _load(source: str, folder: Path, above: tuple[str, ...]) -> Grid:
    is_file = source.endswith((".yaml", ".yml")) or "/" in source
    where = source if is_file else f"preset {source}"
    if "\0" in source:
        raise BadInput(f"{where}: no such file")
    path = Path(os.path.realpath(folder / source)) if is_file else PRESETS / f"{source}.yaml"
    if not is_file and source not in preset_names():
        raise BadInput(
            f"no preset is called {one_line(source, 60)!r} (a file's name ends in .yaml). "
            f"{nearest(source, preset_names())}"
        )
    if str(path) in above:
        raise BadInput(f"{where}: includes itself: {' -> '.join([*above, str(path)])}")
    if len(above) > 20:
        raise BadInput(f"{where}: includes more than 20 files deep")
    data = read(path, where)
    _known(data, _TOP, where)
    name = check_name(data.get("name", path.stem), where)
    keep = data.get("keep_weights", "none")
    if keep not in ("none", "best"):
        raise BadInput(f"{where}: keep_weights: {one_line(keep, 40)} must be none or best")
    blocks = _blocks(data, where)
    include = data.get("include", [])
    if not isinstance(include, list) or not all(isinstance(i, str) for i in include):
        raise BadInput(f"{where}: include must be a list of presets or files")
    for other in include:
        blocks += _load(other, path.parent, (*above, str(path))).blocks
        if len(blocks) > MAX_BLOCKS:
            raise BadInput(f"{where}: more than {MAX_BLOCKS:,} blocks, those of include counted")
    if not blocks:
        raise BadInput(f"{where}: an empty grid; give base, axes, blocks or include")
    return Grid(name, tuple(blocks), keep, where)


def _known(data: dict[str, Any], names: tuple[str, ...], where: str) -> None:
    for key in data:
        if key not in names:
            raise BadInput(
                f"{where}: no grid has a key {one_line(key, 60)!r}. {nearest(key, names)}"
            )


def _blocks(data: dict[str, Any], where: str) -> list[Block]:
    base = _mapping(data, "base", where)
    reps = _reps(data.get("reps", 1), f"{where}: reps:")
    if "blocks" not in data:
        if "base" not in data and "axes" not in data:
            if "reps" in data:
                raise BadInput(
                    f"{where}: reps counts for base, axes and blocks here, of which "
                    "there are none; write it in the files that are included"
                )
            return []
        return [Block(base, _axes(data, base, where), reps, where)]
    if "axes" in data:
        raise BadInput(f"{where}: axes and blocks exclude each other; put axes into a block")
    if not isinstance(data["blocks"], list):
        raise BadInput(f"{where}: blocks must be a list")
    blocks = []
    for number, item in enumerate(data["blocks"], 1):
        here = f"{where}: block {number}"
        if not isinstance(item, dict):
            raise BadInput(f"{here} must be a mapping")
        _known(item, _BLOCK, here)
        own = base | _mapping(item, "base", here)
        blocks.append(
            Block(
                own, _axes(item, own, here), _reps(item.get("reps", reps), f"{here}: reps:"), here
            )
        )
    return blocks


def _mapping(data: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    value = data.get(key, {})
    if not isinstance(value, dict):
        raise BadInput(f"{where}: {key} must be a mapping")
    if key == "base":
        _fields(value, f"{where}: base")
    return value


def _fields(values: dict[str, Any], where: str) -> None:
    for name, value in values.items():
        if name == "rep":
            raise BadInput(f"{where}: rep is counted by the harness; write reps: N")
        if name not in SETTABLE:
            raise BadInput(
                f"{where}: a trial has no field {one_line(name, 60)!r}. {nearest(name, SETTABLE)}"
            )
        if isinstance(value, dict | list):
            raise BadInput(f"{where}: {name} must be one value; several go under axes")


def _reps(value: object, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_REPS:
        raise BadInput(
            f"{where} {one_line(value, 40)} must be a whole number from 1 to {MAX_REPS:,}"
        )
    return value


def _axes(
    data: dict[str, Any], base: dict[str, Any], where: str
) -> dict[str, tuple[dict[str, Any], ...]]:
    axes = {}
    taken: dict[str, str] = {}
    for axis, values in _mapping(data, "axes", where).items():
        here = f"{where}: axis {axis}"
        if not isinstance(values, list):
            raise BadInput(f"{here} must be a list, as in [none, ar]")
        if not values:
            raise BadInput(f"{here} is empty, so the grid would be; give it a value")
        steps = []
        seen = set()
        for value in values:
            step = value if isinstance(value, dict) else {axis: value}
            _fields(step, here)
            if frozenset(step.items()) in seen:
                raise BadInput(f"{here}: the value {one_line(value, 60)} is there twice")
            seen.add(frozenset(step.items()))
            steps.append(step)
        for name in {name for step in steps for name in step}:
            if name in taken:
                raise BadInput(f"{here}: the axis {taken[name]} sets {name}, too")
            taken[name] = axis
        axes[axis] = tuple(steps)
    return axes


def override(
    grid: Grid,
    sets: Iterable[str] = (),
    reps: int | None = None,
    name: str | None = None,
) -> Grid:
    """Returns the grid with `--set FIELD=V[,V…]` and `--reps N` applied to every trial.

    An axis called FIELD is replaced as a whole, with all that varied along with it. A changed grid
    is called `name`, or its own name with a short suffix. Raises BadInput.
    """
    changes: dict[str, list[str]] = {}
    for text in sets:
        key, sign, values = text.partition("=")
        if not sign or not values:
            raise BadInput(f"--set {one_line(text, 60)}: write FIELD=VALUE[,VALUE…]")
        if key == "rep":
            raise BadInput("--set rep: rep is counted by the harness; use --reps N")
        if key not in SETTABLE:
            raise BadInput(
                f"--set {one_line(key, 60)}: a trial has no such field. {nearest(key, SETTABLE)}"
            )
        if key in changes:
            raise BadInput(f"--set {key} is given twice; write its values in one, with commas")
        # A folder's path may hold commas.
        changes[key] = [values] if values.startswith("folder:") else values.split(",")
        if len(set(changes[key])) < len(changes[key]):
            raise BadInput(f"--set {one_line(text, 80)}: one value is there twice")
    if reps is not None:
        _reps(reps, "--reps")
    # A size that is asked for takes the place of the other kind of size.
    gone = {*changes, *(SIZE[key] for key in changes if key in SIZE)}
    blocks = []
    for block in grid.blocks:
        axes = {
            name: tuple({k: v for k, v in step.items() if k not in gone} for step in axis)
            for name, axis in block.axes.items()
            if name not in gone
        }
        axes |= {key: tuple({key: v} for v in values) for key, values in changes.items()}
        base = {k: v for k, v in block.base.items() if k not in gone}
        blocks.append(Block(base, axes, reps or block.reps, block.where))
    if name is not None:
        new_name = check_name(name, "--name")
    elif changes or reps is not None:
        digest = hashlib.sha256(repr((sorted(changes.items()), reps)).encode()).hexdigest()
        new_name = check_name(f"{grid.name}-{digest[:6]}", grid.where)
    else:
        new_name = grid.name
    return replace(grid, name=new_name, blocks=tuple(blocks))
