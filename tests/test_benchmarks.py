"""The measurements run and say what they measured; what they find is no matter of a test."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from benchmarks import cells, corpora, grid_overhead, packing, record, train_step


def test_cells_prints_a_table_and_writes_a_record(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "RECORDS", tmp_path)
    argv = ["lstm", "t_rnn", "--quick", "--rounds", "1", "--name", "here"]
    assert cells.main(argv) == 0
    assert "One layer of 64 units, batch 5, bptt 20" in capsys.readouterr().out
    written = json.loads((tmp_path / "cells-here.json").read_text())
    assert {row["cell"] for row in written["rows"]} == {"lstm", "t_rnn"}
    assert all(row["ms"] > 0 and row["ratio"] > 0 for row in written["rows"])
    assert {"command", "date", "device", "torch", "git_commit"} <= set(written)
    assert "| t_rnn | " in (tmp_path / "cells-here.md").read_text()


@pytest.mark.parametrize("argv", [["nosuch"], ["--nhid", "0"], ["rhn:depth=x"]])
def test_bad_input_is_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cells.main(argv)
    assert end.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_train_step_measures_both_and_its_shares_are_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(record, "RECORDS", tmp_path)
    argv = ["--quick", "--rounds", "2", "--cells", "lstm", "gru_zoneout", "--name", "here"]
    assert train_step.main(argv) == 0
    rows = json.loads((tmp_path / "train_step-here.json").read_text())["rows"]
    assert [(row["cell"], row["peer"]) for row in rows] == [
        ("lstm", "lstm"),
        ("gru_zoneout", "gru"),
    ]
    for row in rows:
        assert row["ours_ms"] > 0 and row["peer_ms"] > 0
        assert set(row["shares"]) == set(train_step.STAGES)
        assert sum(row["shares"].values()) == pytest.approx(1)
        assert min(row["shares"].values()) > 0


def test_corpora_measures_each_text_and_makes_the_same_one_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(record, "RECORDS", tmp_path)
    argv = ["--size-mb", "0.1", "--rounds", "1", "--words", "2000", "--name", "here"]
    assert corpora.main(argv) == 0
    (row,) = json.loads((tmp_path / "corpora-here.json").read_text())["rows"]
    assert 100_000 < row["bytes"] < 1_000_000 and 1_000 < row["words"] <= 2_002
    for name in ("mb_per_s", "mb_per_cpu_s", "warm_ms", "cold_peak_bytes", "trial_peak_bytes"):
        assert row[name] > 0
    texts = [io.BytesIO(), io.BytesIO()]
    for text in texts:
        corpora.make_text(text, 1_000, 50, seed=3)
    assert texts[0].getvalue() == texts[1].getvalue()


def test_grid_overhead_counts_every_trial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(record, "RECORDS", tmp_path)
    argv = ["--quick", "--slots", "1", "--backend", "local", "--name", "here"]
    assert grid_overhead.main(argv) == 0
    written = json.loads((tmp_path / "grid_overhead-here.json").read_text())
    (row,) = written["rows"]
    assert (row["trials"], row["ideal_s"]) == (10, 2)
    assert row["wall_s"] > row["first_result_s"] > 0 and row["overhead_s"] > 0
    assert row["driver_peak_bytes"] > 10e6
    with pytest.raises(SystemExit) as end:
        grid_overhead.main(["--trials", "0"])
    assert end.value.code == 2


def test_packing_counts_the_windows_of_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(record, "RECORDS", tmp_path)
    argv = ["--quick", "--rounds", "1", "--windows", "2", "--counts", "2", "--name", "here"]
    assert packing.main(argv) == 0
    rows = json.loads((tmp_path / "packing-here.json").read_text())["rows"]
    assert [(row["way"], row["at_once"]) for row in rows] == [("processes", 2), ("pack", 2)]
    assert all(row["windows_per_s"] > 0 and row["ratio"] > 0 for row in rows)
