"""Published figures beside ours, many cells on one page, MC figures, and labels that tell apart."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bench.plugins import published
from bench.report import beside, figures, tables
from bench.report import runs as single
from tests.report_grids import Grid, text_of

PTB: dict[str, Any] = {"corpus": "ptb", "nhid": 650, "emsize": 650}


def ptb(valid: float = 80.0, test: float = 76.46, millions: float = 13.3, **trial: Any) -> Grid:
    grid = Grid()
    for rep in range(3):
        score: dict[str, Any] = {"valid_nll": math.log(valid), "test_nll": math.log(test)}
        grid.add(PTB | {"rep": rep} | trial, **score, num_params=int(millions * 1e6))
    return grid


# --- published figures ----------------------------------------------------------------------------


def test_a_published_figure_stands_under_ours_with_difference_source_and_mark() -> None:
    text = text_of(ptb().html())
    assert "published elsewhere [1] LSTM, tied, dropout 0.5: test 75.96, ours +0.5" in text
    assert "[2] LSTM, tied, dropout 0.5: test 75.40, ours +1.1" in text
    assert "Not our runs, not paired with them, in no statistic." in text
    note = "LSTM, tied, dropout 0.5: test 75.96. pytorch/examples word_language_model README at"
    assert f"{note} f2a771a V1 40 epochs, lr 20, clip 0.25" in text
    assert "V1: seen in one source" in text
    wikitext = text_of(ptb(valid=90.0, corpus="wikitext-2").html())
    assert "valid 91.70, ours −1.7 ; test 86.68, ours −10.2" in wikitext


def test_it_enters_no_statistic() -> None:
    grid = ptb()
    for rep in range(3):
        grid.add(PTB | {"rep": rep, "regularizer": "ar"}, valid_nll=4.3, test_nll=4.3)
    corpus = grid.corpus()
    before = (tables.paired_table(corpus), figures.forest(corpus), single.all_runs([corpus]))
    assert beside.notes(corpus)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(beside, "published", list)
        assert not beside.notes(corpus)
        corpus = grid.corpus()
        assert before == (
            tables.paired_table(corpus), figures.forest(corpus), single.all_runs([corpus])
        )  # fmt: skip
        assert "ublished elsewhere" not in grid.html()


@pytest.mark.parametrize(
    "trial",
    [
        {"nhid": 651},
        {"nlayers": 3},
        {"cell": "gru"},
        {"corpus": "synthetic"},
        {"regularizer": "ar:alpha=2"},
        {"dropout": 0.0, "dropouti": 0.0, "dropouth": 0.0},
        {"objective": "augmented"},
    ],
)
def test_only_where_cell_regularizer_corpus_and_size_agree(trial: dict[str, Any]) -> None:
    assert "ublished elsewhere" not in ptb(**trial).html()


def test_a_differing_hyper_parameter_is_no_hindrance_and_the_model_is_named() -> None:
    text = text_of(ptb(cell="lstm_zoneout:zc=0.1:zh=0.1", tied=False, millions=19.8).html())
    assert "LSTM, zoneout: valid 78.66, ours +1.3 ; test 75.45, ours +1.0" in text


def test_tying_tells_the_rows_apart() -> None:
    text = text_of(ptb(tied=False, millions=19.8).html())
    assert "80.97" in text and "76.81" in text and "75.96" not in text


def test_without_a_run_of_ours_there_is_no_difference() -> None:
    grid = Grid()
    grid.add(PTB)
    assert "test 75.96" not in text_of(grid.html()).partition("Published elsewhere")[0]
    grid.add(PTB | {"corpus": "wikitext-2"})
    text = text_of(grid.html())
    assert "valid 91.70" in text and ", ours" not in text


def test_our_test_stays_hidden_where_another_setting_is_best_on_valid() -> None:
    awd: dict[str, Any] = {"cell": "lstm_weightdrop", "nhid": 1150, "emsize": 400, "nlayers": 3}
    grid = ptb(millions=24.2, regularizer="ar:alpha=2+tar:beta=1", **awd)
    for record in grid.records:
        record["test_nll"] = math.log(33.0)
    for rep in range(3):
        trial = PTB | awd | {"regularizer": "ar:alpha=1+tar:beta=1", "rep": rep}
        grid.add(trial, valid_nll=math.log(70.0), test_nll=math.log(67.3))
    text = text_of(grid.html())
    assert "AWD-LSTM, fine-tuned: valid 60.00, ours +10.0 ; test 57.30, ours +10.0" in text
    assert text.count("AWD-LSTM, fine-tuned: valid 60.00, ours") == 1
    assert "ours +20.0" not in text and "−24.3" not in text
    assert "52.80" not in text, "a continuous cache is not comparable"


def test_mc_stands_beside_mc() -> None:
    trial: dict[str, Any] = {"cell": "lstm_variational:p=0.2:untied=true", "tied": False}
    grid = ptb(valid=82.0, test=80.0, millions=19.8, **trial)
    text = text_of(grid.html())
    assert "test MC 78.60" in text and "test MC 78.60, ours" not in text
    assert "MC: perplexity of" not in text
    for record in grid.records:
        record |= {"valid_mc_nll": math.log(81.0), "test_mc_nll": math.log(79.0)}
    text = text_of(grid.html())
    assert "test MC 78.60, ours +0.4" in text
    assert "valid 82.0 [82.0, 82.0] MC 81.0 test 80.0 [80.0, 80.0] MC 79.0" in text
    assert "test 79.70, ours +0.3" in text, "the plain figure is compared with the plain one"
    assert "MC: perplexity of the mean probabilities" in text


def test_a_hostile_table_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    (row, *_) = published.published()
    bad = "</div><script>alert(1)</script>"
    hostile = type(row)(**{**vars(row), "nhid": 650, "model": bad, "source": bad, "note": bad})
    monkeypatch.setattr(beside, "published", lambda: [hostile])
    html = ptb().html()
    assert "alert(1)" in html and bad not in html
