"""Drives a grid: wanted trials without a final record go to a backend, records to the store."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import store
from bench.backends.local import Deliver
from bench.config import Trial
from bench.display import Display, Progress, label, outcome
from bench.errors import BadInput
from bench.plan import Plan
from bench.worker import Job, Message, base_record

log = logging.getLogger(__name__)

Backend = Callable[[Sequence[Job], Deliver], None]
_WAITING = 10
"""Messages that may wait for the disk, weights in one of them at most; else trials wait too."""


def drive(
    plan: Plan,
    backend: Backend | None,
    *,
    results: Path,
    command: str,
    rerun: str | None = None,
    max_retries: int = 3,
) -> dict[str, str]:
    """Runs what is missing and returns the status of every wanted trial.

    Trials whose process vanished are tried in further waves, `max_retries` at most, and are `lost`
    after that. `backend` may be None where nothing is missing. Raises StoreError when the results
    folder cannot be written, and KeyboardInterrupt only where all that was delivered is written: if
    that fails, what is raised is the StoreError.
    """
    store.prepare(results)
    store.save_grid(results, _definition(plan, results, command))
    missing = plan.to_run(rerun)
    if not missing or backend is None:
        return dict(plan.statuses)
    todo = {job.run_id for job in missing}
    statuses = {r: s for r, s in plan.statuses.items() if r not in todo}
    progress = Progress(plan.trials, statuses)
    epochs: dict[str, list[dict[str, Any]]] = {}
    weights: dict[str, bytes] = {}
    causes: dict[str, str] = {}
    with (
        _log_file(results / "grids" / f"{plan.grid.name}.log"),
        Display(plan.grid.name, progress, sys.stdout) as display,
    ):

        def take(message: Message) -> None:
            name = message["run_id"]
            if message.get("weights"):
                weights[name] = message["weights"]
            if "start" in message:
                epochs[name] = []
                display.start(name)
            if "epoch" in message:
                epochs.setdefault(name, []).append(message["epoch"])
                display.epoch(name, message["epoch"]["epoch"])
            if "vanished" in message and name not in statuses:
                causes.setdefault(name, message["vanished"])  # the first to tell was the nearest
                display.vanish([name])
            if "record" in message:
                record = message["record"]
                store.write_run(results, record, epochs.pop(name, []), weights.pop(name, None))
                statuses[name] = record["status"]
                display.finish(name, record)
                _log_end(plan.trials[name], record)

        for _ in range(1 + max_retries):
            causes.clear()
            with _in_background(take) as deliver:
                backend(missing, deliver)
            # What vanished may have had company; it tries again alone.
            missing = [replace(job, pack=1) for job in missing if job.run_id not in statuses]
            if not missing:
                break
            for job in missing:
                record = base_record(job) | {"error_text": causes.get(job.run_id)}
                store.write_run(results, record, epochs.pop(job.run_id, []))
                lost = (job.run_id, label(plan.trials[job.run_id]), causes.get(job.run_id, ""))
                log.warning("lost %s %s %s", *lost)
        for job in missing:
            statuses[job.run_id] = "lost"
            display.finish(job.run_id, base_record(job) | {"error_text": causes.get(job.run_id)})
    return statuses


@contextlib.contextmanager
def _in_background(take: Callable[[Message], None]) -> Iterator[Deliver]:
    """Yields a function that hands messages to `take` on another thread, in order.

    A record waits for the disk several times, and no trial shall wait with it. What `take` raises
    is raised by the next call, whoever's message that is, and by all further ones; they hand over
    nothing. Any trial calls at its start and after each epoch, so an error is seen when the first
    of those that run ends an epoch. At the end, of whatever kind, all that was handed over has been
    taken, and an error that was not seen before is raised: in place of a KeyboardInterrupt as well,
    since a record that is not written is not kept.
    """
    pending: deque[Future[None]] = deque()
    try:
        with ThreadPoolExecutor(1) as thread:

            def deliver(message: Message) -> None:
                others = 0 if message.get("weights") else _WAITING - 1
                while pending and (pending[0].done() or len(pending) > others):
                    pending[0].result()  # one that failed stays the first
                    pending.popleft()
                pending.append(thread.submit(take, message))

            yield deliver
    finally:
        for taken in pending:
            if taken.done():  # all of them, unless a second Ctrl-C ended the waiting
                taken.result()


def exit_code(statuses: dict[str, str], wanted: int) -> int:
    """Returns 0 when every wanted trial ended ok, diverged or stopped, else 1."""
    good = sum(s in ("ok", "diverged", "stopped") for s in statuses.values())
    return 0 if good == wanted else 1


def summary(statuses: dict[str, str], wanted: int) -> str:
    """Returns `36 trials: 35 ok, 1 diverged`."""
    counts = {s: list(statuses.values()).count(s) for s in store.STATUSES}
    words = [f"{n} {s}" for s, n in counts.items() if n]
    if wanted > len(statuses):
        words.append(f"{wanted - len(statuses)} not yet run")
    return f"{wanted} trial{'s' * (wanted != 1)}: {', '.join(words)}"


def _definition(plan: Plan, results: Path, command: str) -> dict[str, Any]:
    skipped = [
        {"cell": c, "regularizer": r, "reason": why, "count": n}
        for (c, r, why), n in plan.expansion.skipped.items()
    ]
    created = datetime.now(UTC).isoformat(timespec="seconds")
    with contextlib.suppress(BadInput):  # a grid that goes on is the grid that was begun
        before = store.load_grid(results, plan.grid.name)
        if [w["run_id"] for w in before["wanted"]] == [job.run_id for job in plan.jobs]:
            command, created = before["command"], before.get("created_utc", created)
    return {
        "name": plan.grid.name,
        "command": command,
        "created_utc": created,
        "wanted": [{"run_id": job.run_id, "trial": job.trial} for job in plan.jobs],
        "skipped": skipped,
        "merged": plan.expansion.merged,
    }


class _LogFile(logging.FileHandler):
    """A log file that a full disk silences: the records hold all that it does."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Sends what the harness logs, tracebacks among it, to the grid's one log file."""
    try:
        handler = _LogFile(path, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    root = logging.getLogger("bench")
    root.setLevel(logging.INFO)
    root.propagate = False
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def _log_end(trial: Trial, record: dict[str, Any]) -> None:
    log.info("%s %s %s", record["run_id"], label(trial), outcome(record))
    if record.get("error_text"):
        log.info("%s", record["error_text"].rstrip())
