"""A grid with everything looked up: which trials it wants, and which have a record already."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import provenance, store
from bench.config import Expansion, Grid, Trial, run_id, select, sources_of
from bench.corpora import check_length, load, text_hash
from bench.job import How, Job
from bench.plugins import Registry

RERUN = {
    None: frozenset[str](),
    "failed": frozenset({"failed", "oom", "timeout"}),
    "all": store.FINAL,
}


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
    how: How,
) -> Plan:
    """Reads the corpora and names every trial; writes nothing to `results`. Raises BadInput."""
    hashes: dict[str, str] = {}
    train_tokens: dict[str, int] = {}
    checked: set[tuple[str, int, int]] = set()
    jobs: list[Job] = []
    trials: dict[str, Trial] = {}
    about: dict[tuple[str, str], dict[str, Any]] = {}  # many trials have the same two plugins
    git = provenance.git()
    folder = str(data_dir.resolve())
    plugin_folder = None if plugins is None else str(plugins.resolve())
    for trial in expansion.trials:
        shape = (trial.corpus, trial.bptt, trial.batch_size)
        if shape not in checked:
            if trial.corpus not in hashes:
                hashes[trial.corpus] = text_hash(trial.corpus, data_dir)
            corpus = load(trial.corpus, data_dir, hashes[trial.corpus])
            check_length(corpus, bptt=trial.bptt, batch_size=trial.batch_size)
            train_tokens[trial.corpus] = len(corpus.train)
            checked.add(shape)
        pair = (trial.cell, trial.regularizer)
        if pair not in about:
            about[pair] = _about(trial, registry)
        name = run_id(trial, about[pair]["sources"], hashes[trial.corpus])
        if name in trials:  # two folders with the same text
            expansion.merged += 1
            continue
        trials[name] = trial
        jobs.append(
            Job(
                run_id=name,
                trial=trial.model_dump(),
                corpus_hash=hashes[trial.corpus],
                **about[pair],
                data_dir=folder,
                plugins=plugin_folder,
                git=git,
                **vars(how),
            )
        )
    statuses = store.statuses(results, trials)
    return Plan(grid, expansion, jobs, trials, statuses, train_tokens)


def _about(trial: Trial, registry: Registry) -> dict[str, Any]:
    """Returns what a job says of its plugins."""
    cell, regularizers = select(trial, registry)
    origins = sorted({one.plugin.origin for one in (cell, *regularizers)})
    return {
        "sources": sources_of(trial, registry),
        "cell_hparams": _json(cell.hparams),
        "regularizer_hparams": _json({r.plugin.name: r.hparams for r in regularizers}),
        "plugin_origin": ", ".join(origins),
    }


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True)
