"""One trial under way: from its job to the columns of its record, a window a turn."""

from __future__ import annotations

import functools
import socket
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TypeVar

import torch

from bench import provenance
from bench.checkpoint import Keeper, Rhythm
from bench.config import PROTOCOL, make_trial, select, sources_of
from bench.corpora import check_length, default_data_dir, load
from bench.errors import BadInput, one_line
from bench.job import LEFT, Job, Message
from bench.loop import Trainer, prepare_thread
from bench.plugins import Registry, build_regularizers, find, load_class, source_hash
from bench.precision import refusal
from bench.snapshot import Misfit, put_back, take
from bench.storage import is_it, open_storage

Course = Generator[Message | None, None, tuple[Message, bytes | None]]
"""A turn a window, and a message an epoch; in the end columns and the weights that are kept."""
T = TypeVar("T")
_PAUSES = (1.0, 5.0)
_ENVIRONMENT = ("device", "torch", "cuda", "cudnn")


class Mismatch(Exception):
    """What the worker loaded is not what the driver hashed."""


class Leave(Exception):
    """The trial is left without a record: it goes on, here or elsewhere, from its checkpoint."""


def course(
    job: Job,
    stopping: Callable[[], bool] = lambda: False,
    settled: Callable[[], None] = lambda: None,
) -> Course:
    """Runs a trial, from its last checkpoint if there is one that fits.

    Raises Leave, at the next window of training or evaluation, once `stopping` says so. `settled`
    is called after each epoch: by then the trial has taken all the memory it needs.
    """
    provenance.reset_peak_memory(job.device)
    trainer = build(job)
    keeping = None if job.checkpoints is None else _Keeping(job, trainer)

    def look() -> None:
        if stopping():
            raise Leave(LEFT)

    trainer.look = look
    yield {"run_id": job.run_id, "about": provenance.of_process(job.device)}
    if keeping is not None and not (yield from keeping.resume()):
        keeping = None
    try:
        for epoch in trainer.turns():
            if epoch is None:
                yield None
            else:
                settled()
                if keeping is not None:  # first: the trainer has this epoch behind it already
                    keeping.epochs.append(epoch)
                yield {"run_id": job.run_id, "epoch": {"run_id": job.run_id, **epoch}}
            look()
            if keeping is not None and keeping.is_due(epoch):
                yield keeping.write()
        columns = trainer.result()
    except Leave:
        if keeping is not None:
            yield keeping.write()
        raise
    weights = None
    if job.keep_weights and columns["status"] == "ok":
        from safetensors.torch import save

        weights = save({k: t.contiguous().cpu() for k, t in trainer.best_weights.items()})
    return columns, weights


