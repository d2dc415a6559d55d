"""What a person sees while a grid runs: a live display on a terminal, else a line per trial."""

from __future__ import annotations

import math
import time
from typing import Any, TextIO

from bench.config import Trial
from bench.errors import one_line


def label(trial: Trial) -> str:
    """Returns a trial in a few words."""
    return f"{trial.cell} {trial.nhid} · {trial.regularizer} · rep {trial.rep}"


def outcome(record: dict[str, Any]) -> str:
    """Returns how a run ended, in a few words."""
    if record["status"] == "ok":
        text = f"valid {_ppl(record['valid_nll'])} test {_ppl(record['test_nll'])}"
        marks = {"not_learned": " · not learned", "impossible": " · IMPOSSIBLE (below the source)"}
        return text + marks.get(record.get("stop_reason") or "", "")
    words = str(record["status"])
    if record.get("error_text"):
        words += f" · {one_line(record['error_text'].strip().splitlines()[-1], 120)}"
    return words


def _ppl(nll: float | None) -> str:
    return "–" if nll is None else f"{math.exp(min(nll, 700)):.2f}"


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """Counts done, failed and running trials, the time left, and the best of each cell."""

    def __init__(self, trials: dict[str, Trial], done: dict[str, str], slots: int) -> None:
        self.trials = trials
        self.total = len(trials)
        self.recorded = len(done)
        self.finished: dict[str, dict[str, Any]] = {}
        self.running: dict[str, tuple[float, int]] = {}
        self.slots = slots
        self.started = time.monotonic()

    @property
    def failed(self) -> int:
        return sum(r["status"] in ("failed", "oom", "timeout") for r in self.finished.values())

    def eta(self) -> float | None:
        """Returns the seconds left: what finished took, and how far the running ones are."""
        share = sum(
            epoch / self.trials[run_id].epochs for run_id, (_, epoch) in self.running.items()
        )
        worth = len(self.finished) + share
        if worth == 0:
            return None
        left = self.total - self.recorded - worth
        return max(0.0, left * (time.monotonic() - self.started) / worth)

    def best(self) -> list[tuple[str, str, float]]:
        """Returns (cell, regularizer, valid ppl) of the best finished trial of each cell."""
        found: dict[str, tuple[float, str]] = {}
        for run_id, record in self.finished.items():
            nll = record.get("valid_nll")
            if record["status"] != "ok" or nll is None:
                continue
            trial = self.trials[run_id]
            cell = f"{trial.cell} {trial.nhid}"
            if cell not in found or nll < found[cell][0]:
                found[cell] = (nll, trial.regularizer)
        return [(cell, reg, math.exp(min(nll, 700))) for cell, (nll, reg) in sorted(found.items())]


class Display:
    """One calm view of a grid; use as a context manager."""

    def __init__(self, name: str, progress: Progress, stream: TextIO) -> None:
        self.name, self.progress, self.stream = name, progress, stream
        self.live: Any = None
        if stream.isatty():
            from rich.console import Console
            from rich.live import Live

            self.live = Live(
                get_renderable=self._render,
                console=Console(file=stream),
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
        p.finished[run_id] = record
        count = p.recorded + len(p.finished)
        line = (
            f"[{count:>{len(str(p.total))}}/{p.total}] {run_id} {label(p.trials[run_id])} · "
            f"{outcome(record)} · {_span(time.monotonic() - since)}"
        )
        if self.live is None:
            print(line, file=self.stream, flush=True)
        elif record["status"] != "ok":
            self.live.console.print(line, markup=False, highlight=False, style="yellow")

    def vanish(self, run_ids: list[str]) -> None:
        """The processes of these trials vanished."""
        for run_id in run_ids:
            self.progress.running.pop(run_id, None)

    def _render(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        p = self.progress
        done = p.recorded + len(p.finished)
        eta = p.eta()
        head = Table.grid(padding=(0, 2))
        head.add_row(
            Text(self.name, style="bold"),
            ProgressBar(total=p.total, completed=done, width=30),
            Text(f"{done}/{p.total} done"),
            Text(f"{len(p.running)} running"),
            Text(f"{p.failed} failed", style="yellow" if p.failed else "dim"),
            Text(f"{_span(time.monotonic() - p.started)} so far"),
            Text("" if eta is None else f"about {_span(eta)} left"),
        )
        running = Table.grid(padding=(0, 2))
        for run_id, (since, epoch) in list(p.running.items())[:8]:
            trial = p.trials[run_id]
            running.add_row(
                Text(" ", style="dim"),
                Text(label(trial)),
                Text(f"epoch {epoch}/{trial.epochs}", style="dim"),
                Text(_span(time.monotonic() - since), style="dim"),
            )
        if len(p.running) > 8:
            running.add_row("", Text(f"and {len(p.running) - 8} more", style="dim"))
        best = Table.grid(padding=(0, 2))
        for cell, regularizer, ppl in p.best():
            best.add_row(
                Text("  best", style="dim"), Text(cell), Text(f"{ppl:.2f}"), Text(regularizer)
            )
        return Group(head, running, best)
