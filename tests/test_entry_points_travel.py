"""Plugins of installed packages on their way to workers, and from the docs to a record."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import course, store, worker
from bench.backends import ray_cluster
from bench.plugins import find, source_hash
from tests.conftest import Verb
from tests.grids import ROOT, grid_file
from tests.packages import BOMB, CELL, cells, package


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


# --- on the way to the workers --------------------------------------------------------------------

SENT = """
import json
from bench.plugins import find, load_class
found = find()["cell"]
print(json.dumps({name: [found[name].hash, load_class(found[name]).gain] for name in ("made_up", "made_2")}))
"""  # noqa: E501


def test_the_files_travel_to_workers_without_the_package(site: Path, tmp_path: Path) -> None:
    package(site, cells("made_up = mycells.made_up"))
    yours = package(site, cells("made_2 = yours.made_2"), name="yours")
    (yours / "made_2.py").write_text(CELL)
    (yours / "_gates.py").write_text("GAIN = 5\n")  # another part of the same name
    here = {name: find()["cell"][name].hash for name in ("made_up", "made_2")}
    with ray_cluster.shipped(None) as module:
        done = subprocess.run(
            [sys.executable, "-c", SENT],
            env=os.environ | {"PYTHONPATH": str(Path(module).parent)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "made_up": [here["made_up"], 2],
        "made_2": [here["made_2"], 5],
    }


def test_a_worker_that_lacks_the_package_says_so_in_the_record(
    verb: Verb, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(site, cells("made_up = mycells.made_up"))
    inner = course.course

    def without(*args: Any) -> object:
        monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(site)])
        return inner(*args)

    monkeypatch.setattr(worker, "course", without)
    grid = grid_file(tmp_path, "{cell: [made_up]}")
    assert verb("grid", grid, "--backend", "local", "--jobs", 0, "--no-report").code == 1
    runs, _ = store.load_runs(tmp_path / "results")
    assert (runs.status.item(), runs.error_type.item()) == ("failed", "BadInput")
    assert "no cell is called 'made_up'" in runs.error_text.item()


# --- the whole way, with the packages of the docs -------------------------------------------------


@pytest.mark.slow
def test_a_package_made_as_the_docs_say_is_installed_checked_and_trained(tmp_path: Path) -> None:
    source, site = tmp_path / "source", tmp_path / "site"
    (source / "mycells").mkdir(parents=True)
    (source / "mycells" / "__init__.py").write_text(BOMB)
    for page, name in (("add-a-cell.md", "mgu"), ("add-a-regularizer.md", "curvature")):
        text = (ROOT / "docs" / page).read_text()
        (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        (source / "mycells" / f"{name}.py").write_text(code)
    (toml,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/add-a-cell.md").read_text(), re.DOTALL)
    (source / "pyproject.toml").write_text(toml)

    def run(*words: object, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *map(str, words)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join((str(site), str(ROOT)))},
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return " ".join(done.stdout.split())

    pip = ("pip", "--disable-pip-version-check", "-qq", "install", "--no-index", "--no-deps")
    run(*pip, "--no-build-isolation", "--target", site, source)
    listed = run("bench.plugins", "list")
    assert "from entry point mycells 1.2" in listed and "none broken" in listed
    for name in ("mgu", "curvature"):
        assert f"{name}: all rules hold" in run("bench.plugins", "check", name)
    grid = grid_file(tmp_path, "{cell: [mgu], regularizer: [none, curvature]}")
    words = ("--backend", "local", "--jobs", 1, "--no-report", "--results", "results")
    assert "2 trials: 2 ok" in run("bench.grid", grid, *words)
    runs, problems = store.load_runs(tmp_path / "results")
    assert problems == []
    assert set(runs.plugin_origin) == {"entry point mycells 1.2", "entry point mycells 1.2, tree"}
    assert set(runs.cell_source) == {source_hash(site / "mycells" / "mgu.py")}
    assert source_hash(site / "mycells" / "curvature.py") in set(runs.regularizer_source)
    assert "0 to run" in run("bench.grid", grid, *words)
