"""What SECURITY.md says of the source: nothing that ships unpickles, evaluates or opens a shell.

The source is read, not searched: names are followed through imports, and each rule is broken by a
line that shows it can be. What the verbs do with hostile data is in test_security_data.py.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = sorted(
    p for top in ("bench", "cells", "regularizers") for p in (ROOT / top).rglob("*.py")
)

UNPICKLERS = {
    "pickle",
    "_pickle",
    "cloudpickle",
    "dill",
    "marshal",
    "shelve",
    "joblib",
    "jsonpickle",
}
# Import code by a path or by a name that is not written out.
IMPORTERS = {
    "__import__", "importlib.import_module", "importlib.util.spec_from_file_location",
    "importlib.util.module_from_spec", "importlib.machinery.SourceFileLoader", "runpy.run_path",
    "runpy.run_module", "exec_module", "source_to_code", "load_module",
}  # fmt: skip
# The one place that runs a plugin's file, and the one that picks a verb's own module.
MAY_IMPORT = {"bench/plugins/load.py", "bench/__main__.py"}
NEVER = {
    "eval", "exec", "compile", "os.system", "os.popen", "subprocess.getoutput",
    "subprocess.getstatusoutput", "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load",
    "yaml.full_load_all", "yaml.load_all", "torch.jit.load", "torch.hub.load",
    "torch.package.PackageImporter", "shutil.unpack_archive",
}  # fmt: skip
NEVER_METHODS = {"read_pickle", "to_pickle", "unsafe_load", "unpack_archive"}
UNSAFE_LOADERS = {"Loader", "CLoader", "FullLoader", "UnsafeLoader"}


def imported(tree: ast.AST) -> dict[str, str]:
    """What each name of a module stands for: `np` for numpy, `load` for torch.load."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                short = alias.asname or alias.name.partition(".")[0]
                found[short] = alias.name if alias.asname else short
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    """`np.load` as numpy.load; a method of something unnamed as `?.load`."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        left = dotted(node.value, names)
        return f"{left}.{node.attr}"
    return "?"


def literal(call: ast.Call, name: str) -> object:
    """The value of an option where it is written out; `...` where it is not, or is absent."""
    values = [k.value for k in call.keywords if k.arg == name]
    return values[0].value if values and isinstance(values[0], ast.Constant) else ...


def of_call(call: ast.Call, names: dict[str, str], where: str) -> Iterator[str]:
    name = dotted(call.func, names)
    last = name.rpartition(".")[2]
    given = {k.arg for k in call.keywords}
    if name in NEVER or last in NEVER_METHODS:
        yield name
    if (name in IMPORTERS or last in IMPORTERS) and where not in MAY_IMPORT:
        yield f"{name}: imports code"
    if name == "torch.load" and literal(call, "weights_only") is not True:
        yield "torch.load without weights_only=True"
    if name == "yaml.load":
        loader = [k.value for k in call.keywords if k.arg == "Loader"] + call.args[1:]
        if [dotted(one, names) for one in loader] not in (["_Loader"], ["yaml.SafeLoader"]):
            yield "yaml.load with another loader than ours"
    if "shell" in given and literal(call, "shell") is not False:
        yield f"{name} with a shell"
    if "allow_pickle" in given and literal(call, "allow_pickle") is not False:
        yield f"{name} with allow_pickle"
    unpacks = last in ("extractall", "extract") and isinstance(call.func, ast.Attribute)
    if unpacks and literal(call, "filter") != "data":
        yield f"{name} without the data filter"


def complaints(source: str, where: str = "bench/x.py") -> list[str]:
    """What a module does that nothing here may do."""
    tree = ast.parse(source)
    names, found = imported(tree), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            parts = {p for alias in node.names for p in f"{module}.{alias.name}".split(".")}
            found += [f"imports {bad}" for bad in sorted(parts & UNPICKLERS)]
        elif isinstance(node, ast.Attribute):
            whole = dotted(node, names)
            if node.attr in UNSAFE_LOADERS and whole.startswith("yaml."):
                found.append(whole)
            if node.attr in UNPICKLERS:
                found.append(whole)
        elif isinstance(node, ast.ClassDef):
            bases = [dotted(base, names) for base in node.bases]
            found += [
                f"derives from {b}" for b in bases if b.removeprefix("yaml.") in UNSAFE_LOADERS
            ]
        elif isinstance(node, ast.Call):
            found += of_call(node, names, where)
    return found


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_file_that_ships_runs_no_data(path: Path) -> None:
    assert complaints(path.read_text(), path.relative_to(ROOT).as_posix()) == []


def test_the_places_that_import_by_path_are_there() -> None:
    """An exception for a file that is gone, or needs none any more, would hide another."""
    for name in MAY_IMPORT:
        assert complaints((ROOT / name).read_text(), "elsewhere") != []
    assert len(SHIPPED) > 100


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "import _pickle as p",
        "from ray import cloudpickle",
        "import ray\nray.cloudpickle.loads(b'')",
        "from pickle import loads",
        "import torch\ntorch.load('x')",
        "import torch\ntorch.load('x', weights_only=False)",
        "import torch\nsafe = True\ntorch.load('x', weights_only=safe)",
        "from torch import load as get\nget('x')",
        "import torch as t\nt.jit.load('x')",
        "eval('1')",
        "exec(text)",
        "compile(text, 'x', 'exec')",
        "import yaml\nyaml.load(text, yaml.Loader)",
        "import yaml\nyaml.load(text, Loader=other)",
        "import yaml\nyaml.unsafe_load(text)",
        "import yaml\nclass _Loader(yaml.FullLoader): pass",
        "from yaml import UnsafeLoader\nclass _Loader(UnsafeLoader): pass",
        "import subprocess\nsubprocess.run('ls', shell=True)",
        "from subprocess import Popen\nPopen('ls', shell=yes)",
        "import os\nos.system('ls')",
        "from os import popen\npopen('ls')",
        "import tarfile\ntarfile.open('x').extractall('y')",
        "import tarfile\ntarfile.open('x').extractall('y', filter='tar')",
        "import zipfile\nzipfile.ZipFile('x').extractall('y')",
        "import shutil\nshutil.unpack_archive('x')",
        "import pandas as pd\npd.read_pickle('x')",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import importlib\nimportlib.import_module(name)",
        "from importlib.util import spec_from_file_location as s\ns('x', path)",
        "spec.loader.exec_module(module)",
        "__import__(name)",
    ],
)
def test_a_line_that_runs_data_is_seen(line: str) -> None:
    assert complaints(line) != []


@pytest.mark.parametrize(
    "line",
    [
        "import re\nre.compile('x')",
        "model.eval()",
        "import torch\ntorch.compile(model)",
        "import torch\ntorch.load('x', weights_only=True)",
        "import yaml\nyaml.load(text, Loader=_Loader)",
        "import subprocess\nsubprocess.run(['ls'], shell=False)",
        "import tarfile\ntarfile.open('x').extractall('y', filter='data')",
        "import ast\nast.literal_eval(text)",
    ],
)
def test_a_harmless_line_is_let_through(line: str) -> None:
    assert complaints(line) == []


def test_the_page_names_the_versions_that_are_asked_for() -> None:
    page = " ".join((ROOT / "SECURITY.md").read_text().split())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = dict(re.findall(r'"?(torch|ray)[^>,]*>=([\d.]+)', " ".join(project["dependencies"])))
    assert f"torch {asked['torch']} or newer" in page
    assert f"Ray {asked['ray']} or newer" in page
    assert f"Python {project['requires-python'].removeprefix('>=')} or newer" in page
