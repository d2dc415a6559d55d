"""The simulated records are those of the grid's own trials; every step says what it measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import store
from benchmarks import scale
from tests.grids import TINY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    text = f"name: {scale.NAME}\n{TINY}\naxes: {{regularizer: [none, ar]}}\nreps: 3\n"
    (tmp_path / "grid.yaml").write_text(text)
    return tmp_path


def test_the_grid_has_as_many_trials_as_are_asked_for() -> None:
    text = scale.grid_text(100_000)
    assert text.count(":alpha=") + text.count("[none, ") + text.count('"tar:') == 20
    assert len(text.split("lr: [")[1].split("]")[0].split(",")) == 100_000 / scale.STEP


def test_compacted_and_part_files_hold_the_same_records(folder: Path, tmp_path: Path) -> None:
    for step in ("simulate", "load runs", "load epochs", "missing", "expand and plan"):
        found = scale.STEPS[step](folder)
        assert found["seconds"] >= 0 and found["detail"]
    assert found["detail"] == "6 trials, 0 missing"
    report = scale.STEPS["bench.report"](folder)
    assert report["megabytes"] > 1
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "grid.yaml").write_text((folder / "grid.yaml").read_text())
    scale.STEPS["part-files"](tmp_path / "two")
    one, other = (store.load_runs(f / "results")[0] for f in (folder, tmp_path / "two"))
    columns = ["run_id", "status", "epochs_done", "tokens_per_s"]
    assert one[columns].equals(other[columns]) and len(one) == 6
    assert scale.STEPS["compact"](tmp_path / "two")["detail"] == "6 folded"
