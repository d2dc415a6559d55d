"""`python -m benchmarks.train_step`: one training step against a plain torch model, in one run.

The peer (benchmarks/peer.py) does the same work: two tied layers, dropout, window, batch, clip and
update. Each round times the peer and ours in turns one and the other first, so a machine that slows
down moves both; the ratio is the median of the rounds' ratios. The shares say where our step spends
its time, each stage forward and backward by itself. Prints a table and, with --name, writes
records/train_step-NAME.{json,md}.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import precision
from bench.config import Trial, make_trial, select
from bench.corpora import Corpus
from bench.corpora.windows import windows
from bench.decoder import decode_nll
from bench.loop import Trainer, prepare_thread
from bench.model import detach
from bench.noise import WindowNoise
from bench.plugins import build_regularizers, find, load_class
from benchmarks.peer import KINDS, Peer
from benchmarks.record import environment, write

STAGES = ("embedding", "recurrence", "decoder + loss", "penalties", "clip + update")


def made_up(vocab_size: int, tokens: int) -> Corpus:
    """Returns a corpus of random words: speed does not depend on which."""
    draws = np.random.default_rng(1)
    train, valid, test = (draws.integers(0, vocab_size, n, np.int32) for n in (tokens, 100, 100))
    words = tuple(str(i) for i in range(vocab_size))
    return Corpus(
        "made up", "0" * 64, words, train, valid, test, None, {"valid": 9.0, "test": 9.0}, {}
    )


def trainer(values: dict[str, Any], vocab_size: int, device: torch.device) -> Trainer:
    """Returns a trainer as a worker builds it, on made-up text."""
    registry = find()
    trial: Trial = make_trial(values, registry, "train_step")
    cell, regularizers = select(trial, registry)
    return Trainer(
        trial,
        made_up(vocab_size, trial.batch_size * (trial.bptt * 4 + 1)),
        functools.partial(load_class(cell.plugin), **cell.hparams),
        build_regularizers(regularizers),
        device,
    )


def our_step(one: Trainer, wait: bool = True) -> Callable[[], None]:
    """Returns a function that trains on one window and, unless told not to, waits for its end."""
    one.model.train()
    bptt = one.trial.bptt
    tokens, targets = next(windows(one.columns, bptt))
    state = one.model.initial_state(one.trial.batch_size)

    def run() -> None:
        with one.engine.place():
            one.train_window(tokens, targets, state)
        if wait:
            _wait(one.device)

    return run


def kind_of(cell: str) -> str:
    """Returns the peer's kind of recurrence for a cell's spelling; `lstm` where none is nearer."""
    name = cell.split(":")[0]
    return name if name in KINDS else next((k for k in KINDS if name.startswith(k)), "lstm")


def peer_step(one: Trainer, kind: str, wait: bool = True) -> Callable[[], None]:
    """Returns the same for the peer."""
    trial = one.trial
    torch.manual_seed(1)
    peer = Peer(kind, len(one.corpus.vocab), trial.nhid, trial.dropout, trial.lr).to(one.device)
    tokens, targets = next(windows(one.columns, trial.bptt))

    def run() -> None:
        peer.step(tokens, targets, None)
        if wait:
            _wait(one.device)

    return run


def stages(one: Trainer) -> dict[str, float]:
    """Returns the seconds of each stage of a step, forward and backward, cut off from the rest."""
    model, trial, bptt = one.model, one.trial, one.trial.bptt
    tokens, targets = next(windows(one.columns, bptt))
    noise = WindowNoise(trial.seed, "train", 1, one.device, one.dtype)
    state = detach(model.initial_state(trial.batch_size))
    found = {}

    def timed(name: str, forward: Callable[[], Any], *leaves: Tensor) -> Any:
        started = time.perf_counter()
        out = forward()
        first = out[0] if isinstance(out, tuple) else out
        first.backward(torch.ones_like(first))
        _wait(one.device)
        found[name] = time.perf_counter() - started
        return out

    model.zero_grad(set_to_none=True)
    embedded = timed("embedding", lambda: model._embed(tokens, noise)).detach().requires_grad_()
    embed, model._embed = model._embed, lambda tokens, noise: embedded  # type: ignore[method-assign]
    hidden, _, acts = timed("recurrence", lambda: model._run(tokens, state, noise))
    model._embed = embed  # type: ignore[method-assign]
    top = hidden.detach().requires_grad_()
    timed(
        "decoder + loss",
        lambda: decode_nll(top, model.decoder, model.decoder_bias, targets).mean(),
    )
    if one.regularizers:
        leaf = type(acts)(
            acts.embedded.detach(),
            tuple(r.detach().requires_grad_() for r in acts.raw),
            tuple(d.detach().requires_grad_() for d in acts.dropped),
            acts.memory,
        )
        timed("penalties", lambda: sum(c * r(leaf) for r, c in one.regularizers))
    started = time.perf_counter()
    one.engine.step.update()
    _wait(one.device)
    found["clip + update"] = time.perf_counter() - started
    return found


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.train_step", description=__doc__)
    parser.add_argument("--cells", nargs="+", default=["lstm", "gru", "rnn_tanh"], metavar="CELL")
    parser.add_argument("--nhid", nargs="+", type=int, default=[200, 650, 1500])
    parser.add_argument("--vocab", nargs="+", type=int, default=[10_000, 33_278])
    parser.add_argument("--regularizer", default="ar+tar", help="of ours; the peer has none")
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--bptt", type=int, default=35)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", help="of ours; the peer's is fp32")
    parser.add_argument("--quick", action="store_true", help="64 units, 1,600 words, batch 5")
    parser.add_argument("--name", help="of the record; without one none is written")
    options = parser.parse_args(argv)
    if options.quick:
        options.nhid, options.vocab, options.batch_size, options.bptt = [64], [1600], 5, 20
    device = torch.device(options.device)
    rows = []
    for nhid in options.nhid:
        for vocab in options.vocab:
            for cell in options.cells:
                shape = {"nhid": nhid, "batch_size": options.batch_size, "bptt": options.bptt}
                values = {"cell": cell, "regularizer": options.regularizer, **shape}
                values["precision"] = options.precision
                rows.append(_row(values, vocab, options.rounds, options.threads, device))
                print(_line(rows[-1]), flush=True)
    title = (
        f"One training step, ours with {options.regularizer} in {options.precision}, against a "
        f"plain torch model in fp32; batch {options.batch_size}, bptt {options.bptt}, "
        f"{options.threads} thread(s)"
    )
    names = ["cell", "units", "words", "ours, ms", "peer, ms", "peer / ours", "tokens/s", *STAGES]
    table = "\n".join([f"| {' | '.join(names)} |", "| --- " * len(names) + "|", *map(_line, rows)])
    print(f"\n{title}\n\n{table}")
    if options.name:
        write(f"train_step-{options.name}", title, table, {"rows": rows} | environment(device))
    return 0


def _row(
    values: dict[str, Any], vocab: int, rounds: int, threads: int, device: torch.device
) -> dict[str, Any]:
    prepare_thread(device, threads, values["precision"])
    one = trainer(values, vocab, device)
    ours = our_step(one)
    kind = kind_of(values["cell"])
    theirs = peer_step(one, kind)
    for warm in (ours, theirs):
        warm()
    took: dict[str, list[float]] = {"ours": [], "peer": []}
    for turn in range(rounds):
        pair = [("ours", ours), ("peer", theirs)]
        for name, run in reversed(pair) if turn % 2 else pair:
            precision.apply(values["precision"] if name == "ours" else "fp32")
            started = time.perf_counter()
            run()
            took[name].append(time.perf_counter() - started)
    precision.apply(values["precision"])
    samples = [stages(one) for _ in range(min(rounds, 5))]
    shares = {s: statistics.median(x.get(s, 0.0) for x in samples) for s in STAGES}
    median = {name: statistics.median(found) for name, found in took.items()}
    ratios = [p / o for o, p in zip(took["ours"], took["peer"], strict=True)]
    return {
        "cell": values["cell"],
        "units": values["nhid"],
        "words": vocab,
        "ours_ms": 1000 * median["ours"],
        "peer": kind,
        "peer_ms": 1000 * median["peer"],
        "ratio": statistics.median(ratios),
        "tokens_per_s": values["batch_size"] * values["bptt"] / median["ours"],
        "shares": {name: part / sum(shares.values()) for name, part in shares.items()},
    }


def _line(row: dict[str, Any]) -> str:
    shares = " | ".join(f"{100 * row['shares'][name]:.0f} %" for name in STAGES)
    return (
        f"| {row['cell']} | {row['units']} | {row['words']:,} | {row['ours_ms']:.1f} | "
        f"{row['peer_ms']:.1f} | {row['ratio']:.2f} | {row['tokens_per_s']:,.0f} | {shares} |"
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
