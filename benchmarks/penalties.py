"""`python -m benchmarks.penalties`: what AR, TAR and both add to a training step.

One trainer per row, whose penalties alone are exchanged. Each round times a step without any, with
each, with both as most people write them (`h.pow(2).mean()`, the peer), and once more without any:
what that second time "adds" is the noise. Added is the median of the rounds' differences. The
stage is the penalties' forward and backward alone, their gradient added to one that is there
already, as in a step; where the added time drowns in the noise, the stage is what to go by. Its
operations, each at least one kernel, are what counts where a GPU waits for launches. On a CPU with
one thread seconds are the processor's, so that other processes count for little.

With a GPU and --captured, the same for forward and backward in a CUDA graph, without dropout, clip
and update. Prints tables and, with --name, writes records/penalties-NAME.{json,md}.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.api import Activations
from bench.corpora.windows import windows
from bench.loop import Trainer, prepare_thread
from bench.plugins import build_regularizers, find, select_regularizers
from benchmarks.record import environment, write
from benchmarks.train_step import our_step, trainer

Penalties = list[tuple[Callable[[Activations], Tensor], float]]
Run = Callable[[], None]
Clock = Callable[[], float]
PLAIN = "ar+tar, plainly"
KINDS = ("ar", "tar", "ar+tar", PLAIN)
NONE, AGAIN = "none", "none, again"


def penalties() -> dict[str, Penalties]:
    """Returns what is compared: ours by name, both as most people write them, and none."""
    registry = find()
    ours = {name: build_regularizers(select_regularizers(name, registry)) for name in KINDS[:3]}
    plain: Penalties = [
        (lambda acts: acts.dropped[-1].pow(2).mean(), 2.0),
        (lambda acts: (acts.raw[-1][1:] - acts.raw[-1][:-1]).pow(2).mean(), 1.0),
    ]
    return {NONE: [], **ours, PLAIN: plain, AGAIN: []}


def steps(one: Trainer) -> dict[str, Run]:
    """Returns whole training steps that differ in their penalties alone."""
    run = our_step(one)

    def with_these(chosen: Penalties) -> Run:
        def step() -> None:
            one.regularizers[:] = chosen  # in place: the step holds the same list
            run()

        return step

    return {name: with_these(chosen) for name, chosen in penalties().items()}


def stages(one: Trainer) -> dict[str, Run]:
    """Returns the penalties' forward and backward alone, on activations of the step's shape."""
    shape = (one.trial.bptt, one.trial.batch_size, one.trial.nhid)
    raw = torch.randn(shape, device=one.device).tanh_().requires_grad_()
    dropped = (raw * 2 * torch.rand_like(raw).round()).detach().requires_grad_()
    for leaf in (raw, dropped):
        leaf.grad = torch.zeros_like(leaf)
    acts = Activations(raw, (raw,), (dropped,), (None,))

    def of_these(chosen: Penalties) -> Run:
        def stage() -> None:
            _sum(acts, chosen).backward()  # type: ignore[no-untyped-call]
            _wait(one.device)

        return stage

    return {name: of_these(chosen) for name, chosen in penalties().items() if chosen}


class _Count(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts tensor operations; a view is none."""

    operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += not func.is_view
        return func(*args, **(kwargs or {}))


def operations(run: Run) -> int:
    """Returns how many operations of torch a run takes, forward and backward."""
    count = _Count()  # type: ignore[no-untyped-call]
    with count:
        run()
    return count.operations


def graphs(one: Trainer) -> dict[str, Run]:
    """Returns forward and backward of a window, each captured in a CUDA graph."""
    bptt, model = one.trial.bptt, one.model.train()
    tokens, targets = next(windows(one.columns, bptt))
    state = model.initial_state(one.trial.batch_size)

    def captured(chosen: Penalties) -> Run:
        def both_ways() -> None:
            nll, _, acts = model(tokens, targets, state, None)
            (nll.mean() + _sum(acts, chosen)).backward()

        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                model.zero_grad(set_to_none=True)
                both_ways()
        torch.cuda.current_stream().wait_stream(side)
        model.zero_grad(set_to_none=True)  # so that the graph has gradients of its own
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            both_ways()

        def replay() -> None:
            graph.replay()
            _wait(one.device)

        return replay

    return {name: captured(chosen) for name, chosen in penalties().items()}


def timed(runs: dict[str, Run], seconds: float, clock: Clock) -> dict[str, list[float]]:
    """Returns each run's seconds, round by round, for so long and at least 5 rounds.

    Each round begins with another run, and every second one goes the other way.
    """
    names, turn = list(runs), 0
    took: dict[str, list[float]] = {name: [] for name in names}
    for run in runs.values():
        run()
    end = time.perf_counter() + seconds
    while turn < 5 or time.perf_counter() < end:
        first = turn % len(names)
        for name in (names[first:] + names[:first])[:: -1 if turn % 2 else 1]:
            started = clock()
            runs[name]()
            took[name].append(clock() - started)
        turn += 1
    return took


