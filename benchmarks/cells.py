"""`python -m benchmarks.cells`: tokens per second of every cell against `lstm`, in one run.

One layer, forward and backward, with its noise as in training. Each round times `lstm` and the
cell, in turns one and the other first; the ratio of a cell is the median of its rounds' ratios, so
a machine that slows down in between moves both sides. The row of `lstm` against itself shows what
is noise. Prints a table and, with --name, writes records/cells-NAME.{json,md}.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from bench.errors import BadInput
from bench.noise import WindowNoise
from bench.plugins import Selected, find, load_class, select_cell
from benchmarks.record import environment, write


def step(
    selected: Selected, nhid: int, batch_size: int, bptt: int, device: torch.device
) -> Callable[[], None]:
    """Returns a function that runs one window forward and backward and waits for its end."""
    torch.manual_seed(1)
    cell: nn.Module = load_class(selected.plugin)(nhid, nhid, **selected.hparams).to(device)
    x = torch.randn(bptt, batch_size, nhid, device=device, requires_grad=True)
    weight = torch.randn(bptt, batch_size, nhid, device=device)
    state = tuple(s.to(device) for s in cell.initial_state(batch_size))  # type: ignore[operator]
    count = 0

    def run() -> None:
        nonlocal count
        count += 1
        noise = WindowNoise(1, "train", count, device, torch.float32).at("layer0")
        raw = cell(x, state, noise)[0]
        x.grad = None
        cell.zero_grad(set_to_none=True)
        (raw * weight).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def seconds(run: Callable[[], None], times: int) -> float:
    """Returns the seconds of one call."""
    started = time.perf_counter()
    for _ in range(times):
        run()
    return (time.perf_counter() - started) / times


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.cells", description=__doc__)
    parser.add_argument("cells", nargs="*", help="spellings; without any: every cell")
    parser.add_argument("--nhid", type=int, default=650)
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--bptt", type=int, default=35)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="64 units, 5 columns, 20 steps")
    parser.add_argument("--name", help="of the record; without one none is written")
    options = parser.parse_args(argv)
    registry = find()
    for name in ("nhid", "batch_size", "bptt", "rounds", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} {getattr(options, name)}: must be above 0")
    try:
        cells = [select_cell(spelling, registry) for spelling in options.cells]
    except BadInput as error:
        parser.error(str(error))
    cells = cells or [select_cell(name, registry) for name in sorted(registry["cell"])]
    if options.quick:
        options.nhid, options.batch_size, options.bptt = 64, 5, 20
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    device = torch.device(options.device)
    shape = (options.nhid, options.batch_size, options.bptt, device)
    lstm = step(select_cell("lstm", registry), *shape)
    rows = []
    for cell in cells:
        run, spelling = step(cell, *shape), cell.spelling
        for warm in (lstm, run):
            seconds(warm, 3)
        times = max(1, round(0.1 / max(seconds(lstm, 1), 1e-4)))  # a tenth of a second a side
        ours: list[float] = []
        theirs: list[float] = []
        for turn in range(options.rounds):
            order = ((ours, run), (theirs, lstm)) if turn % 2 else ((theirs, lstm), (ours, run))
            for found, one in order:
                found.append(seconds(one, times))
        ratio = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
        took = statistics.median(ours)
        tokens = options.batch_size * options.bptt / took
        rows.append({"cell": spelling, "ms": 1000 * took, "tokens_per_s": tokens, "ratio": ratio})
        print(f"{spelling:<34} {1000 * took:8.2f} ms  {ratio:5.2f} x lstm's time", flush=True)
    rows.sort(key=lambda row: row["ratio"])
    title = (
        f"One layer of {options.nhid} units, batch {options.batch_size}, bptt {options.bptt}, "
        f"forward and backward, fp32, {options.threads} thread(s)"
    )
    lines = ["| cell | ms | tokens/s | time against lstm |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {r['cell']} | {r['ms']:.2f} | {r['tokens_per_s']:,.0f} | {r['ratio']:.2f} |"
        for r in rows
    ]
    table = "\n".join(lines)
    print(f"\n{title}\n\n{table}")
    if options.name:
        write(f"cells-{options.name}", title, table, {"rows": rows} | environment(device))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
