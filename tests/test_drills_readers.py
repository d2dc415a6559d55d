"""The drill of readers: it passes with our writers, and fails with one that thinks of no reader."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import store
from bench.store.care import prune
from benchmarks import record
from benchmarks.drills import readers

pytestmark = pytest.mark.slow


def test_no_reader_sees_anything_of_a_kill(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "RECORDS", tmp_path)
    results = tmp_path / "results"
    assert readers.main(["--quick", "--folder", str(results), "--name", "here"]) == 0
    assert "| violations | 0 |" in capsys.readouterr().out
    figures = json.loads((tmp_path / "drill-readers-here.json").read_text())["figures"]
    assert figures["kills"] == 40 and figures["reads of all tables"] > 5
    assert figures["rows of runs"] > 5 and figures["temporary files that kills left"] > 0
    before = store.load_runs(results)[0]
    monkeypatch.setattr("bench.store.abandoned.ABANDONED_SECONDS", -1)
    prune(results, [])
    assert not list(results.rglob("*.tmp")) and store.load_runs(results)[0].equals(before)


def test_a_writer_that_is_not_atomic_is_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    assert readers.main(["--quick", "--torn"]) == 1
    said = capsys.readouterr().out
    # A reader meets half a file, or the run of one as missing, whichever comes first.
    seen = ("not a whole Parquet file", "does not match its checksum", "does not know every run")
    assert any(words in said for words in seen)
    assert "| violations | 0 |" not in said


@pytest.mark.parametrize("forgets", ["run", "value", "epochs", "rerun"])
def test_what_a_reader_demands_is_missed_when_it_is_not_so(tmp_path: Path, forgets: str) -> None:
    newest: dict[str, int] = {}
    store.prepare(tmp_path)
    runs = {run_id: readers.run_of(run_id, 9) for run_id in ("a" * 12, "b" * 12)}
    for record_of, epochs in runs.values():
        store.write_run(tmp_path, record_of, epochs)
    assert readers.wrong(tmp_path, newest) == [] and newest == dict.fromkeys(runs, 9)
    record_of, epochs = runs["b" * 12]
    if forgets == "run":
        prune(tmp_path, ["b" * 12])
    elif forgets == "value":
        store.write_run(tmp_path, record_of | {"test_nll": 0.0}, epochs)
    elif forgets == "epochs":
        store.write_run(tmp_path, record_of, epochs[1:])
    else:
        store.write_run(tmp_path, *readers.run_of("b" * 12, 8))
    assert readers.wrong(tmp_path, newest)


def test_no_kills_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        readers.main(["--kills", "0"])
    assert end.value.code == 2 and "--kills" in capsys.readouterr().err
