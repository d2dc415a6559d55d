"""Builds the job of a trial, as the plan of a grid does."""

from __future__ import annotations

import json
from pathlib import Path

from bench.config import Trial, make_trial, run_id, select, sources_of
from bench.corpora import default_data_dir, text_hash
from bench.job import Job
from bench.plugins import find


def job_of(trial: Trial, plugins: Path | None = None) -> Job:
    """Returns the job of a trial on the CPU, with one thread, whose weights are not kept."""
    registry = find(plugins)
    trial = make_trial(trial.model_dump(), registry, "test")
    cell, regularizers = select(trial, registry)
    corpus, sources = text_hash(trial.corpus, default_data_dir()), sources_of(trial, registry)
    return Job(
        run_id=run_id(trial, sources, corpus),
        trial=trial.model_dump(),
        corpus_hash=corpus,
        sources=sources,
        cell_hparams=json.dumps(cell.hparams),
        regularizer_hparams=json.dumps({r.plugin.name: r.hparams for r in regularizers}),
        plugin_origin=cell.plugin.origin,
        data_dir=str(default_data_dir()),
        plugins=None if plugins is None else str(plugins),
        device="cpu",
        threads=1,
        keep_weights=False,
        git={},
    )
