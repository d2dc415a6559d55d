"""The Trainer: everything of one trial, one window at a time. It knows neither Ray nor Parquet."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench import precision as precisions
from bench.config import Trial
from bench.corpora import Corpus
from bench.corpora.windows import columns, windows
from bench.engine import Engine
from bench.evaluation import evaluate, figures, monte_carlo
from bench.model import StackState, build
from bench.schedule import Average, stalled, window_lengths
from bench.standing import Standing
from bench.step import Outcome, Penalty

IMPOSSIBLE = 4.0
"""Standard errors below the source's own nll from which a result is a bug, not luck."""


def prepare_thread(device: torch.device, threads: int = 1, precision: str = "fp32") -> None:
    """Sets all that is global and moves numbers, on the thread that trains.

    Called before each trial, since a plugin, or the trial before, may have changed any of it.
    """
    # Before the first CUDA product of the process, or cuBLAS and cuDNN are not deterministic.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float32)
    torch.set_default_device(None)
    torch.set_grad_enabled(True)
    # A diverging trial runs several times slower with denormals.
    torch.set_flush_denormal(True)
    torch.backends.cudnn.enabled = True
    precisions.apply(precision)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    wanted = device.type == "cuda"
    if torch.are_deterministic_algorithms_enabled() != wanted:  # the call imports torch's compiler
        torch.use_deterministic_algorithms(wanted)


