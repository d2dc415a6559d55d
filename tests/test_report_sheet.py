"""GRID.csv: the page's numbers in full, and no cell that a spreadsheet would run."""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from bench.errors import BadInput
from bench.report import export, sheet, tables
from bench.report.__main__ import app
from bench.report.entries import join
from bench.stats import mean_interval
from tests.report_grids import HOSTILE, Grid, hostile, simulate
from tests.test_report_environments import grid_of
from tests.test_report_pages import store_grid

FORMULAS = (
    "=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "\n=1", "=HYPERLINK(\"http://x\",\"y\")",
    "  =1+1", "\u00a0=1", "=cmd|' /C calc'!A0", "\uff1d1+1", "-2+3+cmd|' /C calc'!A0",
)  # fmt: skip


def text_of(grid: Grid, mix: bool = False) -> str:
    return sheet.as_csv(join(grid.spec, grid.frames()[0], mix))


def table_of(grid: Grid, mix: bool = False) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text_of(grid, mix)))


def test_a_row_for_each_entry_with_the_pages_numbers_in_full() -> None:
    grid = simulate()
    table = table_of(grid)
    (corpus,) = join(grid.spec, grid.frames()[0])
    assert list(table.columns) == list(sheet.HEADER) and len(table) == 12
    settings = [(row, s) for row in corpus.rows for s in row.settings]
    for (_, line), (row, setting) in zip(table.iterrows(), settings, strict=True):
        assert line["regularizer"] == setting.spelling and line["cell"] in row.label
        nll = mean_interval(list(setting.values("valid_nll").values()))
        assert (line["valid_nll"], line["valid_nll_low"]) == (nll.mean, nll.low)
        assert line["valid_ppl"] == math.exp(nll.mean)
        assert line["valid_ppl_high"] == pytest.approx(math.exp(nll.high or 0), rel=1e-15)
        assert line["ok"] == len(setting.values("valid_nll"))
        assert line["wanted"] == 3
        counted = ["ok", "diverged", "stopped", "failed", "oom", "timeout", "lost", "not_run"]
        assert line[counted].sum() == 3
    views = {
        (v["row"].label, v["setting"].spelling): v
        for v in tables.paired_table(corpus)
        if v["split"] == "test"
    }
    for (_, line), (row, setting) in zip(table.iterrows(), settings, strict=True):
        view = views.get((row.label, setting.spelling))
        if view is None:
            assert math.isnan(line["test_difference"]) and setting.name == "none"
            continue
        assert line["test_difference"] == view["estimate"].mean
        assert line["test_pairs"] == view["n"] == view["estimate"].n
        if view["n"] >= 3:
            assert line["test_p_holm"] == view["adjusted"] >= line["test_p"]
    assert set(table["nhid"]) == {200} and set(table["tied"]) == {True}
    assert set(table["device"]) == {"AMD EPYC"} and table["cuda"].isna().all()
    assert table["not_averaged"].isna().all()


def test_test_stays_hidden_where_another_setting_is_best_on_valid() -> None:
    grid = Grid()
    for alpha, nll in ((1, 4.0), (2, 4.1)):
        grid.add({"regularizer": f"ar:alpha={alpha}"}, valid_nll=nll, test_nll=1.25)
    table = table_of(grid)
    assert list(table["best_on_valid"]) == [True, False]
    assert table["test_nll"][0] == 1.25 and math.isnan(table["test_nll"][1])
    assert table["valid_nll_low"].isna().all(), "one repetition has no interval"


def test_what_the_page_does_not_average_has_no_mean_here() -> None:
    grid = grid_of(none="AAAAA", ar="AAAHH")
    none, ar = (line for _, line in table_of(grid).iterrows())
    assert none["device"] == "NVIDIA A100" and none["threads"] == 1
    assert ar["device"] == "3 NVIDIA A100; 2 NVIDIA H200"
    assert ar["not_averaged"] == "3 on NVIDIA A100, 2 on NVIDIA H200: not averaged"
    assert math.isnan(ar["valid_nll"]) and ar["ok"] == 5 and ar["valid_pairs"] == 3
    mixed = table_of(grid, mix=True).iloc[1]
    assert mixed["valid_nll"] == pytest.approx(4.1004) and mixed["valid_pairs"] == 5
    assert mixed["device"] == "3 NVIDIA A100; 2 NVIDIA H200"


