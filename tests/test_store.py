"""Part-files: typed, whole or absent, read by anything that reads Parquet."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from bench import store
from bench.config import FIELDS
from bench.errors import BadInput
from bench.store.rows import arrow_schema, read_part
from bench.store.schema import EPOCHS, RUNS
from tests.records import epochs, record


@pytest.fixture
def results(tmp_path: Path) -> Path:
    store.prepare(tmp_path)
    return tmp_path


def test_a_record_comes_back_as_it_went(results: Path) -> None:
    store.write_run(results, record(valid_floor=None, valid_nll=4.25), epochs(), b"weights")
    runs, problems = store.load_runs(results)
    assert problems == []
    assert list(runs.columns) == [c.name for c in RUNS]
    assert runs.valid_nll.tolist() == [4.25]
    assert runs.valid_floor.isna().all()
    curves, _ = store.load_epochs(results)
    assert list(curves.columns) == [c.name for c in EPOCHS]
    assert curves.epoch.tolist() == [1, 2]
    assert (results / "weights" / "0123456789ab.safetensors").read_bytes() == b"weights"


def test_pandas_and_duckdb_read_the_folder_without_our_code(results: Path) -> None:
    store.write_run(results, record("aaaaaaaaaaaa", test_nll=1.5), epochs("aaaaaaaaaaaa"))
    store.write_run(results, record("bbbbbbbbbbbb", test_nll=None, status="failed"))
    (results / "runs" / ".cccccccccccc.123.tmp").write_bytes(b"half a file")
    frame = pd.read_parquet(results / "runs")
    assert sorted(frame.run_id) == ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]
    rows = duckdb.sql(f"select run_id, test_nll from '{results}/runs/*.parquet' order by run_id")
    assert rows is not None and rows.fetchall() == [("aaaaaaaaaaaa", 1.5), ("bbbbbbbbbbbb", None)]


def test_types_do_not_depend_on_values(results: Path) -> None:
    store.write_run(results, {"run_id": "dddddddddddd", "status": "lost"})
    runs, problems = store.load_runs(results)
    assert problems == []
    assert runs.status.tolist() == ["lost"]
    part, _ = read_part(results / "runs" / "dddddddddddd.parquet", "runs")
    assert part is not None and part.schema == arrow_schema("runs")


def test_an_unknown_column_or_status_is_a_mistake_of_ours(results: Path) -> None:
    with pytest.raises(ValueError, match="no column of runs: \\['colour'\\]"):
        store.write_run(results, record(colour="red"))
    with pytest.raises(ValueError, match="no such status"):
        store.write_run(results, record(status="fine"))
    assert store.load_runs(results)[0].empty


def test_lost_never_replaces_a_final_record_and_final_replaces_lost(results: Path) -> None:
    store.write_run(results, record(status="lost"))
    store.write_run(results, record(status="diverged"))
    assert store.statuses(results, ["0123456789ab"]) == {"0123456789ab": "diverged"}
    store.write_run(results, record(status="lost"))
    assert store.statuses(results, ["0123456789ab"]) == {"0123456789ab": "diverged"}
    store.write_run(results, record(status="ok"))
    assert store.statuses(results, ["0123456789ab"]) == {"0123456789ab": "ok"}


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_truncated_file_is_named_and_its_run_is_missing(results: Path, cut: int) -> None:
    store.write_run(results, record("aaaaaaaaaaaa"))
    store.write_run(results, record("bbbbbbbbbbbb"))
    path = results / "runs" / "aaaaaaaaaaaa.parquet"
    path.write_bytes(path.read_bytes()[:cut])
    runs, problems = store.load_runs(results)
    assert runs.run_id.tolist() == ["bbbbbbbbbbbb"]
    assert len(problems) == 1 and str(path) in problems[0]
    assert store.statuses(results, ["aaaaaaaaaaaa", "bbbbbbbbbbbb"]) == {"bbbbbbbbbbbb": "ok"}


def test_flipped_bits_never_crash_a_load(results: Path) -> None:
    store.write_run(results, record("aaaaaaaaaaaa"))
    path = results / "runs" / "aaaaaaaaaaaa.parquet"
    whole = path.read_bytes()
    for position in range(0, len(whole), 97):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        runs, problems = store.load_runs(results)
        assert len(runs) + len(problems) >= 1
        store.statuses(results, ["aaaaaaaaaaaa"])


def test_foreign_files_are_named(results: Path) -> None:
    pd.DataFrame({"x": [1]}).to_parquet(results / "runs" / "ffffffffffff.parquet")
    store.write_run(results, record("aaaaaaaaaaaa"))
    moved = results / "runs" / "eeeeeeeeeeee.parquet"
    moved.write_bytes((results / "runs" / "aaaaaaaaaaaa.parquet").read_bytes())
    (results / "runs" / "notes.txt").write_text("not a table")
    runs, problems = store.load_runs(results)
    assert runs.run_id.tolist() == ["aaaaaaaaaaaa"]
    assert len(problems) == 2
    assert "holds run aaaaaaaaaaaa, not the run of its name" in problems[0]
    assert "no column schema" in problems[1]


def test_a_file_from_before_a_column_holds_the_default_of_its_field(results: Path) -> None:
    later = [c.name for c in RUNS if c.later]
    assert {"locked", "objective", "valid_mc_nll"} <= set(later)
    old = {k: v for k, v in record("aaaaaaaaaaaa").items() if k not in later}
    pd.DataFrame([old]).to_parquet(results / "runs" / "aaaaaaaaaaaa.parquet")
    store.write_run(results, record("bbbbbbbbbbbb", eval_mc=7, dropoute=0.1))
    runs, problems = store.load_runs(results)
    assert problems == [] and list(runs.columns) == [c.name for c in RUNS]
    before, after = (row for _, row in runs.iterrows())
    for name in later:
        default = FIELDS.get(name)
        assert before[name] == default if default is not None else pd.isna(before[name])
    assert (after.eval_mc, after.dropoute, after.locked) == (7, 0.1, True)
    assert store.statuses(results, ["aaaaaaaaaaaa"]) == {"aaaaaaaaaaaa": "ok"}


def test_a_newer_schema_is_named(results: Path) -> None:
    frame = pd.DataFrame([record("aaaaaaaaaaaa")])
    frame["schema"] = 99
    frame.to_parquet(results / "runs" / "aaaaaaaaaaaa.parquet")
    runs, problems = store.load_runs(results)
    assert runs.empty and "has schema 99" in problems[0]


def test_a_full_disk_is_one_clear_line_and_leaves_no_half_file(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write_run(results, record("aaaaaaaaaaaa"))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(store.StoreError, match="bbbbbbbbbbbb cannot be written: No space left"):
        store.write_run(results, record("bbbbbbbbbbbb"), epochs("bbbbbbbbbbbb"))
    monkeypatch.undo()
    assert [p.name for p in (results / "runs").iterdir()] == ["aaaaaaaaaaaa.parquet"]
    assert list((results / "epochs").glob("bbbb*")) == []
    store.write_run(results, record("bbbbbbbbbbbb"))
    assert len(store.load_runs(results)[0]) == 2


def test_a_results_path_that_cannot_be_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(store.StoreError, match=r"--results .*file/results: cannot be written"):
        store.prepare(tmp_path / "file" / "results")


WRITER = """
import sys
from pathlib import Path
from bench import store
from tests.records import epochs, record
results = Path(sys.argv[1])
store.prepare(results)
print("go", flush=True)
for n in range(10**6):
    run_id = f"{n % 50:012x}"
    store.write_run(results, record(run_id, rep=n), epochs(run_id, 40))
