"""What a person sees while a grid runs: words, counts, and a line per trial."""

from __future__ import annotations

import io
from typing import Any

import pytest

from bench.config import Trial
from bench.display import Display, Progress, apart, label, outcome, varying
from tests.displays import Clock, grid, ok, trials


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("bench.display.time.monotonic", clock)
    return clock


# --- words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (ok(80), "valid 80.00 test 72.39"),
        (ok(900, stop_reason="not_learned"), "valid 900.00 test 814.35 · not learned"),
        (ok(2, stop_reason="impossible"), "valid 2.00 test 1.81 · IMPOSSIBLE (below the source)"),
        (ok(80, test_nll=None), "valid 80.00 test –"),
        ({"status": "ok", "valid_nll": 1e6, "test_nll": 0.0}, "valid 1014232054735004…"),
        ({"status": "diverged", "stop_reason": "nan", "error_text": None}, "diverged"),
        (
            {"status": "failed", "error_text": "Traceback …\n  File x\nValueError: [no]\tmore\n\n"},
            "failed · ValueError: [no] more",
        ),
        ({"status": "failed", "error_text": " \n"}, "failed"),
        ({"status": "oom", "error_text": "MemoryError"}, "oom · MemoryError"),
        ({"status": "lost"}, "lost"),
    ],
)
def test_how_a_run_ended(record: dict[str, Any], words: str) -> None:
    shown = outcome(record)
    assert shown == words or (words.endswith("…") and shown.startswith(words[:-1]))


def test_a_long_last_line_of_a_traceback_is_cut() -> None:
    shown = outcome({"status": "failed", "error_text": "E: " + "long " * 100 + "end"})
    assert len(shown) < 140 and shown.startswith("failed · E: long") and shown.endswith("long end")


def test_a_label_tells_trials_apart() -> None:
    assert label(Trial(nhid=20)) == "lstm 20 · none · rep 0"
    assert label(Trial(nhid=20, clip=10), ("clip",)) == "lstm 20 · none · rep 0 · clip 10"
    assert apart(grid().values()) == []
    # The cells differ in lr, but their names tell them apart already.
    assert apart([Trial(), Trial(cell="gru", lr=10)]) == []
    same_but = [Trial(clip=clip, lr=lr) for clip in (0.25, 10) for lr in (20, 5)]
    assert apart([*same_but, Trial(cell="gru", wdecay=0)]) == ["lr", "clip"]
    assert apart([Trial(corpus="ptb"), Trial(corpus="wikitext-2")]) == ["corpus"]
    progress = Progress(trials(*same_but), {})
    assert progress.label(f"{3:012x}") == "lstm 650 · none · rep 0 · lr 5 · clip 10"


def test_a_label_has_no_more_fields_than_it_needs() -> None:
    none = Trial(dropout=0, dropouti=0, dropouth=0)
    recipes = [none, Trial(dropoute=0.1), Trial(cell="gru", lr=10)]
    assert varying(recipes) == ["dropout", "dropouth", "dropoute", "lr"]
    assert apart(recipes) == ["dropout"]
    assert apart([*recipes, Trial(dropoute=0.2)]) == ["dropout", "dropoute"]


def test_a_rule_of_another_optimizer_is_no_word_of_a_label() -> None:
    rivals = [Trial(eval_mc=3), *(Trial(optimizer="nt-asgd", nonmono=n) for n in (2, 9))]
    progress = Progress(trials(*rivals), {})
    assert [progress.label(run_id) for run_id in progress.trials] == [
        "lstm 650 · none · rep 0 · optimizer sgd",
        "lstm 650 · none · rep 0 · optimizer nt-asgd · nonmono 2",
        "lstm 650 · none · rep 0 · optimizer nt-asgd · nonmono 9",
    ]
    progress = Progress(trials(Trial(), Trial(eval_mc=3)), {})
    assert progress.label(f"{0:012x}") == "lstm 650 · none · rep 0 · eval_mc none"
    assert varying([Trial(optimizer="nt-asgd", lr=lr, lr_decay=4) for lr in (5, 9)]) == ["lr"]


def test_a_field_that_repeats_another_does_not_count_as_varying() -> None:
    assert varying([Trial(nhid=20), Trial(nhid=30)]) == ["nhid"]
    assert varying([Trial(nhid=20), Trial(nhid=30, emsize=20)]) == ["nhid"]
    assert varying([Trial(nhid=20), Trial(nhid=30, emsize=25)]) == ["nhid", "emsize"]
    assert varying([Trial(lr=20), Trial(lr=10)]) == ["lr"]
    assert varying([Trial(lr=20), Trial(lr=10, min_lr=1)]) == ["lr", "min_lr"]
    both = [Trial(dropout=p, dropouti=p) for p in (0.2, 0.65)]
    assert varying(both) == ["dropout"]
    assert varying([*both, Trial(dropout=0.2, dropouti=0)]) == ["dropout", "dropouti"]
    assert varying([Trial(rep=1), Trial(cell="gru"), Trial(regularizer="ar")]) == []