def test_numbers_stay_numbers_also_negative_and_impossible_ones() -> None:
    assert [sheet.cell(value) for value in (-1.5, 3, None, True)] == [-1.5, 3, None, True]
    grid = Grid()
    for rep in range(3):
        grid.add({"rep": rep}, valid_nll=800.0 + rep, test_nll=4.0)
        trial = {"rep": rep, "regularizer": "ar"}
        grid.add(trial, valid_nll=700.5 + rep, test_nll=3.5 - 0.1 * rep)
    table = table_of(grid)
    assert table["valid_nll"][0] == 801.0 and math.isnan(table["valid_ppl"][0])
    assert table["valid_difference"].dtype == float and table["valid_difference"][1] == -99.5
    assert "'" not in text_of(grid)


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_starts_like_a_formula_is_text(text: str) -> None:
    assert sheet.cell(text) == "'" + re.sub(r"([\t\r\n])=", r"\1'=", text)
    grid = Grid()
    record: dict[str, Any] = dict.fromkeys(("device", "torch", "determinism"), text)
    grid.add({"corpus": text, "cell": text, "regularizer": text}, valid_nll=4.0, **record)
    header, line = list(csv.reader(io.StringIO(text_of(grid), newline="")))
    for name, found in zip(header, line, strict=True):
        assert not found.startswith(("=", "+", "@", "\t", "\r")), (name, found)
    assert dict(zip(header, line, strict=True))["determinism"] == sheet.cell(text)
    read = pd.read_csv(io.StringIO(text_of(grid), newline=""))
    assert read["valid_nll"][0] == 4.0 and read["regularizer"][0].startswith("'")


@pytest.mark.parametrize("cut", [";", "\t", "\n", "; ", ';"', ';" "', ";;", "\r\n"])
def test_no_formula_begins_where_another_spreadsheet_cuts_a_text(cut: str) -> None:
    """One whose decimal sign is a comma cuts at each `;` that no quote at a cell's start guards."""
    payload = f"x{cut}=cmd|'/C calc'!A0{cut}-2+3"
    grid = Grid()
    trial = {"corpus": f"folder:path=/{payload}", "regularizer": payload}
    grid.add(trial, valid_nll=-4.5, device=payload)
    text = text_of(grid)
    for mark in (";", "\t", "|;\t,"):
        for line in text.splitlines():
            for found in re.split(f"[{mark}]", line.replace('"', "")):
                bare = found.strip()
                assert bare[:1] not in tuple("=+@") or not bare, (mark, found)
                assert bare[:1] != "-" or re.fullmatch(r"-[\d.e-]+", bare), (mark, found)
    read = pd.read_csv(io.StringIO(text, newline=""))
    assert read["valid_nll"][0] == -4.5 and read["corpus"][0].startswith("folder:path=/x")


def test_what_cannot_be_seen_is_written_out_and_other_text_is_as_it_is() -> None:
    assert sheet.cell("a\u202eb\x00\ud800") == "a\\u202eb\\u0000\\ud800"
    assert sheet.cell("ar:alpha=2+tar:beta=1") == "ar:alpha=2+tar:beta=1"
    for text in ('a "b", c\nd', "3 NVIDIA A100; 2 NVIDIA H200", "folder:path=/a;b=c", "a, -b; 1-2"):
        assert sheet.cell(text) == text


def test_hostile_names_read_back(tmp_path: Path) -> None:
    grid = hostile()
    grid.spec["command"] = "x"
    store_grid(tmp_path, grid)
    path, problems = export(tmp_path, "quick")
    assert path == tmp_path / "reports" / "quick.csv" and problems == []
    assert path.read_bytes().startswith(b"\xef\xbb\xbfcorpus,cell,")
    table = pd.read_csv(path)
    assert len(table) == 4 * len(HOSTILE) and table["valid_nll"].dtype == float
    assert list(table["ok"]) == [int(n) for n in table["ok"]] and table["ok"].sum() == 155
    texts = pd.read_csv(path, dtype=str, keep_default_na=False)
    for found in texts.to_numpy().flat:
        assert not found.startswith(("=", "+", "-", "@", "\t")) or float(found) < 0
    assert texts["torch"].str.startswith("'=HYPERLINK").sum() == 4


def test_on_the_command_line(tmp_path: Path) -> None:
    store_grid(tmp_path, simulate())
    argv = ["--results", str(tmp_path), "--csv"]
    done = CliRunner().invoke(app, ["quick", *argv])
    assert (done.exit_code, done.stdout.strip()) == (0, str(tmp_path / "reports" / "quick.csv"))
    assert [p.name for p in (tmp_path / "reports").iterdir()] == ["quick.csv"]
    first = (tmp_path / "reports" / "quick.csv").read_bytes()
    assert first.decode("utf-8-sig") == text_of(simulate())
    (tmp_path / "runs" / "000000000000.parquet").write_bytes(b"PAR1")
    done = CliRunner().invoke(app, ["quick", *argv])
    assert done.exit_code == 0 and "000000000000.parquet" in done.stderr
    assert len(done.stdout.splitlines()) == 1
    with pytest.raises(BadInput, match="--csv: say which grid"):
        CliRunner().invoke(app, argv, catch_exceptions=False)
    for name in ("../quick", "nope", ""):
        with pytest.raises(BadInput):
            export(tmp_path, name)
    (tmp_path / "reports" / "quick.csv").unlink()
    (tmp_path / "reports" / "quick.csv").mkdir()
    with pytest.raises(BadInput, match=r"quick\.csv"):
        export(tmp_path, "quick")
