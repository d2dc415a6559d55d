"""The plugins that the docs build are real: they pass the contract and train."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import store
from tests.grids import ROOT, bench, grid_file

PAGES = {"cells/mgu.py": "add-a-cell.md", "regularizers/curvature.py": "add-a-regularizer.md"}


def write(folder: Path) -> None:
    for name, page in PAGES.items():
        text = (ROOT / "docs" / page).read_text()
        assert f"`{name}`" in text
        (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        path = folder / name
        path.parent.mkdir()
        path.write_text(block)


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_plugin_of_the_page_passes_the_contract(name: str, tmp_path: Path) -> None:
    write(tmp_path)
    assert bench("plugins", "check", tmp_path / name) == 0
    code = (tmp_path / name).read_text().partition('"""\n\n')[2]
    assert len(code.splitlines()) < 40


def test_they_train_together(tmp_path: Path) -> None:
    write(tmp_path)
    grid = grid_file(tmp_path, '{cell: [mgu, "mgu:forget_bias=1"], regularizer: ["ar+curvature"]}')
    argv = ("--plugins", tmp_path, "--backend", "local", "--jobs", 0, "--no-report")
    assert bench("grid", grid, "--results", tmp_path / "r", *argv) == 0
    runs, _ = store.load_runs(tmp_path / "r")
    assert sorted(runs.cell) == ["mgu", "mgu:forget_bias=1"]
    assert set(runs.regularizer) == {"ar:alpha=2+curvature:gamma=1"}
    assert (runs.valid_nll < 7.4).all(), "better than a uniform guess over some 1,600 words"
