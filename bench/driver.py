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
from bench.backends.pool import Deliver, Stopping
from bench.checkpoint import drop, kept
from bench.claim import claim
from bench.config import Trial
from bench.display import Display, Progress, label, outcome
from bench.errors import BadInput
from bench.gridlog import log_file
from bench.job import LEFT, Job, Message, base_record
from bench.plan import Plan
from bench.stop import on_signals
from bench.storage import Storage
from bench.store.mirror import Results

log = logging.getLogger(__name__)

Backend = Callable[[Sequence[Job], Deliver, Stopping], None]
_WAITING = 10
"""Messages that may wait for the disk, weights in one of them at most; else trials wait too."""


def drive(
    plan: Plan,
    backend: Backend | None,
    *,
    results: Results,
    command: str,
    rerun: str | None = None,
    max_retries: int = 3,
    checkpoints: Storage | None = None,
) -> dict[str, str]:
    """Runs what is missing and returns the status of every wanted trial.

    Trials that another driver runs now are waited for. Those whose process vanished, and those that
    ran out of memory, are tried in further waves, `max_retries` at most; the first are `lost` after
    that. A trial's `checkpoints` are deleted once its record is written. `backend` may be None
    where nothing is missing. Raises StoreError when the results folder cannot be written, and
    KeyboardInterrupt, on Ctrl-C or SIGTERM, only where all that was delivered is written: if that
    fails, what is raised is the StoreError.
    """
    store.prepare(results.folder)
    store.save_grid(results.folder, _definition(plan, results.folder, command))
    results.push([f"grids/{plan.grid.name}.json"])
    missing = plan.to_run(rerun)
    if not missing or backend is None:
        return dict(plan.statuses)
    with (
        log_file(results.folder / "grids" / f"{plan.grid.name}.log"),
        on_signals(lambda: None) as asked,
        claim(results.folder, [job.run_id for job in missing], _tell, asked),
    ):
        # Another driver may have ended since they were read, waited for or not.
        plan = replace(plan, statuses=store.statuses(results.folder, plan.trials))
        missing = plan.to_run(rerun)
        if checkpoints is not None:
            _forget(checkpoints, _kept(plan, missing))
        with Display(
            plan.grid.name, Progress(plan.trials, _kept(plan, missing)), sys.stdout
        ) as display:
            waves = _Waves(plan, missing, display, results, checkpoints)
            for _ in range(1 + max_retries):
                if waves.missing:
                    waves.run(backend, asked)
            waves.end()
        if asked():
            raise KeyboardInterrupt
    return waves.statuses


def _kept(plan: Plan, missing: Sequence[Job]) -> dict[str, str]:
    todo = {job.run_id for job in missing}
    return {name: status for name, status in plan.statuses.items() if name not in todo}


def _forget(checkpoints: Storage, statuses: dict[str, str]) -> None:
    """Deletes checkpoints that outlived their trial's record, as those of a killed driver may."""
    with contextlib.suppress(OSError):  # the trials will say so
        for run_id in kept(checkpoints):
            if statuses.get(run_id) in store.FINAL:
                drop(checkpoints, run_id)


def _tell(line: str) -> None:
    log.info("%s", line)
    print(line, flush=True)


