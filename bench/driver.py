"""Drives a grid: wanted trials without a final record go to a backend, records to the store."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import provenance, store
from bench.backends.local import Deliver
from bench.config import Expansion, Grid, Trial, run_id, select, sources_of
from bench.corpora import check_length, load, text_hash
from bench.display import Display, Progress, label, outcome
from bench.errors import BadInput
from bench.plugins import Registry
from bench.worker import Job, Message, base_record

log = logging.getLogger(__name__)

RERUN = {
    None: frozenset[str](),
    "failed": frozenset({"failed", "oom", "timeout"}),
    "all": store.FINAL,
}
Backend = Callable[[Sequence[Job], Deliver], None]


@dataclass(frozen=True)
class Plan:
    """A grid with everything looked up: what is wanted, and what has a final record already."""

    grid: Grid
    expansion: Expansion
    jobs: list[Job]
    trials: dict[str, Trial]
    statuses: dict[str, str]
    train_tokens: dict[str, int]

    def to_run(self, rerun: str | None) -> list[Job]:
        """Returns the jobs without a final record, and those that are asked for again."""
        again = RERUN[rerun]
        return [
            job
            for job in self.jobs
            if (status := self.statuses.get(job.run_id)) not in store.FINAL or status in again
        ]


def plan(
    grid: Grid,
    expansion: Expansion,
    registry: Registry,
    *,
    results: Path,
    data_dir: Path,
    plugins: Path | None,
    device: str,
    threads: int,
    keep_weights: bool,
) -> Plan:
    """Reads the corpora and names every trial; writes nothing to `results`. Raises BadInput."""
    hashes: dict[str, str] = {}
    train_tokens: dict[str, int] = {}
    checked: set[tuple[str, int, int]] = set()
    jobs: list[Job] = []
    trials: dict[str, Trial] = {}
    git = provenance.git()
    for trial in expansion.trials:
        shape = (trial.corpus, trial.bptt, trial.batch_size)
        if shape not in checked:
            if trial.corpus not in hashes:
                hashes[trial.corpus] = text_hash(trial.corpus, data_dir)
            corpus = load(trial.corpus, data_dir, hashes[trial.corpus])
            check_length(corpus, bptt=trial.bptt, batch_size=trial.batch_size)
            train_tokens[trial.corpus] = len(corpus.train)
            checked.add(shape)
        sources = sources_of(trial, registry)
        cell, regularizers = select(trial, registry)
        origins = sorted({one.plugin.origin for one in (cell, *regularizers)})
        name = run_id(trial, sources, hashes[trial.corpus])
        if name in trials:  # two folders with the same text
            expansion.merged += 1
            continue
        trials[name] = trial
        jobs.append(
            Job(
                run_id=name,
                trial=trial.model_dump(),
                corpus_hash=hashes[trial.corpus],
                sources=sources,
                cell_hparams=_json(cell.hparams),
                regularizer_hparams=_json({r.plugin.name: r.hparams for r in regularizers}),
                plugin_origin=", ".join(origins),
                data_dir=str(data_dir.resolve()),
                plugins=None if plugins is None else str(plugins.resolve()),
                device=device,
                threads=threads,
                keep_weights=keep_weights,
                git=git,
            )
        )
    statuses = store.statuses(results, trials)
    return Plan(grid, expansion, jobs, trials, statuses, train_tokens)


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
    folder cannot be written.
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

        def deliver(message: Message) -> None:
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
                causes[name] = message["vanished"]
                display.vanish([name])
            if "record" in message:
                record = message["record"]
                store.write_run(results, record, epochs.pop(name, []), weights.pop(name, None))
                statuses[name] = record["status"]
                display.finish(name, record)
                _log_end(plan.trials[name], record)

        for _ in range(1 + max_retries):
            backend(missing, deliver)
            missing = [job for job in missing if job.run_id not in statuses]
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


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True)


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
