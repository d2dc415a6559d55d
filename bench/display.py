"""What a person sees while a grid runs: a live display on a terminal, else a line per trial."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from bench.config import Trial
from bench.errors import one_line
from bench.fields import acts, written

if TYPE_CHECKING:
    from rich.console import RenderableType

GOOD = ("ok", "diverged", "stopped")
STOPPING = "stopping: running trials write where they stand; once more ends them at once"
_ROWS = 8
"""Running trials shown; the others are counted."""


def label(trial: Trial, more: Sequence[str] = ()) -> str:
    """Returns a trial in a few words, `more` fields by name among them where they do anything."""
    words = [f"{trial.cell} {trial.nhid}", trial.regularizer, f"rep {trial.rep}"]
    values = vars(trial)
    shown = [name for name in more if acts(values, name)]
    return " · ".join([*words, *(f"{name} {written(values[name])}" for name in shown)])


def repeated(trials: Iterable[Trial]) -> set[str]:
    """Returns the fields that repeat another one in every trial.

    These are dropouti where it is dropout, emsize where it is nhid, min_lr where it is lr / 4^6.
    """
    every = list(trials)
    repeats = {
        "dropouti": all(t.dropouti == t.dropout for t in every),
        "emsize": all(t.emsize == t.nhid for t in every),
        "min_lr": all(t.min_lr == t.lr / 4**6 for t in every),
    }
    return {name for name, holds in repeats.items() if holds}


def varying(trials: Iterable[Trial]) -> list[str]:
    """Returns the fields in which trials differ, beside cell, regularizer, rep and what repeats.

    A field counts where it does something: nonmono does not under sgd.
    """
    every = list(trials)
    told = {"cell", "regularizer", "rep"} | repeated(every)
    return [
        name
        for name in Trial.model_fields
        if name not in told and len({getattr(t, name) for t in every if acts(vars(t), name)}) > 1
    ]


def apart(trials: Iterable[Trial]) -> list[str]:
    """Returns as few fields as tell trials apart whose labels would else be the same."""
    alike: dict[str, list[Trial]] = {}
    for trial in trials:
        alike.setdefault(label(trial), []).append(trial)
    groups = list(alike.values())
    found = []
    candidates = {name for group in groups for name in varying(group)}
    for name in Trial.model_fields:
        if name not in candidates:
            continue
        split = [_by(name, group) for group in groups]
        if any(len(parts) > 1 for parts in split):
            found.append(name)
            groups = [part for parts in split for part in parts]
    return found


def _by(name: str, trials: Iterable[Trial]) -> list[list[Trial]]:
    parts: dict[object, list[Trial]] = {}
    for trial in trials:
        parts.setdefault(getattr(trial, name), []).append(trial)
    return list(parts.values())


def outcome(record: dict[str, Any]) -> str:
    """Returns how a run ended, in a few words."""
    if record["status"] == "ok":
        text = f"valid {_ppl(record['valid_nll'])} test {_ppl(record['test_nll'])}"
        marks = {"not_learned": " · not learned", "impossible": " · IMPOSSIBLE (below the source)"}
        return text + marks.get(record.get("stop_reason") or "", "")
    lines = (record.get("error_text") or "").strip().splitlines()
    return " · ".join([str(record["status"]), *(one_line(line, 120) for line in lines[-1:])])


def _ppl(nll: float | None) -> str:
    return "–" if nll is None else f"{math.exp(min(nll, 700)):.2f}"


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """Counts done, failed and running trials, the time left, and the best of each cell.

    `done` are the statuses of the trials that need no run.
    """

    def __init__(self, trials: dict[str, Trial], done: dict[str, str]) -> None:
        self.trials = trials
        self.total = len(trials)
        self.recorded = dict(done)  # the driver goes on writing into its own
        self.finished: dict[str, dict[str, Any]] = {}
        self.running: dict[str, tuple[float, int]] = {}
        self.started = time.monotonic()
        self.more = apart(trials.values())
        self.corpora = len({trial.corpus for trial in trials.values()})

    @property
    def done(self) -> int:
        return len(self.recorded) + len(self.finished)

    @property
    def failed(self) -> int:
        ends = [*self.recorded.values(), *(r["status"] for r in list(self.finished.values()))]
        return sum(end not in GOOD for end in ends)

    def label(self, run_id: str) -> str:
        """Returns a trial in as many words as tell it from the others."""
        return label(self.trials[run_id], self.more)

    def eta(self) -> float | None:
        """Returns the seconds left: what finished took, and how far the running ones are."""
        share = sum(
            epoch / self.trials[run_id].epochs for run_id, (_, epoch) in list(self.running.items())
        )
        worth = len(self.finished) + share
        if worth == 0:
            return None
        left = self.total - len(self.recorded) - worth
        return max(0.0, left * (time.monotonic() - self.started) / worth)

    def best(self) -> list[tuple[str, str, float]]:
        """Returns (cell, regularizer, valid ppl) of the best trial of each cell that finished."""
        found: dict[str, tuple[float, str]] = {}
        for run_id, record in list(self.finished.items()):  # while it is drawn, runs end
            nll = record.get("valid_nll")
            if record["status"] != "ok" or nll is None:
                continue
            trial = self.trials[run_id]
            cell = f"{trial.cell} {trial.nhid}"
            if self.corpora > 1:
                cell += f" {trial.corpus}"
            if cell not in found or nll < found[cell][0]:
                found[cell] = (nll, trial.regularizer)
        return [(cell, reg, math.exp(min(nll, 700))) for cell, (nll, reg) in sorted(found.items())]


class Display:
    """One calm view of a grid; use as a context manager."""

    def __init__(self, name: str, progress: Progress, stream: TextIO) -> None:
        self.name, self.progress, self.stream = name, progress, stream
        self.live: Any = None
        self.note = ""
        self.remarks: set[str] = set()
        if stream.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(file=stream)
            self.live = Live(
                get_renderable=lambda: self.view(console.width),
                console=console,
                refresh_per_second=2,
                transient=True,
            )

    def __enter__(self) -> Display:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def start(self, run_id: str) -> None:
        self.progress.running[run_id] = (time.monotonic(), 0)

    def epoch(self, run_id: str, number: int) -> None:
        since = self.progress.running.get(run_id, (time.monotonic(), 0))[0]
        self.progress.running[run_id] = (since, number)

    def finish(self, run_id: str, record: dict[str, Any]) -> None:
        p = self.progress
        since, _ = p.running.pop(run_id, (time.monotonic(), 0))
        p.finished[run_id] = {key: record.get(key) for key in ("status", "valid_nll")}
        line = (
            f"[{p.done:>{len(str(p.total))}}/{p.total}] {run_id} {p.label(run_id)} · "
            f"{outcome(record)} · {_span(time.monotonic() - since)}"
        )
        if self.live is None:
            self._print(line)
        elif record["status"] != "ok":
            from rich.text import Text

            # Cut at the edge: the log has the whole of it.
            self.live.console.print(Text(line, "yellow"), no_wrap=True, overflow="ellipsis")

    def _print(self, line: str) -> None:
        with contextlib.suppress(OSError):  # nobody reads any more, as in `… | head`: trials go on
            print(line, file=self.stream, flush=True)

    def remark(self, line: str) -> None:
        """Shows a line, once, that all who look at the grid should know."""
        if line in self.remarks:
            return
        self.remarks.add(line)
        if self.live is None:
            self._print(line)
        else:
            from rich.text import Text

            self.live.console.print(Text(line, "yellow"))

    def vanish(self, run_ids: list[str]) -> None:
        """The processes of these trials vanished."""
        for run_id in run_ids:
            self.progress.running.pop(run_id, None)

    def stopping(self) -> None:
        """Somebody asked to stop. Called from a signal handler, so nothing is printed as usual."""
        self.note = STOPPING
        if self.live is None:
            with contextlib.suppress(OSError):
                os.write(2, f"\n{STOPPING}\n".encode())

    def view(self, width: int) -> RenderableType:
        """Returns what a terminal of this width shows: one line per thing, none of them wrapped."""
        from rich.console import Group
        from rich.text import Text

        p, now = self.progress, time.monotonic()
        eta = p.eta()
        done, failed = f"{p.done}/{p.total} done  {len(p.running)} running  ", f"{p.failed} failed"
        times = f"  {_span(now - p.started)} so far"
        times += "" if eta is None else f"  about {_span(eta)} left"
        name = one_line(self.name, 30)
        bar = min(30, width - len(name + done + failed + times) - 4)
        bar = 0 if bar < 5 else bar  # the counts matter more
        full = round(bar * p.done / p.total)
        strip = Text.assemble(("━" * full, "green"), ("━" * (bar - full), "dim"))
        many = Text(failed, "yellow" if p.failed else "dim")
        gap = "  " if bar else ""
        lines = [Text.assemble((name, "bold"), gap, strip, "  ", done, many, times)]
        shown = [
            (p.label(run_id), f"epoch {epoch}/{p.trials[run_id].epochs}  {_span(now - since)}")
            for run_id, (since, epoch) in list(p.running.items())[:_ROWS]
        ]
        room = width - 5 - max((len(state) for _, state in shown), default=0)
        column = min(room, max((len(words) for words, _ in shown), default=0))
        for words, state in shown:
            words = one_line(words, max(column, 10))
            lines.append(Text.assemble(f"   {words:<{column}}  ", (state, "dim")))
        if len(p.running) > _ROWS:
            lines.append(Text(f"   and {len(p.running) - _ROWS} more", "dim"))
        best = p.best()
        wide = max((len(cell) for cell, _, _ in best), default=0)
        for cell, regularizer, ppl in best:
            words = f"{cell:<{wide}}  {ppl:8.2f}  {regularizer}"
            lines.append(Text.assemble(("   best  ", "dim"), words))
        if self.note:
            lines.append(Text(f"   {self.note}", "yellow"))
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(*lines)