class _Waves:
    """The trials that are to run, wave after wave, and what is known of them so far."""

    def __init__(
        self,
        plan: Plan,
        missing: Sequence[Job],
        display: Display,
        results: Results,
        checkpoints: Storage | None,
    ) -> None:
        self.plan, self.missing, self.display = plan, list(missing), display
        self.results, self.checkpoints = results, checkpoints
        self.statuses = _kept(plan, missing)
        self.epochs: dict[str, list[dict[str, Any]]] = {}
        self.weights: dict[str, bytes] = {}
        self.causes: dict[str, str] = {}

    def run(self, backend: Backend, asked: Stopping) -> None:
        """Runs what is missing once; what vanished or ran out of memory is left for another.

        `asked`: whether somebody asked to stop before it.
        """
        self.causes.clear()
        with on_signals(self.display.stopping) as stop:
            for pack in sorted({job.pack for job in self.missing}):
                if asked() or stop():
                    raise KeyboardInterrupt
                with _in_background(self._take) as deliver:
                    backend([job for job in self.missing if job.pack == pack], deliver, stop)
            if stop():
                raise KeyboardInterrupt
        begun = {*self.causes, *self.statuses}  # some of them in company; they try again alone
        self.missing = [
            replace(job, pack=1) if job.run_id in begun else job
            for job in self.missing
            if self.statuses.get(job.run_id, "oom") == "oom"
        ]
        for job in self._lost():
            name, cause = job.run_id, self.causes.get(job.run_id)
            record = base_record(job) | {"error_text": cause}
            self._write(record, self.epochs.pop(name, []))
            log.warning("lost %s %s %s", name, label(self.plan.trials[name]), cause or "")

    def end(self) -> None:
        """Says of what is still missing that it is lost."""
        for job in self._lost():
            self.statuses[job.run_id] = "lost"
            record = base_record(job) | {"error_text": self.causes.get(job.run_id)}
            self.display.finish(job.run_id, record)
        for job in self.missing:
            if self.statuses.get(job.run_id) == "oom":
                self._drop(job.run_id)

    def _lost(self) -> list[Job]:
        """Returns those that vanished; what was not even begun is not lost."""
        gone = {*self.causes, *self.epochs} - self.statuses.keys()
        return [job for job in self.missing if job.run_id in gone]

    def _take(self, message: Message) -> None:
        name = message["run_id"]
        if message.get("weights"):
            self.weights[name] = message["weights"]
        if "start" in message:
            self.epochs[name] = []
            self.display.start(name)
        if "said" in message:
            log.info("%s %s %s", name, label(self.plan.trials[name]), message["said"])
            if message.get("loud"):
                self.display.remark(message["said"])
        if "epoch" in message:
            self.epochs.setdefault(name, []).append(message["epoch"])
            self.display.epoch(name, message["epoch"]["epoch"])
        if "vanished" in message and self.statuses.get(name, "oom") == "oom":
            self.causes.setdefault(name, message["vanished"])  # the first to tell was the nearest
            self.display.vanish([name])
            if message["vanished"] == LEFT:
                log.info("%s %s %s", name, label(self.plan.trials[name]), LEFT)
        if "record" in message:
            record = message["record"]
            epochs, weights = self.epochs.pop(name, []), self.weights.pop(name, None)
            self._write(record, epochs, weights)
            self.statuses[name] = record["status"]
            self.display.finish(name, record)
            _log_end(self.plan.trials[name], record)
            if record["status"] != "oom":  # that one may be tried again
                self._drop(name)

    def _write(
        self,
        record: dict[str, Any],
        epochs: Sequence[dict[str, Any]],
        weights: bytes | None = None,
    ) -> None:
        store.write_run(self.results.folder, record, epochs, weights)
        self.results.push_run(record["run_id"])

    def _drop(self, name: str) -> None:
        if self.checkpoints is not None:
            try:
                drop(self.checkpoints, name)
            except OSError as error:
                log.warning("%s: its checkpoints cannot be deleted: %s", name, error)


@contextlib.contextmanager
def _in_background(take: Callable[[Message], None]) -> Iterator[Deliver]:
    """Yields a function that hands messages to `take` on another thread, in order.

    A record waits for the disk several times, and no trial shall wait with it. What `take` raises
    is raised by the next call, whoever's message that is, and by all further ones; they hand over
    nothing. At the end, of whatever kind, all that was handed over has been taken, and an error
    that was not seen before is raised: in place of a KeyboardInterrupt as well, since a record that
    is not written is not kept.
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


def _log_end(trial: Trial, record: dict[str, Any]) -> None:
    log.info("%s %s %s", record["run_id"], label(trial), outcome(record))
    if record.get("error_text"):
        log.info("%s", record["error_text"].rstrip())
