"""The Trainer: everything of one trial, one window at a time. It knows neither Ray nor Parquet."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Generator, Iterator
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
from bench.evaluation import evaluate, excess, monte_carlo
from bench.model import StackState, build
from bench.schedule import Average, stalled, window_lengths
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
        self.lr = trial.lr
        self.engine = Engine(trial, self.model, regularizers, device)
        self.average: Average | None = None
        self.averaged_from_epoch: int | None = None
        self.valid_nlls: list[float] = []
        self.columns = columns(corpus.train, trial.batch_size).to(device)
        self.step = 0
        self.epochs_done = 0
        self.best_epoch: int | None = None
        self.best_valid = math.inf
        self.best_nll: NDArray[np.float64] | None = None
        self.best_weights: dict[str, Tensor] = {}
        self.train_seconds = 0.0
        self.eval_seconds = 0.0
        self.trained_tokens = 0
        self.diverged = False
        # A look at the loss waits for a GPU, so there it is taken rarely.
        self._look_every = 1 if device.type == "cpu" else 50

    def train_window(self, tokens: Tensor, targets: Tensor, state: StackState) -> Outcome:
        """Takes one step of SGD on a window, tokens and targets [T,B]; see `bench.step`."""
        lr = self.lr
        if self.trial.variable_bptt:  # a step weighs as much as it has seen
            lr *= len(tokens) / self.trial.bptt
        out = self.engine.train(tokens, targets, state, self.step, lr)
        if self.average is not None:
            self.average.update()
        self.step += 1
        return out

    def _train_epoch(self) -> Generator[None, None, dict[str, Any]]:
        """Trains one pass over the training text; returns the record without valid_nll."""
        self.model.train()
        lengths: int | Iterator[int] = self.trial.bptt
        if self.trial.variable_bptt:
            lengths = window_lengths(self.trial.bptt, self.trial.seed, self.epochs_done)
        self.engine.synchronise()
        started = time.perf_counter()
        sums = self.engine.step.sums.zero_()
        tokens_seen = count = 0
        state = self.model.initial_state(self.trial.batch_size)
        for tokens, targets in windows(self.columns, lengths):
            nll, penalty, _, state = self.train_window(tokens, targets, state)
            tokens_seen += tokens.numel()
            count += 1
            if count % self._look_every == 0 and not math.isfinite(float(nll + penalty)):
                break
            yield
        totals = sums.tolist()
        self.diverged = not math.isfinite(totals[0] + totals[1])
        self.engine.synchronise()
        seconds = time.perf_counter() - started
        self.train_seconds += seconds
        self.trained_tokens += tokens_seen
        return {
            "epoch": self.epochs_done + 1,
            "step": self.step,
            "lr": self.lr,
            "train_nll": totals[0] / tokens_seen,
            "penalty": totals[1] / count,
            "valid_nll": None,
            "grad_norm": totals[2] / count,
            "seconds": seconds,
            "tokens_per_s": tokens_seen / seconds,
        }

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
        while self.epochs_done < self.trial.epochs and self.lr >= self.min_lr:
            record = yield from self._train_epoch()
            if not self.diverged:
                record["valid_nll"] = valid = self._validate()
                self.diverged = not math.isfinite(valid)
            if self.diverged:
                yield record
                return
            self.epochs_done += 1
            if self.trial.optimizer == "nt-asgd":
                self._consider_averaging(valid)
            elif self.best_epoch != self.epochs_done:
                self.lr /= self.trial.lr_decay
            yield record

    def _validate(self) -> float:
        """Returns the valid nll of the weights, or of their averages; keeps them if it is best."""
        if self.average is not None:
            self.average.swap()
        nll = self._evaluate("valid")
        valid = float(nll.mean())
        if valid < self.best_valid:
            self.best_valid, self.best_epoch, self.best_nll = valid, self.epochs_done + 1, nll
            state = self.model.state_dict()
            self.best_weights = {name: t.detach().clone() for name, t in state.items()}
        if self.average is not None:
            self.average.swap()
        return valid

    def _consider_averaging(self, valid: float) -> None:
        self.valid_nlls.append(valid)
        more = self.epochs_done < self.trial.epochs
        if self.average is None and more and stalled(self.valid_nlls, self.trial.nonmono):
            self.average = Average(self.parameters)
            self.averaged_from_epoch = self.epochs_done + 1

    def result(self) -> dict[str, Any]:
        """Returns the record's columns that training decides. Reads test, once.

        A diverged trial has no best epoch and no nll: there is nothing to compare it with.
        """
        with self.engine.place():
            return self._result()

    def _result(self) -> dict[str, Any]:
        corpus = self.corpus
        columns: dict[str, Any] = {
            "num_params": self.model.num_params,
            "epochs_done": self.epochs_done,
            "best_epoch": self.best_epoch,
            "averaged_from_epoch": self.averaged_from_epoch,
            "valid_tokens": len(corpus.valid) - 1,
            "test_tokens": len(corpus.test) - 1,
            "unigram_nll": corpus.unigram_nll["valid"],
            "kernel_path": self.engine.path,
            "eager_because": self.engine.eager_because,
        }
        if self.diverged:
            columns |= {"status": "diverged", "stop_reason": "nan", "best_epoch": None}
        else:
            self.model.load_state_dict(self.best_weights)
            columns |= self._final("valid", self.best_nll) | self._final(
                "test", self._evaluate("test")
            )
            columns |= {"status": "ok", "stop_reason": self._stop_reason(columns)}
            if self.trial.eval_mc is not None:
                columns |= {f"{s}_mc_nll": self._monte_carlo(s) for s in ("valid", "test")}
        return columns | {
            "train_seconds": self.train_seconds,
            "eval_seconds": self.eval_seconds,
            "tokens_per_s": self.trained_tokens / self.train_seconds,
            "threads": torch.get_num_threads(),
        }

    def _final(self, split: str, nll: NDArray[np.float64] | None) -> dict[str, Any]:
        assert nll is not None  # a trial that is ok has a best epoch
        columns: dict[str, Any] = {f"{split}_nll": float(nll.mean())}
        if self.corpus.source_nll is not None:
            source = self.corpus.source_nll[split][1:]
            columns[f"{split}_floor"] = float(source.mean())
            columns[f"{split}_excess"], columns[f"{split}_excess_se"] = excess(nll, source)
        return columns

    def _stop_reason(self, columns: dict[str, Any]) -> str:
        for split in ("valid", "test"):
            se = columns.get(f"{split}_excess_se")
            if se is not None and columns[f"{split}_excess"] < -IMPOSSIBLE * se:
                return "impossible"
        if self.best_valid > self.corpus.unigram_nll["valid"]:
            return "not_learned"
        return "annealed" if self.lr < self.min_lr else "epochs"

    def _evaluate(self, split: str) -> NDArray[np.float64]:
        self.engine.synchronise()
        started = time.perf_counter()
        ids = getattr(self.corpus, split)
        nll = evaluate(self.model, ids, self.trial.bptt, run=self.engine.predict)
        self.eval_seconds += time.perf_counter() - started
        return nll

    def _monte_carlo(self, split: str) -> float:
        trial = self.trial
        assert trial.eval_mc is not None
        started = time.perf_counter()
        ids = getattr(self.corpus, split)
        nll = monte_carlo(self.model, ids, trial.bptt, trial.eval_mc, trial.seed)
        self.eval_seconds += time.perf_counter() - started
        return float(nll.mean())