class Trainer:
    """Trains and evaluates one trial.

    Plain SGD without momentum; lr is divided after each epoch whose valid nll is no new best;
    clipping on the global norm, then weight decay on all weights; the state is carried across
    windows and zeroed at each pass. Penalties are part of the loss, never of a reported nll.

    Under nt-asgd lr is never divided and the trial ends at `epochs`. Once `stalled` says so, the
    weights are averaged over the steps from there on: evaluation and the best weights are of the
    averages, training goes on from the weights themselves.
    """

    def __init__(
        self,
        trial: Trial,
        corpus: Corpus,
        make_cell: Callable[[int, int], nn.Module],
        regularizers: list[tuple[Penalty, float]],
        device: torch.device,
    ) -> None:
        self.trial, self.corpus, self.device = trial, corpus, device
        self.regularizers = regularizers
        self.dtype = precisions.DTYPES[trial.precision]
        assert trial.min_lr is not None  # resolved by Trial
        self.min_lr: float = trial.min_lr
        self.model = build(trial, make_cell, len(corpus.vocab)).to(device, self.dtype)
        self.parameters = list(self.model.parameters())
        self.engine = Engine(trial, self.model, regularizers, device)
        self.columns = columns(corpus.train, trial.batch_size).to(device)
        # What `bench.snapshot` takes and puts back:
        self.at = Standing(trial.lr)
        self.state: StackState | None = None  # None between two passes
        self.average: Average | None = None
        self.best_nll: NDArray[np.float64] | None = None
        self.best_weights: dict[str, Tensor] = {}
        self.diverged = False
        # Called before each window of an evaluation; it may raise, and a snapshot be taken then.
        self.look: Callable[[], None] = lambda: None
        self._clock = 0.0
        # A look at the loss waits for a GPU, so there it is taken rarely.
        self._look_every = 1 if device.type == "cpu" else 50

    def train_window(self, tokens: Tensor, targets: Tensor, state: StackState) -> Outcome:
        """Takes one step of SGD on a window, tokens and targets [T,B]; see `bench.step`."""
        lr = self.at.lr
        if self.trial.variable_bptt:  # a step weighs as much as it has seen
            lr *= len(tokens) / self.trial.bptt
        out = self.engine.train(tokens, targets, state, self.at.step, lr)
        if self.average is not None:
            self.average.update()
        self.at.step += 1
        return out

    def _lengths(self) -> int | Iterator[int]:
        """Returns the lengths of the windows of this pass that are still to come."""
        at = self.at
        if not self.trial.variable_bptt:
            return self.trial.bptt
        drawn = window_lengths(self.trial.bptt, self.trial.seed, at.epochs_done)
        return islice(drawn, at.windows, None)

    def _train_epoch(self) -> Generator[None, None, dict[str, Any]]:
        """Trains one pass over the training text; returns the record without valid_nll.

        After each window, when it yields, a snapshot may be taken.
        """
        at = self.at
        self.model.train()
        sums = self.engine.step.sums
        if self.state is None:
            self.state = self.model.initial_state(self.trial.batch_size)
            sums.zero_()
        self.engine.synchronise()
        self._clock = time.perf_counter()
        for tokens, targets in windows(self.columns, self._lengths(), at.row):
            nll, penalty, _, self.state = self.train_window(tokens, targets, self.state)
            at.row += len(tokens)
            at.windows += 1
            if at.windows % self._look_every == 0 and not math.isfinite(float(nll + penalty)):
                break
            self._tick()
            yield
        totals = sums.tolist()
        self.diverged = not math.isfinite(totals[0] + totals[1])
        self.engine.synchronise()
        self._tick()
        tokens_seen = at.row * self.trial.batch_size
        return {
            "epoch": at.epochs_done + 1,
            "step": at.step,
            "lr": at.lr,
            "train_nll": totals[0] / tokens_seen,
            "penalty": totals[1] / at.windows,
            "valid_nll": None,
            "grad_norm": totals[2] / at.windows,
            "seconds": at.seconds,
            "tokens_per_s": tokens_seen / at.seconds,
        }

    def _end_pass(self) -> None:
        """Only once it is validated: what leaves a validation early leaves the pass under way."""
        at = self.at
        at.train_seconds += at.seconds
        at.trained_tokens += at.row * self.trial.batch_size
        self.state, at.windows, at.row, at.seconds = None, 0, 0, 0.0

    def _tick(self) -> None:
        now = time.perf_counter()
        self.at.seconds += now - self._clock
        self._clock = now

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What is done in this context, between two turns, is no training: its time is not counted.

        On a GPU what has been begun is ended first, for that is.
        """
        with self.engine.place():
            self.engine.synchronise()
            before = time.perf_counter()
            yield
            self._clock += time.perf_counter() - before

    def epochs(self) -> Iterator[dict[str, Any]]:
        """Yields one record per epoch until the trial ends by its own rules."""
        return (record for record in self.turns() if record is not None)

    def turns(self) -> Iterator[dict[str, Any] | None]:
        """Yields the same records, and None after each window: trials on one device take turns."""
        course = self._course()
        while True:
            with self.engine.place():  # for each turn anew: in between, other trials have theirs
                try:
                    record = next(course)
                except StopIteration:
                    return
            yield record

    def _course(self) -> Iterator[dict[str, Any] | None]:
        at = self.at
        while at.epochs_done < self.trial.epochs and at.lr >= self.min_lr:
            record = yield from self._train_epoch()
            if not self.diverged:
                record["valid_nll"] = valid = self._validate()
                self.diverged = not math.isfinite(valid)
            self._end_pass()
            if self.diverged:
                yield record
                return
            at.epochs_done += 1
            if self.trial.optimizer == "nt-asgd":
                self._consider_averaging(valid)
            elif at.best_epoch != at.epochs_done:
                at.lr /= self.trial.lr_decay
            yield record

    def _validate(self) -> float:
        """Returns the valid nll of the weights, or of their averages; keeps them if it is best."""
        at = self.at
        with self.average.in_place() if self.average is not None else nullcontext():
            nll = self._evaluate("valid")
            valid = float(nll.mean())
            if valid < (math.inf if at.best_valid is None else at.best_valid):
                at.best_valid, at.best_epoch, self.best_nll = valid, at.epochs_done + 1, nll
                state = self.model.state_dict()
                self.best_weights = {name: t.detach().clone() for name, t in state.items()}
        return valid

    def _consider_averaging(self, valid: float) -> None:
        at = self.at
        at.valid_nlls.append(valid)
        more = at.epochs_done < self.trial.epochs
        if self.average is None and more and stalled(at.valid_nlls, self.trial.nonmono):
            self.average = Average(self.parameters)
            at.averaged_from_epoch = at.epochs_done + 1

    def result(self) -> dict[str, Any]:
        """Returns the record's columns that training decides. Reads test, once.

        A diverged trial has no best epoch and no nll: there is nothing to compare it with.
        """
        with self.engine.place():
            return self._result()

    def _result(self) -> dict[str, Any]:
        corpus, at = self.corpus, self.at
        columns: dict[str, Any] = {
            "num_params": self.model.num_params,
            "epochs_done": at.epochs_done,
            "best_epoch": at.best_epoch,
            "averaged_from_epoch": at.averaged_from_epoch,
            "valid_tokens": len(corpus.valid) - 1,
            "test_tokens": len(corpus.test) - 1,
            "unigram_nll": corpus.unigram_nll["valid"],
            "kernel_path": "captured" if at.captured else self.engine.path,
            "eager_because": self.engine.eager_because,
        }
        if self.diverged:
            columns |= {"status": "diverged", "stop_reason": "nan", "best_epoch": None}
        else:
            self.model.load_state_dict(self.best_weights)
            assert self.best_nll is not None  # a trial that is ok has a best epoch
            columns |= figures(corpus, "valid", self.best_nll)
            columns |= figures(corpus, "test", self._evaluate("test"))
            columns |= {"status": "ok", "stop_reason": self._stop_reason(columns)}
            if self.trial.eval_mc is not None:
                columns |= {f"{s}_mc_nll": self._monte_carlo(s) for s in ("valid", "test")}
        return columns | {
            "train_seconds": at.train_seconds,
            "eval_seconds": at.eval_seconds,
            "tokens_per_s": at.trained_tokens / at.train_seconds,
            "resumed": at.resumed,
            "threads": torch.get_num_threads(),
        }

    def _stop_reason(self, columns: dict[str, Any]) -> str:
        for split in ("valid", "test"):
            se = columns.get(f"{split}_excess_se")
            if se is not None and columns[f"{split}_excess"] < -IMPOSSIBLE * se:
                return "impossible"
        assert self.at.best_valid is not None
        if self.at.best_valid > self.corpus.unigram_nll["valid"]:
            return "not_learned"
        return "annealed" if self.at.lr < self.min_lr else "epochs"

    def _evaluate(self, split: str) -> NDArray[np.float64]:
        self.engine.synchronise()
        started = time.perf_counter()

        def predict(*window: Any) -> tuple[Tensor, StackState]:
            self.look()
            return self.engine.predict(*window)

        ids = getattr(self.corpus, split)
        nll = evaluate(self.model, ids, self.trial.bptt, run=predict)
        self.at.eval_seconds += time.perf_counter() - started
        return nll

    def _monte_carlo(self, split: str) -> float:
        trial, ids = self.trial, getattr(self.corpus, split)
        assert trial.eval_mc is not None
        started = time.perf_counter()
        nll = monte_carlo(self.model, ids, trial.bptt, trial.eval_mc, trial.seed, self.look)
        self.at.eval_seconds += time.perf_counter() - started
        return float(nll.mean())
