"""Finds plugins beside the `bench` package and in --plugins folders, and selects them by name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import bench
from bench.errors import BadInput, nearest, one_line
from bench.plugins.facts import FOLDER, Plugin, read
from bench.plugins.spelling import Value, complete, join, split

Registry = dict[str, dict[str, Plugin]]
"""Plugins by kind ("cell", "regularizer") and name."""


def tree() -> Path:
    """Returns the folder that holds cells/ and regularizers/.

    Never found by `import cells`: that name belongs to whoever comes first on sys.path. A worker
    on a Ray cluster is sent the folders inside the package (see backends/ray_tune.py).
    """
    package = Path(bench.__file__).resolve().parent
    shipped = package / "_shipped"
    return shipped if shipped.is_dir() else package.parent


def find(extra: Path | None = None) -> Registry:
    """Lists every plugin of the tree and of `extra`, a folder that holds cells/ and regularizers/.

    Raises BadInput when `extra` is no such folder or two plugins share one name.
    """
    origins = [(tree(), "tree")]
    if extra is not None:
        if not any(os.path.isdir(extra / folder) for folder in FOLDER.values()):  # noqa: PTH112 - False, too, for a name that cannot be
            raise BadInput(
                f"--plugins {extra}: it must be a folder that holds cells/ or regularizers/"
            )
        origins.append((extra.resolve(), str(extra.resolve())))
    elif (tree() / "extra").is_dir():
        origins.append((tree() / "extra", "shipped"))
    registry: Registry = {kind: {} for kind in FOLDER}
    for root, origin in origins:
        for kind, folder in FOLDER.items():
            for path in sorted((root / folder).glob("*.py")):
                if path.name.startswith(("_", ".")):  # a shared part, or an editor's own file
                    continue
                plugin = read(path, kind, origin)
                other = registry[kind].setdefault(plugin.name, plugin)
                if other is not plugin:
                    raise BadInput(
                        f"two {kind}s are called {plugin.name!r}: {other.path} and {path}; "
                        "rename one of the files"
                    )
    return registry


@dataclass(frozen=True)
class Selected:
    """A plugin with all its hyper-parameters, and its canonical spelling."""

    plugin: Plugin
    hparams: dict[str, Value]
    spelling: str


def select_cell(selection: str, registry: Registry) -> Selected:
    """Returns the cell of a selection such as `lstm`; raises BadInput."""
    if "+" in selection:
        raise BadInput(f"cell: {one_line(selection, 60)!r}: cells cannot be added; name one")
    return _select("cell", selection, registry)


def select_regularizers(selection: str, registry: Registry) -> tuple[Selected, ...]:
    """Returns the regularizers of a selection such as `ar:alpha=2+tar`, sorted by name."""
    chosen = [_select("regularizer", part, registry) for part in selection.split("+")]
    names = [c.plugin.name for c in chosen]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"regularizer: {name} is named twice in {one_line(selection, 80)!r}")
    if len(names) > 1 and "none" in names:
        raise BadInput(f"regularizer: none cannot be added to others: {one_line(selection, 80)!r}")
    return tuple(sorted(chosen, key=lambda c: c.plugin.name))


def spell_regularizers(chosen: tuple[Selected, ...]) -> str:
    """Returns the canonical spelling of a sum."""
    return "+".join(c.spelling for c in chosen)


def _select(kind: str, selection: str, registry: Registry) -> Selected:
    name, given = split(selection, kind)
    plugin = registry[kind].get(name)
    if plugin is None:
        raise BadInput(
            f"{kind}: no {kind} is called {one_line(name, 60)!r}. {nearest(name, registry[kind])}"
        )
    if plugin.broken:
        raise BadInput(f"{kind} {name} is broken: {plugin.broken}")
    hparams = complete(name, given, plugin.params, kind)
    return Selected(plugin, hparams, join(name, hparams, plugin.params, plugin.coefficient))