def added(took: dict[str, list[float]]) -> dict[str, float]:
    """Returns the median over the rounds of what each run takes beyond `none`."""
    return {
        name: statistics.median(t - n for t, n in zip(times, took[NONE], strict=True))
        for name, times in took.items()
        if name != NONE
    }


def _row(one: Trainer, seconds: float, clock: Clock, captured: bool) -> dict[str, Any]:
    took = timed(steps(one), seconds, clock)
    runs = stages(one)
    alone = timed(runs, seconds / 10, clock)
    stage = {name: statistics.median(times) for name, times in alone.items()}
    row = {
        "cell": one.trial.cell,
        "units": one.trial.nhid,
        "rounds": len(took[NONE]),
        "step_ms": 1000 * statistics.median(took[NONE]),
        "added_ms": {name: 1000 * found for name, found in added(took).items()},
        "stage_ms": {name: 1000 * found for name, found in stage.items()},
        "operations": {name: operations(run) for name, run in runs.items()},
    }
    if captured:
        took = timed(graphs(one), seconds, clock)
        row["captured_ms"] = 1000 * statistics.median(took[NONE])
        row["captured_added_ms"] = {name: 1000 * found for name, found in added(took).items()}
    return row


def _sum(acts: Activations, chosen: Penalties) -> Tensor:
    total = acts.raw[-1].new_zeros(())
    for penalty, coefficient in chosen:
        total = total + coefficient * penalty(acts)
    return total


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _table(rows: list[dict[str, Any]], whole: str, parts: str, names: tuple[str, ...]) -> str:
    head = ["cell", "units", "rounds", "without, ms", *(f"{n}, ms (%)" for n in names)]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for row in rows:
        cells = [f"{row[parts][n]:.2f} ({100 * row[parts][n] / row[whole]:.2f})" for n in names]
        start = f"| {row['cell']} | {row['units']} | {row['rounds']} | {row[whole]:.2f} | "
        lines.append(start + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.penalties", description=__doc__)
    parser.add_argument("--cells", nargs="+", default=["lstm", "rnn_tanh"], metavar="CELL")
    parser.add_argument("--nhid", nargs="+", type=int, default=[200, 650, 1500])
    parser.add_argument("--vocab", type=int, default=10_000)
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--bptt", type=int, default=35)
    parser.add_argument("--seconds", type=float, default=60.0, help="a row, or 5 rounds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--captured", action="store_true", help="also in a CUDA graph")
    parser.add_argument("--quick", action="store_true", help="64 units, 1,600 words, batch 5")
    parser.add_argument("--name", help="of the record; without one none is written")
    options = parser.parse_args(argv)
    if options.quick:
        options.seconds = min(options.seconds, 10.0)
        options.nhid, options.vocab, options.batch_size, options.bptt = [64], 1600, 5, 20
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {device}: there is no GPU here")
    captured = options.captured and device.type == "cuda"
    if options.captured and not captured:
        print("no GPU: eager only\n")
    clock = time.perf_counter
    if device.type == "cpu" and options.threads == 1:
        clock = time.process_time
    shape = {"batch_size": options.batch_size, "bptt": options.bptt}
    rows = []
    for nhid in options.nhid:
        for cell in options.cells:
            # A rate at which nothing blows up in however many steps on one window.
            values = {"cell": cell, "regularizer": "none", "nhid": nhid, "lr": 0.01, **shape}
            prepare_thread(device, options.threads)
            one = trainer(values, options.vocab, device)
            rows.append(_row(one, options.seconds, clock, captured))
            print(f"{cell}, {nhid} units: {rows[-1]['step_ms']:.1f} ms a step", flush=True)
    title = (
        f"What penalties add to a training step; {options.vocab:,} words, batch "
        f"{options.batch_size}, bptt {options.bptt}, fp32, {options.threads} thread(s)"
    )
    tables = {
        "Added to the whole step": _table(rows, "step_ms", "added_ms", (*KINDS, AGAIN)),
        "The stage alone, as a part of the step": _table(rows, "step_ms", "stage_ms", KINDS),
    }
    if captured:
        names = (*KINDS, AGAIN)
        tables["Added to forward and backward in a CUDA graph"] = _table(
            rows, "captured_ms", "captured_added_ms", names
        )
    text = "\n\n".join(f"{name}:\n\n{table}" for name, table in tables.items())
    counts = ", ".join(f"{name} {count}" for name, count in rows[0]["operations"].items())
    text += f"\n\nOperations of the stage: {counts}."
    print(f"\n{title}\n\n{text}")
    if options.name:
        write(f"penalties-{options.name}", title, text, {"rows": rows} | environment(device))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
