"""Plugins of installed packages, by the entry points `bench.cells` and `bench.regularizers`.

Listing imports no package: its metadata name a module, the module's file is found by its path and
read as any other plugin. So the rules are those of a file in the tree: the entry point, the file
and the plugin have one name, and what is shared lies in `_*.py` parts beside the file. Then the
source hash covers all of it, and the files can travel to workers that lack the package.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from bench.errors import one_line
from bench.plugins.facts import CLASS, FOLDER, Plugin, read
from bench.plugins.source_hash import parts

GROUP = {"cell": "bench.cells", "regularizer": "bench.regularizers"}


class _Broken(Exception):
    pass


def installed() -> list[Plugin]:
    """Returns what the installed packages bring, sorted; what is wrong with one is its `broken`."""
    found = []
    for origin, dist in _distributions():
        try:
            points = list(dist.entry_points)
        except Exception as error:  # whatever their text does to the parser
            cause = f"{origin}: its entry points cannot be read: {one_line(error, 200)}"
            name = origin.split()[2]
            found.append(Plugin("cell", name, Path(name), origin, broken=cause))
            continue
        for kind, group in GROUP.items():
            found += [_plugin(kind, point, origin) for point in points if point.group == group]
    return sorted(found, key=lambda plugin: (plugin.kind, plugin.name, plugin.origin))


def ship(folder: Path) -> None:
    """Copies the files of every installed plugin that works to `folder`, for `shipped`."""
    folder.mkdir(parents=True)
    for plugin in installed():
        if not plugin.broken:
            # A folder for each: two packages may have a part of one name.
            target = folder / plugin.name / FOLDER[plugin.kind]
            target.mkdir(parents=True, exist_ok=True)
            for file in parts(plugin.path):
                shutil.copyfile(file, target / file.name)


def shipped(folder: Path) -> list[Plugin]:
    """Returns the plugins that `ship` put into `folder` on the driver."""
    return [
        read(path, kind, "shipped")
        for kind, name in FOLDER.items()
        for path in sorted(folder.glob(f"*/{name}/*.py"))
        if not path.name.startswith("_")
    ]


def _distributions() -> Iterator[tuple[str, metadata.Distribution]]:
    """Yields the packages that name one of our groups, each once: the first on sys.path counts."""
    seen = set()
    for dist in metadata.distributions():
        try:
            text = dist.read_text("entry_points.txt") or ""
            if not any(f"[{group}]" in text for group in GROUP.values()):
                continue
            name, version = str(dist.metadata["Name"]), str(dist.version)
        except Exception:  # a package whose metadata are broken, which is no concern of ours
            continue
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key not in seen:
            seen.add(key)
            yield one_line(f"entry point {name} {version}", 100), dist


def _plugin(kind: str, point: metadata.EntryPoint, origin: str) -> Plugin:
    name, value = one_line(point.name, 60), one_line(point.value, 100)
    try:
        module, _, attr = (word.strip() for word in value.partition(":"))
        if not re.fullmatch(r"\w+(\.\w+)*", module):
            raise _Broken(f"write package.module or package.module:{CLASS[kind]}")
        if attr not in ("", CLASS[kind]):
            raise _Broken(f"the class must be called exactly {CLASS[kind]}")
        path = _file(module)
        if path.stem != point.name:
            raise _Broken(f"the entry point must be called {path.stem}, as its file {path}")
    except _Broken as error:
        cause = f"{origin}, {name} = {value}: {error}"
        return Plugin(kind, name, Path(value), origin, broken=one_line(cause, 300))
    plugin = read(path, kind, origin, own=module.split(".")[0])
    return replace(plugin, broken=f"{origin}: {plugin.broken}") if plugin.broken else plugin


def _file(module: str) -> Path:
    """Returns the file of a module without importing the packages that hold it."""
    top, *below = module.split(".")
    try:
        spec = importlib.util.find_spec(top)  # only for a name with a dot would this import
    except Exception as error:
        raise _Broken(f"{top} cannot be looked up: {one_line(error, 100)}") from None
    if spec is None:
        raise _Broken(f"there is no module {top}")
    if not below:
        path = Path(spec.origin or "")
        if path.suffix == ".py" and path.name != "__init__.py" and path.is_file():
            return path
        raise _Broken(f"{top} is no single .py file; name the module in it")
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    for name in below[:-1]:
        folders = [folder / name for folder in folders]
    for folder in folders:
        if (folder / f"{below[-1]}.py").is_file():
            return folder / f"{below[-1]}.py"
    raise _Broken(f"there is no file {'/'.join(below)}.py in the package {top}")
