"""Grids whose trials run side by side in one process: `--pack`."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import store
from tests.conftest import Verb
from tests.grids import assert_same, bench, grid_file
from tests.test_pack import FAILS_BESIDE

AXES = '{cell: [lstm, gru], regularizer: [none, "ar"]}'


@pytest.mark.parametrize("backend", ["ray", "local"])
def test_a_grid_of_packs_has_the_records_of_a_grid_without(backend: str, tmp_path: Path) -> None:
    grid = grid_file(tmp_path, AXES, extra="reps: 2")
    argv = ("--backend", backend, "--jobs", 2, "--no-report", "--set", "epochs=1")
    for pack in ("1", "3"):
        assert (
            bench(
                "grid", grid, *argv, "--name", "tiny", "--results", tmp_path / pack, "--pack", pack
            )
            == 0
        )
    assert_same(tmp_path / "1", tmp_path / "3")
    runs, _ = store.load_runs(tmp_path / "3")
    assert len(runs) == 8 and runs.packed.max() == 3


def test_in_this_process_a_failure_ends_neither_the_pack_nor_the_grid(tmp_path: Path) -> None:
    grid = grid_file(tmp_path, AXES, extra="reps: 2")
    argv = ("--backend", "local", "--jobs", 0, "--no-report", "--plugins", tmp_path, "--pack", 2)
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "narrow.py").write_text(FAILS_BESIDE)
    change = ("--set", "cell=narrow:always=true,lstm", "--set", "epochs=1", "--name", "tiny")
    assert bench("grid", grid, "--results", tmp_path / "r", *argv, *change) == 1
    runs, _ = store.load_runs(tmp_path / "r")
    assert sorted(runs.status) == ["ok"] * 4 + ["oom"] * 4


def test_auto_is_one_on_a_cpu_and_other_words_are_refused(tmp_path: Path, verb: Verb) -> None:
    grid = grid_file(tmp_path, AXES, extra="reps: 2")
    for word in ("0", "many", "33", "-1"):
        done = verb("grid", grid, "--pack", word, "--results", tmp_path / "r")
        assert done.code == 2
        assert f"--pack {word}: must be auto or 1 to 32" in done.err
    argv = ("--backend", "local", "--jobs", 0, "--no-report", "--pack", "auto", "--name", "tiny")
    assert bench("grid", grid, "--results", tmp_path / "r", *argv, "--set", "epochs=1") == 0
    runs, _ = store.load_runs(tmp_path / "r")
    assert set(runs.packed) == {1}
