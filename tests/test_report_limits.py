"""A page of a large grid: it says what it leaves out, and its summary leaves out nothing."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from bench.report import limits, tables
from bench.report.entries import BASELINE, shorten
from tests.report_grids import Grid, figures_of, text_of


def large(rows: int = 6, alphas: int = 4, reps: int = 3) -> Grid:
    """Rows of a baseline and four settings of ar, of which one diverged and one is worse."""
    grid = Grid("large")
    for row in range(rows):
        for i in range(alphas + 1):
            for rep in range(reps):
                nll = 4.0 + 0.1 * rep + (0.2 if i == 1 else -0.05 * i) + 0.001 * (rep * i % 2)
                name = f"ar:alpha={i}" if i else BASELINE
                trial = {"nhid": 100 + row, "regularizer": name, "rep": rep}
                ends = {"status": "diverged", "stop_reason": "nan"} if i == rep == 2 else {}
                grid.add(trial, [nll + 0.1, nll], valid_nll=nll, test_nll=nll + 0.01, **ends)
    return grid


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SETTINGS", 12), ("DRAWN", 7), ("RUNS", 20), ("LINES", 4)):
        monkeypatch.setattr(limits, name, value)


def test_a_page_that_shows_all_says_nothing_of_limits() -> None:
    text = text_of(large().html())
    assert "Shown:" not in text and "by regularizer" not in text and " more" not in text


@pytest.mark.usefixtures("few")
def test_what_is_left_out_is_said_and_the_counts_hold_all() -> None:
    html = large().html()
    text = text_of(html)
    assert "90 of 90 recorded: 84 ok, 6 diverged" in text
    assert "Shown: the first 12 of 30 settings, in the grid's order" in text
    assert "Shown: the first 7 of 30 settings" in text
    assert "Shown: the first 20 of 90 runs" in text
    assert "Shown: the first 4 of 6. All of them, by status and error: 6 diverged: nan" in text
    assert text.count("--set FIELD=V --name NAME") == 6
    table = html[html.index('<table class="sortable">') :]
    assert table[: table.index("</table>")].count("<code>") == 20
    drawn = [f for f in figures_of(html) if "epoch" in str(f["layout"]["annotations"])]
    assert len([t for t in drawn[0]["data"] if "epoch" in t.get("hovertemplate", "")]) == 7


@pytest.mark.usefixtures("few")
def test_the_summary_counts_every_comparison_as_the_whole_table_does() -> None:
    corpus = large().corpus()
    whole = tables.paired_table(corpus)
    none, ar = limits.summary(corpus, whole)
    assert (none["settings"], none["runs"], none["splits"]) == (6, "18 of 18 ok", [])
    assert (ar["settings"], ar["runs"], ar["others"]) == (24, "66 of 72 ok", "6 diverged")
    valid, test = ar["splits"]
    # Per row: alpha=1 is higher, 3 and 4 are lower, 2 has two pairs left.
    assert (valid["of"], valid["lower"], valid["higher"], valid["few"]) == (24, 12, 6, 6)
    assert (test["of"], test["lower"], test["higher"]) == (6, 6, 0)
    holm = [v for v in whole if v["split"] == "valid" and v["verdict"].endswith("not after Holm")]
    assert valid["lower_holm"] + valid["higher_holm"] == 18 - len(holm)
    assert ar["best"].startswith("49.4: lstm 100 units") and "ar:alpha=4 (n = 3)" in ar["best"]
    shown = limits.first(corpus, 12)
    kept = limits.lines(whole, shown)
    corrected = {(v["row"].label, v["setting"].spelling, v["split"]): v["holm"] for v in whole}
    for v in kept:
        assert v["holm"] == corrected[v["row"].label, v["setting"].spelling, v["split"]]
    assert sum(line["span"] for line in kept) == len(kept)


def test_a_row_that_is_cut_keeps_its_baseline_and_the_best() -> None:
    corpus = large(rows=1, alphas=9).corpus()
    row = limits.first(corpus, 3).rows[0]
    assert [s.spelling for s in row.settings] == ["none", "ar:alpha=1", "ar:alpha=9"]
    assert limits.first(corpus, 10) is corpus
    assert limits.cut(corpus, corpus) == ""
    assert limits.cut(limits.first(corpus, 3), corpus) == "the first 3 of 10 settings"


@pytest.mark.usefixtures("few")
def test_long_lists_end_with_how_many_more() -> None:
    grid = large(rows=1)
    for record in grid.records:
        record["stop_reason"] = "impossible"
    text = text_of(grid.html([f"file {i}: broken" for i in range(9)]))
    assert "file 3: broken" in text and "file 4: broken" not in text and "and 5 more" in text
    assert re.search(r"Impossible: 15 runs .* and 11 more", text)


def test_ten_thousand_spellings_are_shortened_in_one_pass() -> None:
    names = [f"ar:alpha={i}:of=raw+tar:beta=1" for i in range(10_000)]
    short = shorten(names)
    assert short[names[7]] == "ar:alpha=7+tar" and len(set(short.values())) == 10_000


# --- a cut row says nothing untrue of what it leaves out ------------------------------------------


def failing(alphas: int = 6) -> Grid:
    """One row: none, many settings of ar, and a tar that failed everywhere."""
    grid = large(rows=1, alphas=alphas)
    for beta in (1, 2):
        for rep in range(3):
            trial = {"nhid": 100, "regularizer": f"tar:beta={beta}", "rep": rep}
            grid.add(trial, status="failed", error_type="ValueError", error_text="x")
    return grid


def test_what_failed_everywhere_is_not_said_to_be_outside_the_grid(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus = failing().corpus()
    row = limits.first(corpus, 3).rows[0]
    assert [s.spelling for s in row.settings] == ["none", "ar:alpha=6", "tar:beta=1"]
    monkeypatch.setattr(limits, "SETTINGS", 3)
    text = text_of(failing().html())
    assert "not in the grid" not in text and "0/3 ok: 3 failed" in text


def test_a_column_without_entries_says_whether_the_grid_has_them() -> None:
    corpus = failing().corpus()
    whole = corpus.rows[0]
    bare = replace(whole, settings=whole.settings[:1])
    (view,) = tables.main_table(replace(corpus, rows=(bare,)), corpus)
    assert [(len(c["entries"]), c["none"]) for c in view["columns"][1:]] == [(0, "not shown")] * 2
    other = replace(corpus, rows=(bare,))
    (view,) = tables.main_table(other, other)
    assert [c["none"] for c in view["columns"][1:]] == ["not in the grid"] * 2


def test_the_best_of_many_is_not_passed_off_as_the_only_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "SETTINGS", 2)
    assert "ar:alpha=4 best on valid" in text_of(large(rows=1).html())


def test_a_figure_that_is_left_out_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "No figure compares the rows"
    assert said not in text_of(large(rows=3).html())
    monkeypatch.setattr(limits, "DRAWN", 7)
    text = text_of(large(rows=6).html())
    assert f"{said}: it would show the first 7 of 30 settings, in 2 of 6 rows, too few" in text
    assert said not in text_of(large(rows=3).html()), "with three rows there never is one"
    monkeypatch.setattr(limits, "DRAWN", 22)
    assert said not in text_of(large(rows=6).html())
