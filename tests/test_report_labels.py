"""Many cells on one page, and labels that tell rows apart and say no more."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bench.report import overview, words
from bench.report.drawing import labels
from tests.report_grids import BASE, Grid, figures_of, simulate, text_of

PTB: dict[str, Any] = {"corpus": "ptb", "nhid": 650, "emsize": 650}
CELLS = [
    *("lstm", "lstm_variational:p=0.2", "lstm_recurrent_dropout:p=0.3:per=step", "lstm_layernorm"),
    *("lstm_zoneout:zc=0.25:zh=0.025", "lstm_weightdrop:wdrop=0.4", "gru", "gru_zoneout:zh=0.1"),
    *("rnn_tanh", "irnn", "qrnn", "rhn:depth=3", "nas", "sru", "mingru"),
]


def many(**sizes: int) -> Grid:
    grid = Grid()
    for i, cell in enumerate(CELLS):
        for regularizer in ("none", "ar:alpha=2+tar:beta=1"):
            for rep in range(3):
                size = sizes.get(cell.split(":")[0], 650)
                trial = PTB | {"cell": cell, "regularizer": regularizer, "rep": rep}
                nll = 4.4 + 0.01 * i + 0.001 * rep
                record = {"valid_nll": nll, "test_nll": nll, "num_params": 24_000_000 + i}
                grid.add(trial | {"nhid": size, "emsize": size}, [5.0, nll], **record)
    return grid


def test_fifteen_cells_are_compared_in_one_figure() -> None:
    grid = many(lstm=655, gru=731)  # another size each, as with equal parameter counts
    corpus = grid.corpus()
    assert len(corpus.rows) == 15
    whole, forest, curves = figures_of(grid.html())
    ticks = whole["layout"]["yaxis"]["ticktext"]
    assert ticks[0] == "lstm 655 units · 24.0M"
    assert ticks[4] == "lstm_zoneout 650 units · 24.0M"
    assert len(set(ticks)) == 15 and not [t for t in ticks if "…" in t]
    valid = [trace for trace in whole["data"] if trace["xaxis"] == "x"]
    assert [trace["name"] for trace in valid] == ["none", "ar+tar"]
    assert valid[0]["x"] == pytest.approx([math.exp(4.401 + 0.01 * i) for i in range(15)])
    assert valid[0]["y"] == pytest.approx([i - 0.125 for i in range(15)])
    # s 0.001, t 4.303: half-width 0.00248 nats
    assert valid[0]["error_x"]["array"][0] == pytest.approx(math.exp(4.401) * 0.00249, rel=0.01)
    titles = [a["text"] for a in curves["layout"]["annotations"]]
    for label in (*titles, *forest["layout"]["yaxis"]["ticktext"]):
        assert "…" not in label
    assert "lstm_recurrent_dropout 650 units" in titles


def test_few_rows_need_no_overview() -> None:
    assert overview.overview(simulate().corpus()) is None


def test_the_overview_shows_test_of_chosen_settings_alone() -> None:
    grid = Grid()
    for nhid in (100, 200, 300, 400):
        for alpha, valid, test in ((1, 4.0, 4.5), (2, 4.1, 1.0)):
            trial = {"nhid": nhid, "emsize": nhid, "regularizer": f"ar:alpha={alpha}"}
            grid.add(trial, valid_nll=valid, test_nll=test)
    whole = figures_of(grid.html())[0]
    shown = sorted({round(math.log(x), 3) for trace in whole["data"] for x in trace["x"]})
    assert shown == [4.0, 4.5]


def test_short_labels_tell_rows_apart_and_say_no_more() -> None:
    grid = Grid()
    for cell, dropout, dropoute, lr in (
        ("lstm", 0.0, 0.0, 30.0),
        ("lstm", 0.5, 0.1, 30.0),
        ("lstm_zoneout:zc=0.25:zh=0.025", 0.5, 0.1, 30.0),
        ("gru", 0.0, 0.0, 15.0),
        ("gru", 0.0, 0.1, 15.0),
    ):
        rates = {"dropout": dropout, "dropouti": dropout, "dropoute": dropoute}
        grid.add(BASE | rates | {"cell": cell, "lr": lr})
    rows = grid.corpus().rows
    assert [row.short for row in rows] == [
        "lstm 200 units, dropout 0", "lstm 200 units, dropout 0.5", "lstm_zoneout 200 units",
        "gru 200 units, dropoute 0", "gru 200 units, dropoute 0.1",
    ]  # fmt: skip
    assert rows[2].label == "lstm_zoneout 200 units, dropout 0.5, lr 30, dropoute 0.1"


# --- labels that are cut --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "texts",
    [
        ["x" * 50 + ", clip 0.25", "x" * 50 + ", clip 10"],
        ["x" * 30 + f", clip {clip}, optimizer sgd, " + "y" * 60 for clip in (0.25, 10, 9)],
        ["a" * 100 + f"{i}" + "b" * 100 for i in range(30)],
        # Three that differ in two places.
        [a + "x" * 80 + b + "y" * 80 for a, b in (("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"))],
        ["a" * 60 + one + "b" * 60 + two + "c" * 60 for one in "12" for two in "34"],
        ["a" * n for n in (40, 60, 80, 81)],
        ["<" * n for n in (46, 47, 48)],
        ["short", "x" * 47, "x" * 46],
    ],
)
@pytest.mark.parametrize("limit", [30, 46])
def test_no_two_labels_of_a_figure_are_alike(texts: list[str], limit: int) -> None:
    short = labels(texts, limit)
    assert list(short) == texts and len(set(short.values())) == len(texts)
    assert max(len(label.replace("&lt;", "<")) for label in short.values()) <= limit
    assert all(short[text] == text for text in texts if len(text) <= limit and "<" not in text)


def test_a_label_is_cut_in_the_middle_or_where_the_difference_is_seen() -> None:
    (cut,) = labels(["lstm_recurrent_dropout:p=0.3:per=step 650 units, dropout 0.5"], 46).values()
    assert cut == "lstm_recurrent_dropout… 650 units, dropout 0.5"
    same = [f"lstm_recurrent_dropout:p={p} 650 units, optimizer nt-asgd" for p in (0.2, 0.3)]
    same = [f"{text}, dropout 0.65, dropoute 0.1" for text in same]
    assert list(labels(same, 46).values()) == [
        "lstm_recurrent_…2 650 units, optimizer nt-asg…",
        "lstm_recurrent_…3 650 units, optimizer nt-asg…",
    ]


def test_every_figure_tells_long_rows_apart() -> None:
    grid = Grid()
    cell = "a_cell_of_my_own_with_a_very_long_name_indeed"
    for clip in (0.25, 1.0, 5.0, 10.0):
        for regularizer in ("none", *(f"an_even_longer_name_of_a_term:alpha={a}" for a in (1, 2))):
            trial = {"cell": cell, "clip": clip, "regularizer": regularizer}
            grid.add(trial, [5.0, 4.0], valid_nll=4.0, test_nll=4.0)
    whole, forest, curves = figures_of(grid.html())
    for ticks, number in ((whole, 4), (forest, 8)):
        assert len(set(ticks["layout"]["yaxis"]["ticktext"])) == number
    titles = [a["text"] for a in curves["layout"]["annotations"] if "own" in a["text"]]
    assert len(set(titles)) == len(titles) == 4
    assert len({trace["name"] for trace in curves["data"]}) == 3


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        (12, "12"), (999, "999"), (1000, "1.0k"), (9_433, "9.4k"), (99_940, "99.9k"),
        (99_960, "100k"), (812_345, "812k"), (999_499, "999k"), (999_500, "1.0M"),
        (1_203_400, "1.2M"), (24_221_600, "24.2M"), (1.2e9, "1,200.0M"),
    ],
)  # fmt: skip
def test_a_number_of_parameters_is_never_0M(parameters: float, text: str) -> None:
    assert words.size(parameters) == text


def test_small_models_have_a_size_in_the_overview() -> None:
    grid = Grid()
    for nhid in (4, 8, 12, 16):
        size = {"nhid": nhid, "emsize": nhid}
        grid.add(size, valid_nll=4.0, test_nll=4.0, num_params=1000 * nhid)
    assert figures_of(grid.html())[0]["layout"]["yaxis"]["ticktext"] == [
        f"lstm {n} units · {n}.0k" for n in (4, 8, 12, 16)
    ]


def test_a_sum_of_regularizers_breaks_after_its_plus() -> None:
    grid = Grid()
    for regularizer in ("none", "ar:alpha=2+tar_memory:beta=1", "<i>+x"):
        grid.add({"regularizer": regularizer}, valid_nll=4.0, test_nll=4.0)
    html = grid.html()
    assert "<th>ar+<wbr>tar_memory</th>" in html and ">ar+<wbr>tar_memory</span>" in html
    assert "ar+tar_memory" in text_of(html) and "&lt;i&gt;+<wbr>x" in html


def test_what_is_not_given_is_none_and_what_does_nothing_is_not_said() -> None:
    grid = Grid()
    for optimizer, nonmono, lr_decay, passes in (
        ("sgd", 5, 4.0, None),
        ("sgd", 5, 2.0, 10),
        ("nt-asgd", 5, 4.0, 10),
        ("nt-asgd", 9, 4.0, 10),
    ):
        own = {"optimizer": optimizer, "nonmono": nonmono, "lr_decay": lr_decay}
        grid.add(own | {"eval_mc": passes})
    assert [row.details for row in grid.corpus().rows] == [
        ("optimizer sgd", "lr_decay 4", "eval_mc none"),
        ("optimizer sgd", "lr_decay 2", "eval_mc 10"),
        ("optimizer nt-asgd", "nonmono 5", "eval_mc 10"),
        ("optimizer nt-asgd", "nonmono 9", "eval_mc 10"),
    ]
    assert [row.short for row in grid.corpus().rows] == [
        "lstm 200 units, optimizer sgd, lr_decay 4", "lstm 200 units, optimizer sgd, lr_decay 2",
        "lstm 200 units, optimizer nt-asgd, nonmono 5",
        "lstm 200 units, optimizer nt-asgd, nonmono 9",
    ]  # fmt: skip
    assert "eval_mc None" not in text_of(grid.html())