# --- counts, time left, best ----------------------------------------------------------------------


def test_counts() -> None:
    every = grid()
    ids = list(every)
    recorded = dict(
        zip(ids, ["ok", "diverged", "failed", "oom", "timeout", "stopped"], strict=False)
    )
    progress = Progress(every, recorded)
    assert (progress.total, progress.done, progress.failed) == (12, 6, 3)
    recorded[ids[6]] = "ok"  # as the driver does, which tells of it once more
    progress.finished = {ids[6]: ok(80), ids[7]: {"status": "lost"}, ids[8]: {"status": "failed"}}
    assert (progress.total, progress.done, progress.failed) == (12, 9, 5)


def test_time_left_comes_from_what_finished_and_how_far_the_running_are(clock: Clock) -> None:
    every = grid()
    ids = list(every)
    progress = Progress(every, dict.fromkeys(ids[:2], "ok"))
    assert progress.eta() is None
    clock.now += 60
    progress.running = {ids[2]: (1000.0, 0), ids[3]: (1000.0, 0)}
    assert progress.eta() is None, "nothing is known before the first epoch"
    progress.running = {ids[2]: (1000.0, 5), ids[3]: (1000.0, 10)}
    # 10 are to run; in 60 s one and a half of them.
    assert progress.eta() == pytest.approx((10 - 1.5) * 60 / 1.5)
    progress.finished = {ids[3]: ok(80)}
    del progress.running[ids[3]]
    assert progress.eta() == pytest.approx((10 - 1.5) * 60 / 1.5)
    progress.finished = dict.fromkeys(ids[2:], ok(80))
    progress.running = {}
    assert progress.eta() == 0


def test_best_of_each_cell() -> None:
    every = grid()
    ids = list(every)
    progress = Progress(every, {})
    assert progress.best() == []
    progress.finished = {
        ids[0]: ok(80),
        ids[3]: ok(70),
        ids[4]: ok(75),
        ids[5]: {"status": "diverged", "valid_nll": None},
        ids[6]: {"status": "failed", "valid_nll": 0.1},
    }
    ((cell, regularizer, ppl),) = progress.best()
    assert (cell, regularizer, round(ppl, 6)) == ("lstm 20", "ar:alpha=2", 70)
    progress.finished[ids[7]] = ok(99)
    assert [cell for cell, _, _ in progress.best()] == ["gru 20", "lstm 20"]


def test_the_best_of_one_corpus_is_not_that_of_another() -> None:
    two = trials(Trial(corpus="ptb"), Trial(corpus="wikitext-2"))
    progress = Progress(two, {})
    progress.finished = dict(zip(two, (ok(80), ok(90)), strict=True))
    assert [(cell, round(ppl)) for cell, _, ppl in progress.best()] == [
        ("lstm 650 ptb", 80),
        ("lstm 650 wikitext-2", 90),
    ]


class Gone(io.StringIO):
    """A pipe that nobody reads any more."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_grid_goes_on_when_nobody_reads_any_more() -> None:
    every = grid()
    with Display("tiny", Progress(every, {}), Gone()) as display:
        for run_id in every:
            display.finish(run_id, ok(80))
        display.remark("no [bold]mount[/]")
    assert display.progress.done == len(every)


# --- not a terminal -------------------------------------------------------------------------------


def test_a_line_per_finished_trial_when_not_a_terminal(clock: Clock) -> None:
    every = grid()
    ids = list(every)
    stream = io.StringIO()
    progress = Progress(every, dict.fromkeys(ids[:8], "ok"))
    with Display("tiny", progress, stream) as display:
        display.start(ids[8])
        display.start(ids[9])
        display.epoch(ids[8], 1)
        assert stream.getvalue() == ""
        clock.now += 61
        display.finish(ids[8], ok(80))
        display.vanish([ids[9]])
        assert progress.running == {}
        display.start(ids[9])
        clock.now += 3600
        display.finish(ids[9], {"status": "failed", "error_text": "…\nOSError: [bold]x[/]"})
        display.finish(ids[10], ok(1.5, stop_reason="impossible"))
        display.finish(ids[11], {"status": "lost"})
        for line in ("disk full", "no [bold]mount[/]", "disk full"):
            display.remark(line)
    assert stream.getvalue().splitlines() == [
        "[ 9/12] 000000000008 gru 20 · none · rep 2 · valid 80.00 test 72.39 · 1:01",
        "[10/12] 000000000009 gru 20 · ar:alpha=2 · rep 0 · failed · OSError: [bold]x[/] · 1:00:00",
        "[11/12] 00000000000a gru 20 · ar:alpha=2 · rep 1 · valid 1.50 test 1.36 · IMPOSSIBLE "
        "(below the source) · 0:00",
        "[12/12] 00000000000b gru 20 · ar:alpha=2 · rep 2 · lost · 0:00",
        "disk full",
        "no [bold]mount[/]",
    ]
