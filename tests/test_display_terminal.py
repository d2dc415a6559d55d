"""The one calm view of a terminal."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from bench.config import Trial
from bench.display import Display, Progress
from tests.displays import Clock, grid, ok, trials


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("bench.display.time.monotonic", clock)
    return clock


def seen(display: Display, width: int) -> list[str]:
    """The lines of the view on a terminal of this width."""
    console = Console(record=True, width=width, force_terminal=True, file=io.StringIO())
    console.print(display.view(width))
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_the_view_of_a_terminal(clock: Clock) -> None:
    every = grid()
    ids = list(every)
    display = Display("tiny", Progress(every, {ids[0]: "ok"}), io.StringIO())
    assert seen(display, 100) == [f"tiny  {'━' * 30}  1/12 done  0 running  0 failed  0:00 so far"]
    display.start(ids[1])
    display.start(ids[7])
    clock.now += 30
    display.finish(ids[1], ok(80))
    display.start(ids[4])
    display.start(ids[2])
    display.epoch(ids[4], 5)
    clock.now += 15
    display.finish(ids[2], {"status": "failed", "error_text": "x"})
    assert seen(display, 100) == [
        f"tiny  {'━' * 30}  3/12 done  2 running  1 failed  0:45 so far  about 2:33 left",
        "   gru 20 · none · rep 1         epoch 0/10  0:45",
        "   lstm 20 · ar:alpha=2 · rep 1  epoch 5/10  0:15",
        "   best  lstm 20     80.00  none",
    ]


def test_only_the_first_of_many_running_trials_are_shown() -> None:
    every = grid(reps=5)
    display = Display("many", Progress(every, {}), io.StringIO())
    for run_id in every:
        display.start(run_id)
    lines = seen(display, 100)
    assert len(lines) == 10 and lines[-1] == "   and 12 more"


@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    long = "ar:alpha=2:form=norm:layers=all:of=raw+tar:beta=1:form=norm:layers=all:of=dropped"
    every = trials(*(Trial(regularizer=long, rep=rep) for rep in range(30)))
    display = Display("a-long-name-" * 8, Progress(every, {}), io.StringIO())
    for number, run_id in enumerate(every):
        display.start(run_id)
        if number < 10:
            display.finish(run_id, ok(80) if number else {"status": "oom"})
    lines = seen(display, width)
    assert max(cell_len(line) for line in lines) <= width
    assert len(lines) == 1 + 8 + 1 + 1, "each thing on one line"
    if width >= 80:
        assert "10/30 done  20 running  1 failed" in lines[0]
        assert ("━" in lines[0]) == (width == 200), "the bar gives way first"
        assert lines[1].endswith("epoch 0/80  0:00") and lines[-1].startswith("   best  lstm 650 ")
    if width == 200:
        assert long in lines[1]


def test_what_looks_like_markup_is_shown_as_it_is() -> None:
    strange = "[bold]x[/]"
    every = trials(Trial(regularizer=strange, cell="[red]c[/red]"), Trial(rep=1))
    display = Display(strange, Progress(every, {}), io.StringIO())
    first, _ = every
    display.start(first)
    lines = seen(display, 100)
    assert lines[0].startswith("[bold]x[/]  ━")
    assert lines[1].startswith("   [red]c[/red] 650 · [bold]x[/] · rep 0 ")
    display.finish(first, ok(80))
    assert seen(display, 100)[1] == "   best  [red]c[/red] 650     80.00  [bold]x[/]"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    every = grid()
    ids = list(every)
    terminal = Terminal()
    with (
        pytest.raises(KeyboardInterrupt),
        Display("tiny", Progress(every, {}), terminal) as display,
    ):
        display.start(ids[0])
        display.live.refresh()
        display.finish(ids[0], ok(80))
        display.finish(ids[1], {"status": "failed", "error_text": "ValueError: [bold]no[/]"})
        display.finish(ids[2], {"status": "failed", "error_text": "long " * 50})
        display.live.refresh()
        raise KeyboardInterrupt
    text = terminal.getvalue()
    hide, show, clear = "\x1b[?25l", "\x1b[?25h", "\x1b[2K"
    assert text.count(hide) == text.count(show) == 1 and text.index(hide) < text.index(show)
    # Of what stays, only the failure is a line; the view is cleared, line by line.
    assert "failed · ValueError: [bold]no[/]" in text and "valid 80.00 test" not in text
    (long,) = (line for line in text.splitlines() if "long long" in line)
    assert len(Text.from_ansi(long)) <= 100
    last = text.rindex("tiny")
    assert text.count(clear, last) >= text.count("\n", last) > 0
