"""The drill of random kills: a short one passes, and what must not be is noticed."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import store
from bench.store.care import prune, read_record
from bench.store.compact import compact
from benchmarks import record
from benchmarks.drills import chaos
from benchmarks.drills.drivers import Begin, Driver
from benchmarks.drills.kills import KINDS
from benchmarks.drills.nodes import MARK, Cluster
from benchmarks.drills.storm import Storm
from benchmarks.drills.verdict import judge
from tests.grids import ROOT, bench, grid_file

AXES = "{cell: [lstm], regularizer: [none, ar]}"


@pytest.mark.ray
@pytest.mark.xdist_group("cluster")
@pytest.mark.slow
def test_a_short_storm_costs_nothing() -> None:
    words = [sys.executable, "-m", "benchmarks.drills.chaos", "--quick"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    for row in ("kills | 4", "lost | 0", "double | 0", "wrong | 0", "violations | 0"):
        assert f"| {row} |" in done.stdout


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calm")
    grid = grid_file(folder, AXES)
    here = ("--backend", "local", "--jobs", 0, "--no-report", "--results", folder / "r")
    assert bench("grid", grid, *here) == 0
    return folder / "r"


def lose(results: Path, run_id: str) -> None:
    prune(results, [run_id])


def leave_lost(results: Path, run_id: str) -> None:
    path = results / "runs" / f"{run_id}.parquet"
    found = read_record(path)
    assert found is not None
    path.unlink()
    store.write_run(results, found | {"status": "lost"}, [])


def fold_and_copy_back(results: Path, run_id: str) -> None:
    path = results / "runs" / f"{run_id}.parquet"
    content = path.read_bytes()
    compact(results)
    path.write_bytes(content)


def record_more(results: Path, run_id: str) -> None:
    rewrite(results, run_id, "0" * 12)


def train_again(results: Path, run_id: str) -> None:
    path = results / "grids" / "tiny.log"
    path.write_text(path.read_text() * 2)


def alter(results: Path, run_id: str) -> None:
    rewrite(results, run_id, test_nll=1.0)


def alter_an_epoch(results: Path, run_id: str) -> None:
    epochs = epochs_of(results, run_id)
    rewrite(results, run_id, epochs=[epochs[0] | {"train_nll": 1.0}, *epochs[1:]])


def forget_an_epoch(results: Path, run_id: str) -> None:
    rewrite(results, run_id, epochs=epochs_of(results, run_id)[1:])


def damage(results: Path, run_id: str) -> None:
    path = results / "runs" / f"{run_id}.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def epochs_of(results: Path, run_id: str) -> list[dict[Any, Any]]:
    curves, problems = store.load_epochs(results, [run_id])
    assert not problems
    return curves.to_dict("records")


def rewrite(
    results: Path, run_id: str, other: str = "", epochs: list[Any] | None = None, **columns: Any
) -> None:
    found = read_record(results / "runs" / f"{run_id}.parquet")
    assert found is not None
    epochs = epochs_of(results, run_id) if epochs is None else epochs
    name = {"run_id": other or run_id}
    store.write_run(results, found | columns | name, [epoch | name for epoch in epochs])


@pytest.mark.parametrize(
    ("sabotage", "kind"),
    [
        (lose, "lost"),
        (leave_lost, "lost"),
        (damage, "lost"),
        (fold_and_copy_back, "double"),
        (record_more, "double"),
        (train_again, "double"),
        (alter, "wrong"),
        (alter_an_epoch, "wrong"),
        (forget_an_epoch, "wrong"),
    ],
)
def test_what_must_not_be_is_noticed(
    calm: Path, tmp_path: Path, sabotage: Callable[[Path, str], None], kind: str
) -> None:
    results = tmp_path / "r"
    shutil.copytree(calm, results)
    assert judge(calm, results, "tiny").lines() == []
    sabotage(results, sorted(store.load_runs(calm)[0].run_id)[0])
    verdict = judge(calm, results, "tiny")
    assert getattr(verdict, kind), verdict.lines()


def test_a_grid_of_other_trials_is_noticed(calm: Path, tmp_path: Path) -> None:
    shutil.copytree(calm, tmp_path / "r")
    definition = store.load_grid(calm, "tiny")
    store.save_grid(tmp_path / "r", definition | {"wanted": definition["wanted"][1:]})
    assert judge(calm, tmp_path / "r", "tiny").wrong


def test_violations_end_with_exit_code_1_and_are_no_record(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # the logs of what is wrong are kept
    for violations, code in ((["lost: one"], 1), ([], 0)):
        monkeypatch.setattr(chaos, "drill", lambda *_, said=violations: ({"lost": 1}, said))
        assert chaos.main(["--name", "here"]) == code
        assert ("lost: one" in capsys.readouterr().out) == bool(violations)
        assert (tmp_path / "records" / "drill-chaos-here.md").exists() != bool(violations)


def test_what_is_left_behind_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(chaos, "_GONE_SECONDS", 0)
    scratch = tmp_path / "s"
    assert chaos._left_behind(str(tmp_path), scratch) == []
    left = tmp_path / "checkpoints" / ("0" * 12) / "000001-0.safetensors"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"")
    (said,) = chaos._left_behind(str(tmp_path), scratch)
    assert left.parent.name in said
    environment = os.environ | {MARK: str(scratch)}
    for what in ("bench.backends.child", "something of Ray's"):
        words = [sys.executable, "-c", f"input()  # {what}"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, env=environment) as orphan:
            found = chaos._left_behind(str(tmp_path), scratch)
            assert (f"{orphan.pid}" in found[-1]) == (what == "bench.backends.child")
            (said,) = chaos._running(scratch)
            assert f"runs still: {orphan.pid}" in said
            orphan.kill()


def storm(folder: Path, **options: Any) -> Storm:
    given = {"seed": 1, "seconds_between": 1.0, "trials": 4, "kills": 60, "quick": False} | options
    begin = Begin(["grid.yaml"], folder, dict(os.environ))
    return Storm(Cluster(folder, {}, 2), begin, lambda: 0, argparse.Namespace(**given), None)


@pytest.mark.parametrize(
    ("code", "said", "expected", "wrong"),
    [
        (0, "4 trials: 4 ok", "", False),
        (1, "4 trials: 3 ok, 1 lost", "", False),
        (1, "Traceback (most recent call last):", "", True),
        (2, "bench: --results: cannot be written", "", True),
        (130, "  python -m bench.grid grid.yaml", "stopped", False),
        (130, "interrupted", "stopped", True),
        (143, "  python -m bench.grid grid.yaml", "stopped", True),
        (137, "", "killed", False),
    ],
)
def test_how_a_driver_ends_is_judged(
    tmp_path: Path, code: int, said: str, expected: str, wrong: bool
) -> None:
    log = tmp_path / "driver.log"
    log.write_text(said)
    process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
    process.wait()
    judging = storm(tmp_path)
    judging._judge(Driver(process, log, expected=expected))
    assert bool(judging.violations) == wrong
    assert judging.ended == (code == 0)


def test_a_driver_beside_another_must_wait(tmp_path: Path) -> None:
    judging = storm(tmp_path)
    words = [sys.executable, "-c", "input()"]
    with (
        subprocess.Popen(words, stdin=subprocess.PIPE) as one,
        subprocess.Popen(words, stdin=subprocess.PIPE) as other,
    ):
        first, second = (
            Driver(process, tmp_path / f"{n}.log", beside=bool(n))
            for n, process in enumerate((one, other))
        )
        judging.drivers = [first, second]
        second.log.write_text("4 trials, 1 recorded, 3 to run")
        assert judging._judge_beside(second)
        second.log.write_text("…: trials of this grid are run by …; waiting for its end")
        assert not judging._judge_beside(second) and judging.waited == 1
        second.log.write_text("4 trials, 1 recorded, 3 to run\n[2/4] …")
        assert not judging._judge_beside(second) and "did not wait" in judging.violations[0]
        one.kill()
        other.kill()


def test_the_plan_holds_every_kind_and_a_seed_is_a_plan(tmp_path: Path) -> None:
    plan = storm(tmp_path).kills
    assert len(plan) == 60 and set(plan) == set(KINDS)
    assert plan == storm(tmp_path).kills != storm(tmp_path, seed=2).kills
    assert {kind for _, kind in storm(tmp_path).extras} == {"stop", "beside"}


def test_no_trials_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        chaos.main(["--trials", "0"])
    assert end.value.code == 2 and "--trials" in capsys.readouterr().err
