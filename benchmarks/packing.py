"""`python -m benchmarks.packing`: work finished per hour against trials at once on one device.

Two ways: `processes`, each with a trial and, on a CPU, a thread of its own; `pack`, one process
whose trials take turns (`bench.pack`). The peer (benchmarks/peer.py, true fp32) trains in as many
processes for the first way, one at a time for the second. All processes of a row live side by
side; in each round ours run while the peer's wait, then the other way round, so a machine that
slows down moves both, and the ratio is the median of the rounds' ratios. Prints a table and, with
--name, writes records/packing-NAME.{json,md}.
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import os
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from bench.backends.pool import thread_limits
from benchmarks.record import environment, write

EPOCH = 1328
"""Windows of an epoch of Penn Treebank at batch 20 and bptt 35."""


def serve(pipe: Connection[Any, Any], kind: str, count: int, values: dict[str, Any]) -> None:
    """Builds `count` models of ours, or a peer, and trains as many windows each as it is told."""
    from bench.loop import prepare_thread
    from bench.worker import _keep_memory
    from benchmarks.train_step import kind_of, our_step, peer_step, trainer

    device, vocab = torch.device(values.pop("device")), values.pop("vocab")
    prepare_thread(device, 1, values["precision"] if kind == "ours" else "fp32")
    if kind == "ours":
        _keep_memory()  # as a worker does
    ones = [trainer(values | {"rep": rep}, vocab, device) for rep in range(count)]
    steps: list[Callable[[], None]]
    if kind == "ours":
        steps = [our_step(one, wait=False) for one in ones]
    else:
        steps = [peer_step(one, kind_of(values["cell"]), wait=False) for one in ones]
    while (windows := pipe.recv()) is not None:
        for _ in range(windows):
            for step in steps:
                step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        pipe.send(windows * count)


class Group:
    """Processes that train side by side."""

    def __init__(self, kind: str, processes: int, count: int, values: dict[str, Any]) -> None:
        context = mp.get_context("spawn")
        self.pipes = []
        self.processes = []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=serve, args=(theirs, kind, count, dict(values)), daemon=True
            )
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def windows_per_second(self, windows: int) -> float:
        """Trains `windows` windows with each model, in all processes at once."""
        started = time.perf_counter()
        for pipe in self.pipes:
            pipe.send(windows)
        trained = sum(pipe.recv() for pipe in self.pipes)
        return float(trained / (time.perf_counter() - started))

    def close(self) -> None:
        """Ends the processes."""
        for pipe in self.pipes:
            pipe.send(None)
        for process in self.processes:
            process.join()


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.packing", description=__doc__)
    parser.add_argument("--cells", nargs="+", default=["lstm"], metavar="CELL")
    parser.add_argument("--ways", nargs="+", default=["processes", "pack"])
    parser.add_argument("--counts", nargs="+", type=int, help="default: 1 2; on a GPU up to 32")
    parser.add_argument("--nhid", type=int, default=650)
    parser.add_argument("--vocab", type=int, default=10_000)
    parser.add_argument("--precisions", nargs="+", default=["fp32"], help="of ours")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--windows", type=int, help="of a model in a round; default 10, GPU 200")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="64 units, 1,600 words, 1 and 2")
    parser.add_argument("--name", help="of the record; without one none is written")
    options = parser.parse_args(argv)
    os.environ.update(thread_limits(1))  # the processes inherit it
    gpu = options.device == "cuda"
    counts = options.counts or ([1, 2, 4, 8, 16, 32] if gpu else [1, 2])
    windows = options.windows or (200 if gpu else 10)
    base = {"nhid": options.nhid, "batch_size": 20, "bptt": 35, "regularizer": "ar+tar"}
    if options.quick:
        base |= {"nhid": 64, "batch_size": 5, "bptt": 20}
        options.vocab, counts = 1600, options.counts or [1, 2]
    base |= {"vocab": options.vocab, "device": options.device}
    rows = []
    for precision in options.precisions:
        for cell in options.cells:
            for way in options.ways:
                for count in counts:
                    values = base | {"cell": cell, "precision": precision}
                    rows.append(_row(values, way, count, options.rounds, windows))
                    print(_line(rows[-1]), flush=True)
    title = (
        f"Trials at once, {base['nhid']} units, {options.vocab:,} words, batch "
        f"{base['batch_size']}, bptt {base['bptt']}, against plain torch models in fp32"
    )
    names = ["cell", "precision", "way", "at once", "windows/s", "PTB epochs/h"]
    names += ["peer, windows/s", "ours / peer"]
    table = "\n".join([f"| {' | '.join(names)} |", "| --- " * len(names) + "|", *map(_line, rows)])
    print(f"\n{title}\n\n{table}")
    if options.name:
        found = {"rows": rows} | environment(torch.device(options.device))
        write(f"packing-{options.name}", title, table, found)
    return 0


def _row(values: dict[str, Any], way: str, count: int, rounds: int, windows: int) -> dict[str, Any]:
    processes, models = (count, 1) if way == "processes" else (1, count)
    groups = {
        "ours": Group("ours", processes, models, values),
        "peer": Group("peer", processes, 1, values),
    }
    for group in groups.values():
        group.windows_per_second(6)  # chooses kernels, records the step
    rates: dict[str, list[float]] = {"ours": [], "peer": []}
    for turn in range(rounds):
        for name in ("ours", "peer") if turn % 2 else ("peer", "ours"):
            rates[name].append(groups[name].windows_per_second(windows))
    for group in groups.values():
        group.close()
    return {
        "cell": values["cell"],
        "precision": values["precision"],
        "way": way,
        "at_once": count,
        "windows_per_s": statistics.median(rates["ours"]),
        "peer_windows_per_s": statistics.median(rates["peer"]),
        "ratio": statistics.median(o / p for o, p in zip(*rates.values(), strict=True)),
    }


def _line(row: dict[str, Any]) -> str:
    return (
        f"| {row['cell']} | {row['precision']} | {row['way']} | {row['at_once']} | "
        f"{row['windows_per_s']:.2f} | {3600 * row['windows_per_s'] / EPOCH:.1f} | "
        f"{row['peer_windows_per_s']:.2f} | {row['ratio']:.2f} |"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
