"""Finds plugins and selects them by name.

They lie beside the `bench` package, in a --plugins folder, or in installed packages.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import bench
from bench.errors import BadInput, nearest, one_line
from bench.plugins.facts import FOLDER, Plugin, read
from bench.plugins.installed import installed, shipped
from bench.plugins.spelling import Value, complete, join, split

Registry = dict[str, dict[str, Plugin]]
"""Plugins by kind ("cell", "regularizer") and name."""


def tree() -> Path:
    """Returns the folder that holds cells/ and regularizers/.

    Never found by `import cells`: that name belongs to whoever comes first on sys.path. A worker
    on a Ray cluster is sent the folders inside the package (see backends/ray_tune.py).
    """
    return _sent() or Path(bench.__file__).resolve().parent.parent


def _sent() -> Path | None:
    """Returns the folder of plugins that the driver sent to this worker, if there is one."""
    folder = Path(bench.__file__).resolve().parent / "_shipped"
    return folder if folder.is_dir() else None


def find(extra: Path | None = None) -> Registry:
    """Lists every plugin of the tree, of `extra` and of the installed packages.

    `extra` is a folder that holds cells/ and regularizers/. Raises BadInput when it is no such
    folder or two plugins in folders share one name. An installed package harms nothing: a plugin
    of it that shares its name is broken, and stands under a name that nobody can select.
    """
    origins, sent = [(tree(), "tree")], _sent()
    if extra is not None:
        if not any(os.path.isdir(extra / folder) for folder in FOLDER.values()):  # noqa: PTH112 - False, too, for a name that cannot be
            raise BadInput(
                f"--plugins {extra}: it must be a folder that holds cells/ or regularizers/"
            )
        origins.append((extra.resolve(), str(extra.resolve())))
    elif sent and (sent / "extra").is_dir():
        origins.append((sent / "extra", "shipped"))
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
    in_folders = {kind: dict(found) for kind, found in registry.items()}
    for plugin in shipped(sent / "installed") if sent else installed():
        _add(plugin, registry[plugin.kind], in_folders[plugin.kind])
    return registry


def _add(plugin: Plugin, found: dict[str, Plugin], in_folders: dict[str, Plugin]) -> None:
    """Adds a plugin of an installed package to those found, unless its name is taken."""
    other = found.get(plugin.name)
    if other is None:
        found[plugin.name] = plugin
        return
    if other.path.resolve() == plugin.path.resolve():
        return  # the package itself is the --plugins folder
    if plugin.name not in in_folders:  # two packages: choosing one would be a guess
        found[plugin.name] = _namesake(other, plugin)
    found[f"{plugin.name} ({plugin.origin})"] = _namesake(plugin, other)


def _namesake(plugin: Plugin, other: Plugin) -> Plugin:
    cause = (
        f"{plugin.origin}: two {plugin.kind}s are called {plugin.name!r}: {plugin.path} and "
        f"{other.path} ({other.origin}); rename or uninstall one"
    )
    return replace(plugin, broken=plugin.broken or cause)


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
        known = {found.name for found in registry[kind].values()}
        raise BadInput(
            f"{kind}: no {kind} is called {one_line(name, 60)!r}. {nearest(name, known)}"
        )
    if plugin.broken:
        raise BadInput(f"{kind} {name} is broken: {plugin.broken}")
    hparams = complete(name, given, plugin.params, kind)
    return Selected(plugin, hparams, join(name, hparams, plugin.params, plugin.coefficient))
