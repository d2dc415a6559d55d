"""`python -m tests.plugins_smoke [NAME…]`: one real training of every plugin of the tree.

32 units, batch 5, 20,000 tokens of the built-in corpus, lr 2, 3 epochs: each must end below the
perplexity of the unigram model. Exit code 1 if one does not.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator

import torch

from bench.config import Trial, make_trial
from bench.plugins import find
from tests.trainers import make_trainer

BASE = {
    "corpus": "synthetic:train=20000",
    "nhid": 32,
    "batch_size": 5,
    "bptt": 20,
    "epochs": 3,
    "lr": 2,
    "dropout": 0.2,
    "dropouti": 0.2,
    "dropouth": 0.2,
}
MEMORY_CELL = "lstm_zoneout"  # what stands in for lstm where a regularizer needs the memory


def trials() -> Iterator[tuple[str, Trial]]:
    """Yields each cell without a penalty, and each regularizer with an LSTM."""
    registry = find()
    for name in registry["cell"]:
        yield f"cell {name}", make_trial(BASE | {"cell": name}, registry, name)
    for name, plugin in registry["regularizer"].items():
        cell = MEMORY_CELL if "memory" in plugin.needs else "lstm"
        values = BASE | {"cell": cell, "regularizer": name}
        yield f"regularizer {name}", make_trial(values, registry, name)


def main(names: list[str]) -> int:
    registry = find()
    unknown = {name for name in names if not any(name in found for found in registry.values())}
    if unknown:
        print(f"no plugin is called {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    failed = 0
    for what, trial in trials():
        if names and what.split()[1] not in names:
            continue
        started = time.perf_counter()
        trainer = make_trainer(trial, torch.device("cpu"))
        unigram = math.exp(trainer.corpus.unigram_nll["valid"])
        list(trainer.epochs())
        best = trainer.at.best_valid
        ppl = math.inf if trainer.diverged or best is None else math.exp(best)
        seconds = time.perf_counter() - started
        failed += not ppl < unigram
        verdict = "ok  " if ppl < unigram else "FAIL"
        print(
            f"{verdict}  {what:<34} ppl {ppl:7.1f}   unigram {unigram:.1f}   {seconds:5.1f} s",
            flush=True,
        )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
