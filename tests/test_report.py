"""The report against hand-worked numbers, its one rule of choice, and hostile names."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pytest

from bench.report import cost, figures, tables, words
from bench.report.entries import join, shorten
from bench.stats import Estimate
from tests.report_grids import Grid, figures_of, simulate, text_of


def three(grid: Grid, regularizer: str, valid: Sequence[float], test: Sequence[float]) -> None:
    for rep, (v, t) in enumerate(zip(valid, test, strict=True)):
        grid.add({"regularizer": regularizer, "rep": rep}, valid_nll=v, test_nll=t)


def test_main_and_paired_numbers_by_hand() -> None:
    grid = Grid()
    three(grid, "none", [4.0, 4.1, 4.2], [4.1, 4.2, 4.3])
    three(grid, "ar:alpha=2", [3.9, 4.0, 4.1], [4.0, 4.12, 4.18])
    corpus, text = grid.corpus(), text_of(grid.html())
    # mean 4.1, s 0.1, half-width 2.4841 s = 0.2484: exp gives 60.3 in [47.1, 77.4]
    assert "valid 60.3 [47.1, 77.4]" in text
    assert "test 66.7 [52.0, 85.5] n = 3" in text
    # test differences -0.1, -0.08, -0.12: mean -0.1, s 0.02, half 0.0497, t -8.66, p 0.013
    row = next(r for r in tables.paired_table(corpus) if r["split"] == "test")
    assert row["difference"] == "−0.1000" and row["interval"] == "[−0.1497, −0.0503]"
    assert (row["p"], row["n"], row["holm"]) == ("0.013", 3, "0.013")
    assert row["verdict"] == "lower (a look)"
    assert "6 of 6 recorded: 6 ok" in text and "3 planned per entry, a look" in text


def test_a_difference_that_holm_takes_back_says_so() -> None:
    grid = Grid()
    three(grid, "none", [4.0, 4.1, 4.2], [4.0, 4.1, 4.2])
    three(grid, "ar", [3.9, 4.02, 4.08], [3.9, 4.02, 4.08])  # p = 0.013 alone
    for name in ("a", "b", "c", "d"):
        three(grid, name, [4.0, 4.11, 4.19], [4.0, 4.11, 4.19])
    ar, _, other, *_ = tables.paired_table(grid.corpus())
    assert (ar["p"], ar["holm"]) == ("0.013", "0.065")
    assert ar["verdict"] == "lower (a look), not after Holm"
    assert other["verdict"] == "no difference shown (a look)"


def test_choice_looks_at_valid_only() -> None:
    grid = Grid()
    three(grid, "none", [4.0] * 3, [4.0] * 3)
    three(grid, "ar:alpha=2", [3.9, 3.91, 3.92], [4.5, 4.51, 4.52])
    three(grid, "ar:alpha=4", [3.95, 3.96, 3.97], [1.0, 1.01, 1.02])  # better on test: a lure
    corpus, html = grid.corpus(), grid.html()
    text = text_of(html)
    assert [s.chosen for s in corpus.rows[0].settings] == [True, True, False]
    tests = [r["setting"].label for r in tables.paired_table(corpus) if r["split"] == "test"]
    assert tests == ["ar:alpha=2"]
    assert "ar:alpha=2 best on valid valid 49.9" in text
    assert words.ppl(4.51) in text and not {"2.7", "2.8"} & set(text.split())  # nowhere at all
    right = [t for f in figures_of(html) for t in f["data"] if t.get("xaxis") == "x2"]
    assert min(x for t in right for x in t["x"]) > 0  # no test point of the lure in the figure


def test_a_diverged_setting_comes_after_those_without() -> None:
    grid = Grid()
    three(grid, "ar:alpha=2", [3.9, 3.9], [4.0, 4.0])
    grid.add({"regularizer": "ar:alpha=4"}, valid_nll=3.0, test_nll=3.0)
    grid.add({"regularizer": "ar:alpha=4", "rep": 1}, status="diverged", valid_nll=math.nan)
    text = text_of(grid.html())
    assert "ar:alpha=2 best on valid" in text
    assert "1/2 ok diverged 1/2" in text


def test_only_complete_pairs_count() -> None:
    grid = Grid()
    three(grid, "none", [4.0, 4.1, 4.2, 9.0], [4.0] * 4)
    for rep, nll in ((4, 1.0), (2, 4.1), (1, 4.0)):
        grid.add({"regularizer": "tar:beta=1", "rep": rep}, valid_nll=nll, test_nll=nll)
    grid.add({"regularizer": "tar:beta=1", "rep": 3}, status="failed", valid_nll=1.0)
    row = tables.paired_table(grid.corpus())[0]
    assert (row["n"], row["difference"]) == (2, "−0.1000")
    assert row["verdict"] == "too few pairs to say anything"


def test_rows_never_mix_settings() -> None:
    grid = Grid()
    for nhid, dropout in ((650, 0.5), (1500, 0.65)):
        for clip in (0.25, 10.0):
            same = {"nhid": nhid, "emsize": nhid, "dropout": dropout, "clip": clip}
            grid.add(same, valid_nll=4.0 + clip, test_nll=4.0)
    grid.add({"nhid": 650, "emsize": 650, "dropout": 0.5, "clip": 10.0, "regularizer": "ar"})
    rows = grid.corpus().rows
    assert [r.label for r in rows] == [
        "lstm 650 units, dropout 0.5, clip 0.25", "lstm 650 units, dropout 0.5, clip 10",
        "lstm 1500 units, dropout 0.65, clip 0.25", "lstm 1500 units, dropout 0.65, clip 10",
    ]  # fmt: skip
    assert [len(r.settings) for r in rows] == [1, 2, 1, 1]
    # emsize is named as soon as it is more than a copy of nhid
    grid.add({"nhid": 650, "emsize": 400, "dropout": 0.5, "clip": 10.0})
    assert "emsize 650" in grid.corpus().rows[0].label


def test_short_names_stay_apart() -> None:
    full = ["ar:alpha=2:of=raw", "ar:alpha=4:of=raw", "ar:alpha=2+tar:beta=1", "none"]
    assert list(shorten(full).values()) == ["ar:alpha=2", "ar:alpha=4", "ar+tar", "none"]
    short = shorten(["ar", "ar:alpha=2", "tar", "tar:beta=1:of=raw"])
    assert len(set(short.values())) == 4


def test_cost_ratio_by_hand() -> None:
    grid = Grid()
    for name, seconds in (("none", 10.0), ("ar", 11.0)):
        for rep in range(3):
            clock: dict[str, Any] = {
                "epochs_done": 2,
                "train_seconds": seconds,
                "tokens_per_s": 1e4 / seconds,
            }
            grid.add({"regularizer": name, "rep": rep}, valid_nll=4.0, test_nll=4.0, **clock)
    row = cost.cost_table(grid.corpus())[1]
    assert (row["time"], row["rate"]) == ("× 1.10 [1.10, 1.10]", "× 0.91 [0.91, 0.91]")
    assert (row["seconds"], row["tokens"]) == ("5.50", "909")
    assert row["verdict"] == "slower (a look)"
    for record in grid.records[3:5]:
        record |= {"packed": 4, "train_seconds": 1e6}  # its clock is not its own
    row = cost.cost_table(grid.corpus())[1]
    assert (row["n"], row["seconds"]) == (1, "5.50")
    for record in grid.records[3:]:
        record["device"] = "another"
    assert cost.cost_table(grid.corpus())[1]["time"] == words.NOTHING


def test_a_mean_clock_of_several_hosts_says_so() -> None:
    grid = Grid()
    for rep in range(4):
        for name in ("none", "ar"):
            clock: dict[str, Any] = {
                "host": f"node{rep // 2}",
                "tokens_per_s": 1e3 * (1 + rep // 2),
            }
            clock = clock if name == "none" else clock | {"host": "node0"}
            grid.add({"regularizer": name, "rep": rep}, valid_nll=4.0, test_nll=4.0, **clock)
    none, ar = cost.cost_table(grid.corpus())
    assert (none["n"], none["hosts"], none["tokens"]) == (4, 2, "1,500")
    assert ar["hosts"] == 1 and ar["rate"] == "× 1.00 [1.00, 1.00]", "of the two on one host"
    assert text_of(grid.html()).count("4 on 2 hosts") == 1


@pytest.mark.parametrize("value", [-1000.0, -1e300, 700.0, 1e300])
def test_numbers_that_no_run_has_are_left_out_of_the_figures(value: float) -> None:
    """As a foreign record may have them, sealed or not."""
    grid = simulate()
    figures_there = len(figures_of(grid.html()))
    for record in grid.records:
        record |= {"valid_floor": value, "unigram_nll": value}
    grid.epochs[3]["valid_nll"] = value
    curves = figures.curves_of(grid.frames()[1])
    assert sum(map(len, curves.values())) == len(grid.epochs) - 1
    html = grid.html()
    assert len(figures_of(html)) == figures_there and "floor: the source" not in html
    grid.epochs = [epoch | {"valid_nll": value} for epoch in grid.epochs]
    assert len(figures_of(grid.html())) == figures_there - 1


def test_clocks_that_no_run_has_are_no_ratio() -> None:
    grid = Grid()
    for name, clock in (("none", 5e-324), ("ar", 1e308)):
        for rep in range(3):
            both: dict[str, Any] = {
                "tokens_per_s": clock,
                "train_seconds": clock,
                "epochs_done": -1,
            }
            grid.add({"regularizer": name, "rep": rep}, valid_nll=4.0, test_nll=4.0, **both)
    row = cost.cost_table(grid.corpus())[1]
    assert (row["time"], row["rate"]) == (words.NOTHING, words.NOTHING)
    grid.html()


def test_simulated_grid_says_what_happened() -> None:
    html = simulate().html(["results/runs/x.parquet: truncated"])
    text = text_of(html)
    for said in (
        "35 of 36 recorded: 33 ok, 1 diverged, 1 failed; 1 not yet run",
        "qrnn with memory: gives no memory (3 trials)",
        "results/runs/x.parquet: truncated",
        "ValueError: shapes [35, 5, 200] and [34, 5, 200]",
        "2/3 ok: 1 failed",
        "2/3 ok: 1 not yet run",
        "not learned 1/3",
        "torch 2.13.0, python 3.11.9",
        "excess +0.5",
        "is a hypothesis",
    ):
        assert said in text, said
    forest, curves = figures_of(html)
    names = {trace.get("name") for trace in curves["data"]}
    assert {"none", "ar", "tar", "ar+tar", "floor: the source itself", "unigram model"} <= names
    assert curves["layout"]["yaxis"]["type"] == "log"
    assert max(v for t in forest["data"] for v in t["error_x"]["array"]) < 1


def test_median_and_band_by_hand() -> None:
    grid = Grid()
    for rep, curve in enumerate(([4.0, 3.0], [4.2, 3.1], [5.0, math.nan])):
        grid.add({"rep": rep}, curve, valid_nll=3.0, test_nll=3.0)
    runs, epochs = grid.frames()
    drawn = figures.learning_curves(join(grid.spec, runs)[0], figures.curves_of(epochs))
    assert drawn is not None
    band, line = json.loads(drawn)["data"]
    assert line["x"] == [1, 2] and line["y"] == pytest.approx([math.exp(4.2), math.exp(3.05)])
    assert band["x"] == [1, 2, 2, 1]
    assert band["y"] == pytest.approx([math.exp(v) for v in (5.0, 3.1, 3.0, 4.0)])


def test_impossible_is_an_alarm() -> None:
    grid = Grid()
    grid.add({}, valid_nll=2.0, test_nll=2.0, stop_reason="impossible")
    html = grid.html()
    assert 'class="alarm"' in html and "This means a bug" in html
    assert "impossible 1/1" in text_of(html)
    assert 'class="alarm"' not in simulate().html()


@pytest.mark.parametrize("runs", ["no trial", "none recorded", "one", "failed only", "60 curves"])
def test_works_at_the_edges(runs: str) -> None:
    grid = Grid()
    if runs == "none recorded":
        three(grid, "none", [], [])
        grid.add({})
        grid.add({"regularizer": "ar"})
    elif runs == "one":
        grid.add({}, [4.2, 4.1], valid_nll=4.1, test_nll=800.0)
    elif runs == "failed only":
        grid.add({}, status="oom", error_type="OutOfMemoryError", error_text="")
        grid.add({"regularizer": "ar"}, status="lost")
    elif runs == "60 curves":
        for nhid in range(100, 1600, 100):
            for name in ("none", "ar:alpha=1", "ar:alpha=2", "tar:beta=1"):
                grid.add({"nhid": nhid, "regularizer": name}, [5.0, 4.0], valid_nll=4, test_nll=4)
    html = grid.html()
    assert html.rstrip().endswith("</html>")
    drawn = {"one": 1, "60 curves": 3}.get(runs, 0)
    assert len(figures_of(html)) == drawn
    assert (len(html) > 4_000_000) == bool(drawn)  # plotly comes only with a figure
    assert html.count("Plotly.newPlot(place") == 1
    if runs == "60 curves":
        assert len([t for t in figures_of(html)[2]["data"] if t["mode"] == "lines"]) == 60


def test_formats() -> None:
    assert [words.ppl(v) for v in (None, 3.8, 9.3, 14.0, 800.0)] == [
        "–", "44.7", "10,938.0", "1.2e+06", "exp(800)"]  # fmt: skip
    assert words.nats(-0.01234, True) == "−0.0123"
    assert [words.standing(n) for n in (1, 2, 3, 4, 5)] == [
        "too few to say anything"] * 2 + ["a look"] * 2 + ["a result"]  # fmt: skip
    assert words.verdict(Estimate(-0.1, 0.2, 5, 0.3)) == "no difference shown (a result)"
    assert words.verdict(Estimate(0.3, 0.2, 5, 0.01)).startswith("higher")
