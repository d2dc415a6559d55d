"""Evaluation: every token after the first predicted exactly once, in 10 columns."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.corpora import Corpus
from bench.corpora.windows import evaluation_columns, in_text_order, rows
from bench.model import LanguageModel, StackState
from bench.noise import Draws, WindowNoise, stream

Run = Callable[[Tensor, Tensor, StackState], tuple[Tensor, StackState]]
"""tokens, targets [T,B], state -> nll [T,B], state."""

COLUMNS = 10
"""A constant of the protocol: the nll depends slightly on it, not on the window length."""


@torch.no_grad()
def evaluate(
    model: LanguageModel,
    ids: NDArray[np.int32],
    window: int,
    columns: int = COLUMNS,
    noise: Callable[[int], Draws] | None = None,
    run: Run | None = None,
) -> NDArray[np.float64]:
    """Returns the nll in nats of each of the N-1 predicted tokens, in text order.

    The state is zero at the start of each column and carried from window to window. `noise` gives
    each window, by its index, the masks of a stochastic pass; without it there are none. `run` is
    a faster way to run a window without noise.
    """
    model.eval()
    device = model.embedding.device
    tokens, targets = evaluation_columns(ids, columns)
    tokens, targets = tokens.to(device), targets.to(device)
    state = model.initial_state(tokens.shape[1])
    parts = []
    for index, start in enumerate(range(0, len(tokens), window)):
        here = rows(tokens, start, start + window), rows(targets, start, start + window)
        if run is not None:
            nll, state = run(*here, state)
        else:
            nll, state, _ = model(*here, state, noise(index) if noise else None)
        parts.append(nll.clone())  # the next window may be put in its place
    in_order: NDArray[np.float64] = (
        in_text_order(torch.cat(parts), len(ids) - 1).double().cpu().numpy()
    )
    return in_order


def monte_carlo(
    model: LanguageModel,
    ids: NDArray[np.int32],
    window: int,
    passes: int,
    seed: int,
    look: Callable[[], None] = lambda: None,
) -> NDArray[np.float64]:
    """Returns each token's nll under the mean probability of `passes` stochastic passes.

    Gal and Ghahramani 2016, arXiv 1512.05287: the dropout of training, without its other changes
    (no statistics move). A pass is a pure function of (seed, its number); like training, and unlike
    `evaluate`, it depends on where windows begin when masks are `locked`. `look` is called before
    each window, and may raise.
    """
    weight = model.embedding

    def draws(number: int, index: int) -> Draws:
        look()
        return WindowNoise(stream(seed, "mc", number), "mc", index, weight.device, weight.dtype)

    total: NDArray[np.float64] | None = None
    for number in range(passes):
        nll = evaluate(model, ids, window, noise=partial(draws, number))
        total = -nll if total is None else np.logaddexp(total, -nll)
    if total is None:
        raise ValueError(f"passes must be at least 1, but is {passes}")
    mean: NDArray[np.float64] = math.log(passes) - total
    return mean


def excess(
    nll: NDArray[np.float64], source: NDArray[np.float64], blocks: int = 100
) -> tuple[float, float | None]:
    """Returns the mean of nll - source over one text, and its standard error.

    Both sides share the sample, so its chance largely cancels. Neighbouring tokens are not
    independent (a topic spans sentences), so the error comes from the means of `blocks` contiguous
    blocks, not from single tokens. Fewer than 10 tokens a block: no standard error.
    """
    difference = nll - source
    mean = float(difference.mean())
    blocks = min(blocks, len(difference) // 10)
    if blocks < 2:
        return mean, None
    means = np.array([block.mean() for block in np.array_split(difference, blocks)])
    return mean, float(means.std(ddof=1) / math.sqrt(blocks))


def figures(corpus: Corpus, split: str, nll: NDArray[np.float64]) -> dict[str, Any]:
    """Returns the columns of a split: its nll and, where the source's own is known, the excess."""
    columns: dict[str, Any] = {f"{split}_nll": float(nll.mean())}
    if corpus.source_nll is not None:
        source = corpus.source_nll[split][1:]
        columns[f"{split}_floor"] = float(source.mean())
        columns[f"{split}_excess"], columns[f"{split}_excess_se"] = excess(nll, source)
    return columns
