"""A trial's numbers are bit-identical wherever and after whatever it runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from bench import store
from bench.backends import ray_tune
from bench.config import expand, load_grid
from bench.corpora import default_data_dir
from bench.job import How, Job
from bench.plan import plan
from bench.plugins import find
from bench.worker import run_trials
from tests.grids import assert_same, bench, grid_file, results_of, rogue

AXES = '{cell: [lstm, gru], regularizer: ["ar+tar"]}'


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every trial of the grid run in a process of its own, one after the other."""
    folder = tmp_path_factory.mktemp("alone")
    for cell in ("lstm", "gru"):
        grid = grid_file(folder, f'{{cell: [{cell}], regularizer: ["ar+tar"]}}', name=cell)
        argv = ("--backend", "local", "--jobs", 1, "--no-report")
        assert bench("grid", grid, "--results", folder, *argv) == 0
    return folder


@pytest.mark.parametrize("jobs", [0, 2])
def test_local_backend_gives_the_same_numbers(jobs: int, alone: Path, tmp_path: Path) -> None:
    grid = grid_file(tmp_path, AXES)
    argv = ("--backend", "local", "--jobs", jobs, "--results", tmp_path)
    assert bench("grid", grid, *argv) == 0
    assert_same(alone, tmp_path)
    assert (tmp_path / "reports" / "tiny.html").is_file()


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_ray_gives_the_same_numbers(
    alone: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_tune, "WAVE", 1)  # two waves, as a grid of thousands has
    monkeypatch.setattr(ray_tune, "ROUNDS", 0)
    grid = grid_file(tmp_path, AXES)
    assert bench("grid", grid, "--results", tmp_path, "--no-report") == 0
    assert_same(alone, tmp_path)
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 4, f"a line per trial, a head and a foot, not: {out}"
    assert err == "", "Ray must be silent"


def test_after_a_plugin_that_changed_settings_and_after_one_that_failed(
    alone: Path, tmp_path: Path
) -> None:
    rogue(tmp_path / "p", "a_dtype", top="torch.set_default_dtype(torch.float64)")
    rogue(
        tmp_path / "p",
        "b_settings",
        call="torch.manual_seed(3); torch.set_num_threads(2)",
    )
    rogue(tmp_path / "p", "c_raises", call="if self.calls > 3: raise ValueError('no more')")
    rogue(tmp_path / "p", "d_exits", call="if self.calls > 3: raise SystemExit(7)")
    rogue(tmp_path / "p", "e_nan", call="x = x * float('nan') if self.calls > 3 else x")
    rogues = "a_dtype, b_settings, c_raises, d_exits, e_nan"
    grid = grid_file(tmp_path, f'{{cell: [{rogues}, lstm, gru], regularizer: ["ar+tar"]}}')
    argv = ("--backend", "local", "--jobs", 0, "--plugins", tmp_path / "p")
    assert bench("grid", grid, "--results", tmp_path, *argv) == 1
    runs, _ = store.load_runs(tmp_path)
    ends = runs.groupby("cell").status.unique().apply(list).to_dict()
    assert ends == {
        "a_dtype": ["ok"],
        "b_settings": ["ok"],
        "c_raises": ["failed"],
        "d_exits": ["failed"],
        "e_nan": ["diverged"],
        "lstm": ["ok"],
        "gru": ["ok"],
    }
    assert_same(alone, tmp_path)
    failed = runs[runs.cell == "c_raises"].iloc[0]
    assert failed.error_type == "ValueError" and "no more" in failed.error_text
    log = (tmp_path / "grids" / "tiny.log").read_text()
    assert "ValueError: no more" in log and "Traceback" in log


