"""Records that differ in what moves numbers: not averaged unless told to, and the page says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.report import beside, comparisons, cost, environment, figures, limits, overview, tables
from bench.report.__main__ import app
from bench.report.entries import join
from bench.store import RUNS
from tests.report_grids import Grid, figures_of, simulate, text_of
from tests.test_report_pages import store_grid

A100, H200 = "NVIDIA A100", "NVIDIA H200"
WHERE: dict[str, Any] = {
    "device": A100, "torch": "2.13.0", "cuda": "13.0", "cudnn": "91900", "driver": "580.65",
    "threads": 1, "kernel_path": "captured", "determinism": "deterministic algorithms",
}  # fmt: skip


def add(grid: Grid, regularizer: str, devices: str, level: float = 4.0, **more: Any) -> None:
    """Repetitions of one entry, on an A100 or an H200 by the letters of `devices`."""
    for rep, letter in enumerate(devices):
        nll = level + 0.1 * rep + 0.001 * (rep % 2)
        where = WHERE | {"device": A100 if letter == "A" else H200}
        trial = {"regularizer": regularizer, "rep": rep} | more
        grid.add(trial, [nll + 1, nll], **where, valid_nll=nll, test_nll=nll + 0.1)


def grid_of(**entries: str) -> Grid:
    grid = Grid()
    for i, (regularizer, devices) in enumerate(entries.items()):
        add(grid, regularizer, devices, 4.0 - 0.1 * i)
    return grid


def line(grid: Grid, mix: bool = False) -> dict[str, Any]:
    """The first comparison of a grid, on valid."""
    return tables.paired_table(grid.corpus(mix))[0]


# --- what is an environment -----------------------------------------------------------------------


def test_every_column_of_an_environment_is_one_of_the_records() -> None:
    assert set(environment.COLUMNS) <= {c.name for c in RUNS}
    assert set(environment.COLUMNS) == set(WHERE)


@pytest.mark.parametrize("column", environment.COLUMNS)
def test_a_difference_in_any_of_its_columns_keeps_records_apart(column: str) -> None:
    grid = grid_of(none="AAA", ar="AAA")
    assert not grid.corpus().rows[0].settings[1].mixed
    grid.records[5][column] = 7 if column == "threads" else "another"
    corpus = grid.corpus()
    assert [s.mixed for s in corpus.rows[0].settings] == [False, True]
    assert [s.mixed for s in grid.corpus(mix=True).rows[0].settings] == [False, False]
    (entry,) = tables.main_table(corpus, corpus)[0]["columns"][1]["entries"]
    assert entry["splits"] == [] and entry["apart"].startswith("2 ")
    assert column in entry["apart"] or column == "device"
    assert entry["apart"].endswith(": not averaged")


@pytest.mark.parametrize("column", ["host", "python", "git_commit", "packed", "started_utc"])
def test_what_moves_no_number_keeps_nothing_apart(column: str) -> None:
    grid = grid_of(none="AAA", ar="AAA")
    grid.records[5][column] = "another" if column != "packed" else 4
    assert not grid.corpus().rows[0].settings[1].mixed
    assert "environment" not in text_of(grid.html()).partition("What was run")[2][:400]


def test_null_is_a_value_but_of_the_later_columns_it_agrees_with_any() -> None:
    old = WHERE | {"driver": None, "determinism": None}
    known, other = environment.of(WHERE), environment.of(WHERE | {"driver": "570"})
    assert environment.differing([known, environment.of(old)]) == []
    assert environment.differing([environment.of(old | {"cuda": None}), known]) != []
    # Alike to both of two that differ: the three are not of one environment.
    assert environment.differing([known, environment.of(old), other]) != []
    assert environment.differing([environment.of({}), environment.of({"host": "b"})]) == []


def test_records_from_before_the_later_columns_are_averaged_among_themselves() -> None:
    grid = grid_of(none="AAA", ar="AAA")
    for record in grid.records[1:]:
        record |= {"driver": None, "determinism": None}
    assert "not averaged" not in text_of(grid.html()) and line(grid)["n"] == 3


def test_what_differs_is_said_and_nothing_else() -> None:
    def of(**changes: Any) -> environment.Environment:
        return environment.of(WHERE | changes)

    five = [of()] * 3 + [of(device=H200)] * 2
    assert environment.told(five) == "3 on NVIDIA A100, 2 on NVIDIA H200"
    assert environment.told([of(), of(torch="2.12", cuda=None)]) == (
        "1 with torch 2.13.0 and cuda 13.0, 1 with torch 2.12 and cuda not recorded"
    )
    assert environment.told([of(), of(device=H200, threads=4)] * 2, "pairs") == (
        "2 pairs on NVIDIA A100 with threads 1, 2 on NVIDIA H200 with threads 4"
    )


# --- an entry -------------------------------------------------------------------------------------


def test_an_entry_of_two_devices_has_no_mean_and_no_interval() -> None:
    grid = grid_of(none="AAAAA", ar="AAAHH")
    text = text_of(grid.html())
    assert "3 on NVIDIA A100, 2 on NVIDIA H200: not averaged n = 5" in text
    (row,) = grid.corpus().rows
    none, ar = row.settings
    assert ar.values("valid_nll") == {} and len(none.values("valid_nll")) == 5
    assert len(ar.values("valid_nll", {0, 4})) == 2, "single runs are still there"


def test_what_failed_or_diverged_elsewhere_hinders_no_mean() -> None:
    grid = grid_of(none="AAA", ar="AAH")
    grid.records[-1] |= {"status": "diverged", "valid_nll": None}
    assert "not averaged" not in text_of(grid.html()) and line(grid)["n"] == 2


def test_no_figure_and_no_published_line_averages_a_mixed_entry() -> None:
    grid = Grid()
    for nhid in (100, 200, 300, 400):
        add(grid, "none", "AAA", nhid=nhid)
        add(grid, "ar", "AAH" if nhid == 100 else "AAA", 3.9, nhid=nhid)
    corpus = grid.corpus()
    drawn = json.loads(overview.overview(corpus) or "")
    assert [len(trace["x"]) for trace in drawn["data"]] == [4, 4, 3, 3]
    best = limits.summary(corpus, tables.paired_table(corpus))[1]["best"]
    assert "200 units" in best, "the lowest mean of those that have one"
    clocks = cost.cost_table(corpus)
    assert clocks[1]["tokens"] == "–" and clocks[1]["n"] == 3
    ptb = Grid()
    add(ptb, "none", "AAH", corpus="ptb", nhid=650, emsize=650)
    for record in ptb.records:
        record["num_params"] = 13_300_000
    corpus = ptb.corpus()
    notes = beside.notes(corpus)
    (row,) = corpus.rows
    assert notes and not any("ours" in str(v) for v in beside.beside(row, row.settings[0], notes))


def test_learning_curves_of_a_mixed_entry_are_its_single_runs() -> None:
    grid = grid_of(none="AAA", ar="AAH")
    runs, epochs = grid.frames()

    def traces(mix: bool) -> list[dict[str, Any]]:
        corpus = join(grid.spec, runs, mix)[0]
        return list(
            json.loads(figures.learning_curves(corpus, figures.curves_of(epochs)) or "")["data"]
        )

    drawn = traces(mix=False)
    assert ["fill" in t for t in drawn] == [True, False, False, False, False]
    assert [t["line"]["width"] for t in drawn[1:]] == [2, 1, 1, 1]
    assert [t["showlegend"] for t in drawn[1:]] == [True, True, False, False]
    assert ["fill" in t for t in traces(mix=True)] == [True, False] * 2
    assert "Thin lines: single runs" in text_of(grid.html())
    assert "Thin lines" not in text_of(grid.html(mix=True))


def test_a_mixed_setting_is_not_the_best_and_the_best_says_of_how_many() -> None:
    grid = Grid()
    add(grid, "ar:alpha=1", "AAA", 4.0)
    add(grid, "ar:alpha=2", "AAH", 3.0)
    text = text_of(grid.html())
    assert "ar:alpha=1 best on valid of those averaged valid" in text
    assert [s.chosen for s in grid.corpus().rows[0].settings] == [True, False]
    assert "ar:alpha=2 best on valid valid" in text_of(grid.html(mix=True))


# --- a comparison ---------------------------------------------------------------------------------


def test_pairs_are_of_one_environment() -> None:
    found = line(grid_of(none="AAAAA", ar="AAAHH"))
    assert found["n"] == 3 and found["estimate"].mean == pytest.approx(-0.1)
    assert found["apart"] == "2 pairs of two environments left out"
    assert line(grid_of(none="AAA", ar="HHH"))["verdict"] == "no pair in one environment"
    found = line(grid_of(none="AAAHH", ar="AAAHH"))
    assert (found["n"], found["verdict"], found["estimate"]) == (0, "not averaged", None)
    assert found["apart"] == "3 pairs on NVIDIA A100, 2 on NVIDIA H200"
    found = line(grid_of(none="AAAHH", ar="AAHHH"))
    assert found["apart"].endswith("H200; 1 pair of two environments left out")
    found = line(grid_of(none="AAHHH", ar="AAAAA"))
    assert found["n"] == 2, "the baseline is mixed, its pairs are not"


def test_pairs_agree_where_one_record_does_not_say() -> None:
    grid = grid_of(none="AAAA", ar="AAAA")
    for record in grid.records[:4]:
        record["determinism"] = None
    assert line(grid)["n"] == 4
    grid.records[7]["determinism"] = "none"
    found = line(grid)
    assert found["n"] == 0
    assert found["apart"] == (
        "3 pairs with determinism deterministic algorithms, 1 with determinism none"
    )


def test_test_is_compared_where_the_only_setting_of_its_name_is_mixed() -> None:
    found = tables.paired_table(grid_of(none="AAAAA", ar="AAAHH").corpus())
    assert [(v["split"], v["n"]) for v in found] == [("valid", 3), ("test", 3)]


def test_clocks_are_compared_within_an_environment_and_a_machine_even_if_mixed() -> None:
    grid = grid_of(none="AAAAA", ar="AAAHH")
    for record in grid.records:
        record |= {"train_seconds": 10.0, "epochs_done": 1, "tokens_per_s": 5.0}
    for mix in (False, True):
        both = cost.cost_table(grid.corpus(mix))[1]
        assert both["time"] == "× 1.00 [1.00, 1.00]" and both["verdict"].endswith("(a look)")
    grid.records[0]["torch"] = "2.12"
    assert cost.cost_table(grid.corpus())[1]["verdict"].startswith("too few pairs")


# --- the note, and --mix --------------------------------------------------------------------------


def test_a_page_of_one_environment_says_nothing_of_it() -> None:
    for mix in (False, True):
        html = simulate().html(mix=mix)
        assert "Not averaged" not in html and "Entries differ" not in html
        assert "Mixed:" not in html and ">Environment<" not in html


def test_the_note_names_what_differs_and_the_command() -> None:
    grid = grid_of(none="AAAAA", ar="AAAHH", tar="AAAAA")
    text = text_of(grid.html())
    note = text.partition("Not averaged: records")[2].partition("What was run")[0]
    assert "1 of 3 entries" in note and "1 of 2 comparisons" in note
    assert "device: NVIDIA A100 (13 runs), NVIDIA H200 (2 runs)" in note
    assert "torch" not in note and "python -m bench.report demo --mix" in note
    assert text.index("Not averaged: records") < text.index("What was run Command")
    assert "Peak MiB Environment" in text and "– NVIDIA H200" in text


def test_entries_of_one_environment_each_are_averaged_and_the_page_says_they_differ() -> None:
    grid = Grid()
    add(grid, "none", "AAA")
    add(grid, "none", "HHH", cell="gru")
    text = text_of(grid.html())
    assert "Entries differ in environment." in text and "Not averaged" not in text
    assert "not averaged" not in text and "not paired" in text
    assert "Mixed:" not in text_of(grid.html(mix=True))


def test_told_to_it_mixes_and_says_what() -> None:
    apart, alike = grid_of(none="AAAAA", ar="AAAHH"), grid_of(none="AAAAA", ar="AAAAA")
    assert tables.main_table(apart.corpus(True), apart.corpus(True)) == tables.main_table(
        alike.corpus(), alike.corpus()
    )
    same = ("difference", "interval", "p", "holm", "n", "verdict", "apart")
    assert [line(apart, mix=True)[k] for k in same] == [line(alike)[k] for k in same]
    html = apart.html(mix=True)
    text = text_of(html)
    assert 'class="alarm"' in html and "Mixed: this page averages records that differ" in text
    assert "in 1 of 2 entries and in 1 of 1 comparisons" in text
    assert "device: NVIDIA A100 (8 runs), NVIDIA H200 (2 runs)" in text
    assert "not averaged" not in text and "of one environment" not in text
    assert "python -m bench.report demo --mix redraws it" in text
    assert len(figures_of(html)) == 2


def test_on_the_command_line(tmp_path: Path) -> None:
    store_grid(tmp_path, grid_of(none="AAAAA", ar="AAAHH"))
    for more, said in (((), "Not averaged: records"), (("--mix",), "Mixed: this page averages")):
        done = CliRunner().invoke(app, ["demo", "--results", str(tmp_path), *more])
        assert done.exit_code == 0, done.output
        assert said in Path(done.stdout.strip()).read_text()
    done = CliRunner().invoke(app, ["--results", str(tmp_path), "--mix"])
    assert "Mixed: this page averages" in (tmp_path / "reports" / "demo.html").read_text()


def test_files_from_before_the_later_columns_are_read_as_null(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    grid = grid_of(none="AAA", ar="AAA")
    store_grid(tmp_path, grid)
    for record in grid.records[:3]:
        path = tmp_path / "runs" / f"{record['run_id']}.parquet"
        table = pq.read_table(path, partitioning=None)
        pq.write_table(table.drop_columns(["driver", "determinism", "resumed"]), path)
    done = CliRunner().invoke(app, ["demo", "--results", str(tmp_path)])
    text = text_of(Path(done.stdout.strip()).read_text())
    assert "6 of 6 recorded: 6 ok" in text and "ot averaged" not in text


def test_left_out_is_said_in_the_singular() -> None:
    assert comparisons.left_out(comparisons.Pairs(frozenset({1}), 1)) == (
        "1 pair of two environments left out"
    )
    assert comparisons.left_out(comparisons.Pairs(frozenset({1}))) == ""