"""


def test_readers_see_whole_files_while_a_writer_is_killed(tmp_path: Path) -> None:
    seen = 0
    for kill in range(4):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parent.parent,
        )
        assert writer.stdout is not None and writer.stdout.readline() == b"go\n"
        end = time.monotonic() + 0.3 + 0.11 * kill
        while time.monotonic() < end or (not seen and writer.poll() is None):
            runs, problems = store.load_runs(tmp_path)
            assert problems == []
            assert len(runs) >= seen, "a table must not shrink"
            seen = len(runs)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    assert seen > 0
    assert store.load_epochs(tmp_path)[1] == []


def test_grids_are_listed_newest_first_and_unknown_ones_answered(results: Path) -> None:
    entry = {"run_id": "aaaaaaaaaaaa", "trial": {"cell": "lstm"}}
    for name in ("first", "second"):
        grid = {"name": name, "command": "c", "wanted": [entry], "skipped": [], "merged": 0}
        store.save_grid(results, grid)
        time.sleep(0.01)
    assert store.grid_names(results) == ["second", "first"]
    assert store.load_grid(results, "first")["wanted"] == [entry]
    with pytest.raises(BadInput, match=r"no grid called 'frist'\. Did you mean first"):
        store.load_grid(results, "frist")
    (results / "grids" / "first.json").write_text('{"name": "first"')
    with pytest.raises(BadInput, match=r"first\.json: not a grid of ours"):
        store.load_grid(results, "first")


def test_a_grid_file_says_what_its_trials_have_in_common_once(results: Path) -> None:
    trials = [{"cell": "lstm", "lr": 20.0, "emsize": None, "rep": rep} for rep in range(3)]
    wanted = [{"run_id": f"{i:012x}", "trial": trial} for i, trial in enumerate(trials)]
    grid = {"name": "g", "command": "c", "wanted": wanted, "skipped": [], "merged": 0}
    store.save_grid(results, grid)
    path = results / "grids" / "g.json"
    assert path.read_text().count('"lstm"') == 1
    assert store.load_grid(results, "g") == grid
    path.write_text(json.dumps(grid))  # as it was written before
    assert store.load_grid(results, "g") == grid
    store.save_grid(results, grid | {"wanted": []})
    assert store.load_grid(results, "g")["wanted"] == []