def test_a_process_that_vanishes_costs_its_own_trial(alone: Path, tmp_path: Path) -> None:
    rogue(tmp_path / "p", "dies", call="if self.calls > 3: os.kill(os.getpid(), 9)")
    grid = grid_file(tmp_path, '{cell: [dies, lstm, gru], regularizer: ["ar+tar"]}')
    argv = ("--backend", "local", "--jobs", 2, "--plugins", tmp_path / "p", "--max-retries", 1)
    assert bench("grid", grid, "--results", tmp_path, *argv) == 1
    runs, _ = store.load_runs(tmp_path)
    lost = runs[runs.cell == "dies"].iloc[0]
    assert lost.status == "lost" and "signal 9 (SIGKILL)" in lost.error_text
    assert_same(alone, tmp_path)
    grid_ids = set(results_of(tmp_path))
    rogue(tmp_path / "p", "dies")  # the author mends it: another source, other run_ids
    assert bench("grid", grid, "--results", tmp_path, *argv) == 0
    assert len(set(results_of(tmp_path)) - grid_ids) == 1


@pytest.mark.ray
@pytest.mark.xdist_group("ray")
def test_ray_ships_plugins_and_survives_a_dying_actor(alone: Path, tmp_path: Path) -> None:
    rogue(tmp_path / "p", "dies", call="if self.calls > 3: os.kill(os.getppid(), 9)")
    rogue(tmp_path / "p", "fails", call="if self.calls > 3: raise ValueError('no more')")
    rogue(tmp_path / "p", "works")
    grid = grid_file(tmp_path, '{cell: [dies, fails, works, lstm], regularizer: ["ar+tar"]}')
    argv = ("--plugins", tmp_path / "p", "--max-retries", 1, "--no-report")
    assert bench("grid", grid, "--results", tmp_path, *argv) == 1
    runs, _ = store.load_runs(tmp_path)
    ends = dict(zip(runs.cell, runs.status, strict=True))
    assert ends == {"dies": "lost", "fails": "failed", "works": "ok", "lstm": "ok"}
    lstm = runs[runs.cell == "lstm"].run_id.tolist()
    assert_same(tmp_path, alone, lstm)
    assert runs[runs.cell == "works"].plugin_origin.item().startswith(str(tmp_path / "p"))


def one_job(folder: Path, cell: str, plugins: Path | None = None) -> Job:
    registry = find(plugins)
    grid = load_grid(str(grid_file(folder, f"{{cell: [{cell}]}}")))
    ready = plan(
        grid,
        expand(grid, registry),
        registry,
        results=folder,
        data_dir=default_data_dir(),
        plugins=plugins,
        how=How(device="cpu", threads=1, keep_weights=False),
    )
    return ready.jobs[0]


def test_a_worker_refuses_what_the_driver_did_not_hash(tmp_path: Path) -> None:
    job = one_job(tmp_path, "lstm")
    for wrong in (
        {"sources": job.sources | {"cell:lstm": "0" * 16}},
        {"corpus_hash": "0" * 64},
        {"protocol": job.protocol + 1},
    ):
        messages: list[dict[str, Any]] = []
        assert not run_trials([dataclasses.replace(job, **wrong)], messages.append)
        record = messages[-1]["record"]
        assert record["status"] == "failed"
        assert record["error_type"] in ("Mismatch", "BadInput")


def test_a_worker_notices_a_plugin_that_changes_between_two_trials(tmp_path: Path) -> None:
    rogue(tmp_path / "p", "mine")
    job = one_job(tmp_path, "mine", tmp_path / "p")
    ends: list[Any] = []

    def train() -> str:
        messages: list[dict[str, Any]] = []
        run_trials([job], messages.append)
        ends.append(messages[-1]["record"])
        return str(ends[-1]["status"])

    assert [train(), train()] == ["ok", "ok"]
    (tmp_path / "p" / "cells" / "other.py").write_text("another plugin that is broken")
    assert train() == "ok"
    path = rogue(tmp_path / "p", "mine", call="x = x + 1")
    assert train() == "failed" and ends[-1]["error_type"] == "Mismatch"
    job = one_job(tmp_path, "mine", tmp_path / "p")
    assert train() == "ok" and ends[-1]["valid_nll"] != ends[0]["valid_nll"]
    path.write_text("this is no Python")
    assert train() == "failed" and "mine is broken" in ends[-1]["error_text"]
    path.unlink()
    assert train() == "failed" and "no cell is called 'mine'" in ends[-1]["error_text"]
