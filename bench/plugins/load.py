"""Imports the plugins that were selected; nothing else of the harness imports a plugin."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.machinery
import importlib.util
import inspect
import re
import sys
import traceback
import types
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

from bench.errors import BadInput, one_line
from bench.plugins.facts import CLASS, Plugin
from bench.plugins.find import Selected

_PREFIX = "_bench_"


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Always compiles the file it finds: a cached .pyc may be older than an edit in its second."""

    def get_code(self, fullname: str) -> types.CodeType:
        path = self.get_filename(fullname)
        code: types.CodeType = self.source_to_code(self.get_data(path), path)
        return code


class _Parts(MetaPathFinder):
    """Finds the shared parts of the packages that `_package` makes, and nothing else."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if not fullname.startswith(_PREFIX) or not path:
            return None
        file = Path(path[0]) / f"{fullname.rpartition('.')[2]}.py"
        if not file.is_file():
            return None
        loader = _SourceLoader(fullname, str(file))
        return importlib.util.spec_from_file_location(fullname, file, loader=loader)


def load_class(plugin: Plugin) -> Any:
    """Imports a plugin's file and returns its class.

    Each folder becomes a package of our own naming, so that `from ._gates import x` works and no
    name on sys.path is taken. Raises BadInput with the traceback as its detail.
    """
    if plugin.broken:
        raise BadInput(f"{plugin.kind} {plugin.name} is broken: {plugin.broken}")
    package = _package(plugin.path.parent)
    stem = re.sub(r"\W", "_", plugin.name)
    name = f"{package}.{stem}_{plugin.hash}"
    module = sys.modules.get(name)
    if module is None:
        _drop_parts(package)
        spec = importlib.util.spec_from_file_location(
            name, plugin.path, loader=_SourceLoader(name, str(plugin.path))
        )
        if spec is None or spec.loader is None:
            raise BadInput(f"{plugin.path}: Python cannot load this file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            del sys.modules[name]
            if isinstance(error, KeyboardInterrupt):
                raise
            raise BadInput(
                f"{plugin.kind} {plugin.name}: {plugin.path} cannot be imported: "
                f"{type(error).__name__}: {one_line(error, 200)}",
                detail=traceback.format_exc(),
            ) from error
    loaded = getattr(module, CLASS[plugin.kind], None)
    _check_class(plugin, loaded)
    return loaded


def build_regularizers(chosen: tuple[Selected, ...]) -> list[tuple[Any, float]]:
    """Returns each regularizer with the coefficient that scales it; raises BadInput."""
    built = []
    for one in chosen:
        cls = load_class(one.plugin)
        try:
            regularizer = cls(**one.hparams)
        except Exception as error:
            raise BadInput(
                f"regularizer {one.spelling}: {type(error).__name__}: {one_line(error, 200)}",
                detail="" if isinstance(error, ValueError) else traceback.format_exc(),
            ) from error
        name = one.plugin.coefficient
        built.append((regularizer, float(one.hparams[name]) if name else 1.0))
    return built


def _package(folder: Path) -> str:
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    name = f"{_PREFIX}{folder.name}_{digest}"
    if not any(isinstance(finder, _Parts) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Parts())
    if name not in sys.modules:
        package = types.ModuleType(name)
        package.__path__ = [str(folder)]
        sys.modules[name] = package
    return name


def _drop_parts(package: str) -> None:
    # A plugin loaded anew must see its shared parts as they are on disk now.
    for name in [n for n in sys.modules if n.startswith(f"{package}._")]:
        del sys.modules[name]
        vars(sys.modules[package]).pop(name.rpartition(".")[2], None)


def _check_class(plugin: Plugin, loaded: Any) -> None:
    where = f"{plugin.kind} {plugin.name}: {plugin.path}"
    if not isinstance(loaded, type):
        raise BadInput(f"{where}: {CLASS[plugin.kind]} must be a class")
    if plugin.kind == "cell":
        import torch

        if not issubclass(loaded, torch.nn.Module):
            raise BadInput(f"{where}: Cell must be a torch.nn.Module")
        for method in ("forward", "initial_state"):
            found = getattr(loaded, method, None)
            if not callable(found) or found is torch.nn.Module.forward:
                raise BadInput(f"{where}: Cell has no method {method}")
        parameters = list(inspect.signature(loaded).parameters)[2:]
    else:
        frozen = dataclasses.is_dataclass(loaded) and loaded.__dataclass_params__.frozen  # type: ignore[attr-defined]
        if not frozen:
            raise BadInput(f"{where}: Regularizer must be a @dataclass(frozen=True)")
        if "__call__" not in dir(loaded):
            raise BadInput(f"{where}: Regularizer has no method __call__")
        parameters = [f.name for f in dataclasses.fields(loaded)]
        name = getattr(loaded, "coefficient", None)
        if name is not None and name not in parameters:
            raise BadInput(f"{where}: coefficient names {name!r}, which is none of its fields")
    if parameters != [p.name for p in plugin.params]:
        raise BadInput(
            f"{where}: its hyper-parameters must all be written in {CLASS[plugin.kind]} itself; "
            f"read {[p.name for p in plugin.params]}, loaded {parameters}"
        )