class _Keeping:
    """The checkpoints of a trial under way. One that cannot be written costs nothing else."""

    def __init__(self, job: Job, trainer: Trainer) -> None:
        of_process = provenance.of_process(job.device)
        self.about = {name: of_process[name] for name in _ENVIRONMENT} | {"threads": job.threads}
        self.rhythm = Rhythm(job.checkpoint_every)
        self.job, self.trainer = job, trainer
        self.epochs: list[dict[str, Any]] = []
        self.silent = False

    def _keeper(self) -> Keeper:
        assert self.job.checkpoints is not None
        return Keeper(open_storage(self.job.checkpoints), self.job.run_id, self.about)

    def resume(self) -> Generator[Message, None, bool]:
        """Puts the trainer back where the last whole checkpoint was taken; yields what it tells.

        Returns whether checkpoints can be kept on this machine. Raises Leave where it cannot be
        told whether there is one: to begin anew might cost hours.
        """
        try:
            if not _patiently(self._is_seen):
                where = f"node {socket.gethostname()}: does not see --storage"
                said = f"{where} {self.job.checkpoints}; its trials keep no checkpoints"
                yield {"run_id": self.job.run_id, "said": said, "loud": True}
                return False
            found = _patiently(lambda: self._keeper().load())
        except (OSError, BadInput) as error:
            raise Leave(f"its checkpoints are out of reach: {one_line(error, 300)}") from None
        if found is None:
            return True
        tensors, numbers, epochs = found
        try:
            put_back(self.trainer, (tensors, numbers))
        except Misfit as error:
            yield {"run_id": self.job.run_id, "said": f"begins anew: {one_line(error, 200)}"}
            return True
        self.epochs = epochs
        at = self.trainer.at
        said = f"goes on after epoch {at.epochs_done}, step {at.step}"
        spent = at.train_seconds + at.seconds + at.eval_seconds
        yield {"run_id": self.job.run_id, "said": said, "spent": spent}
        for epoch in epochs:
            yield {"run_id": self.job.run_id, "epoch": {"run_id": self.job.run_id, **epoch}}
        return True

    def _is_seen(self) -> bool:
        wanted, where = self.job.storage_id, self.job.checkpoints
        return wanted is None or where is None or is_it(open_storage(where), wanted)

    def is_due(self, epoch: dict[str, Any] | None) -> bool:
        """Whether a checkpoint is due after a turn, which may have ended an epoch."""
        return self.rhythm.due(None if epoch is None else self.trainer.at.epochs_done)

    def write(self) -> Message | None:
        """Writes a checkpoint; the first time that it cannot, returns a message of why."""
        message = None
        if self.trainer.diverged:  # it is at its end
            return message
        with self.trainer.pause():
            before = time.monotonic()
            try:
                self._keeper().save(*take(self.trainer), self.epochs)
            except (OSError, BadInput) as error:
                if not self.silent:
                    said = f"no checkpoint: {one_line(error, 200)}"
                    message = {"run_id": self.job.run_id, "said": said, "loud": True}
                self.silent = True
            finally:
                self.rhythm.written(time.monotonic() - before)
        return message


def _patiently(ask: Callable[[], T]) -> T:
    """Asks again where the network fails for a moment."""
    for pause in _PAUSES:
        try:
            return ask()
        except OSError:
            time.sleep(pause)
    return ask()


def build(job: Job) -> Trainer:
    """Builds what a job asks for; raises where it is not what the driver hashed."""
    device = torch.device(job.device)
    registry = _registry(job)
    trial = make_trial(job.trial, registry, f"trial {job.run_id}")
    if job.protocol != PROTOCOL:
        raise Mismatch(f"protocol: the driver's is {job.protocol}, this worker's {PROTOCOL}")
    found = sources_of(trial, registry)
    if found != job.sources:
        raise Mismatch(f"plugin source: the driver hashed {job.sources}, this worker {found}")
    if (reason := refusal(trial.precision, device.type)) is not None:
        raise BadInput(reason)
    prepare_thread(device, job.threads, trial.precision)
    cell, regularizers = select(trial, registry)
    data_dir = Path(job.data_dir)
    if not data_dir.is_dir():  # another machine than the driver's: look where its own data are
        data_dir = default_data_dir()
    corpus = load(trial.corpus, data_dir, job.corpus_hash)
    check_length(corpus, bptt=trial.bptt, batch_size=trial.batch_size)
    make_cell = functools.partial(load_class(cell.plugin), **cell.hparams)
    trainer = Trainer(trial, corpus, make_cell, build_regularizers(regularizers), device)
    # Importing and building the plugins may have changed it.
    prepare_thread(device, job.threads, trial.precision)
    return trainer


_found: dict[str | None, Registry] = {}


def _registry(job: Job) -> Registry:
    """Returns the plugins, as this process found them before if those of the job are the same now.

    To read them all takes longer than a short trial; the job's own are read again each time.
    """
    registry = _found.get(job.plugins, {})
    for name in job.sources:
        kind, _, plugin = name.partition(":")
        before = registry.get(kind, {}).get(plugin)
        try:
            same = before is not None and source_hash(before.path) == before.hash
        except (OSError, SyntaxError):  # find says it in its own words
            same = False
        if not same:
            registry = _found[job.plugins] = find(Path(job.plugins) if job.plugins else None)
            break
    return registry
