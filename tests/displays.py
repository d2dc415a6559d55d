"""Made-up trials, records and a clock, for tests of what a person sees while a grid runs."""

from __future__ import annotations

import math
from typing import Any

from bench.config import Trial


class Clock:
    """time.monotonic, moved by hand."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def trials(*given: Trial) -> dict[str, Trial]:
    return {f"{number:012x}": trial for number, trial in enumerate(given)}


def grid(reps: int = 3) -> dict[str, Trial]:
    return trials(
        *(
            Trial(cell=cell, nhid=20, regularizer=regularizer, rep=rep, epochs=10)
            for cell in ("lstm", "gru")
            for regularizer in ("none", "ar:alpha=2")
            for rep in range(reps)
        )
    )


def ok(valid_ppl: float, **changes: object) -> dict[str, Any]:
    nll = math.log(valid_ppl)
    return {
        "status": "ok",
        "valid_nll": nll,
        "test_nll": nll - 0.1,
        "stop_reason": "epochs",
    } | changes
