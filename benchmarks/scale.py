"""`python -m benchmarks.scale`: what 100,000 recorded trials of 40 epochs cost to read and to draw.

The records are simulated, from a seed, for the very trials of a grid file, and lie compacted. Each
row of the table is a process of its own: its seconds and its peak memory, imports included where
it is a whole command. For compact, part-files of their own are written and folded. Prints a table
and, with --name, writes records/scale-NAME.{json,md}.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.plan import Plan

NAME = "scale"
EPOCHS = 40
REPS = 5
STEP = 2000
"""Trials of one learning rate: 4 cells x 5 sizes x 20 regularizers x 5 repetitions."""


def grid_text(trials: int) -> str:
    """Returns a grid file of that many trials, rounded up to whole learning rates."""
    alphas = [f'"ar:alpha={n / 2:g}"' for n in range(1, 8)]
    betas = [f'"tar:beta={n / 2:g}"' for n in range(1, 7)]
    both = [f'"ar:alpha={n / 2:g}+tar:beta=1"' for n in range(1, 7)]
    rates = ", ".join(f"{5 + n / 4:g}" for n in range(max(1, round(trials / STEP))))
    return (
        f"name: {NAME}\nbase: {{corpus: synthetic, epochs: {EPOCHS}}}\naxes:\n"
        f"  cell: [lstm, gru, rnn_tanh, lstm_layernorm]\n  nhid: [100, 200, 300, 400, 500]\n"
        f"  lr: [{rates}]\n  regularizer: [none, {', '.join(alphas + betas + both)}]\n"
        f"reps: {REPS}\n"
    )


# --- what is measured; each runs in a process of its own -----------------------------------------


def _simulate(folder: Path) -> dict[str, Any]:
    from bench import store
    from bench.store.files import part_path
    from bench.store.pairs import write_pair
    from benchmarks.simulated import planned, simulated

    results = folder / "results"
    store.prepare(results)
    plan = planned(folder)
    name = write_pair(results, simulated(plan, EPOCHS))
    _save_grid(results, plan)
    sizes = {t: part_path(results, t, name).stat().st_size for t in ("runs", "epochs")}
    return {
        "seconds": 0.0,
        "cpu": 0.0,
        "detail": " ".join(f"{t} {n / 2**20:.0f} MB" for t, n in sizes.items()),
    }


def _save_grid(results: Path, plan: Plan) -> None:
    from bench import store

    grid = {"name": NAME, "command": f"python -m bench.grid {NAME}", "skipped": [], "merged": 0}
    wanted = [{"run_id": job.run_id, "trial": job.trial} for job in plan.jobs]
    store.save_grid(results, grid | {"created_utc": "2026-01-01T00:00:00Z", "wanted": wanted})


def _part_files(folder: Path) -> dict[str, Any]:
    """Writes the records as part-files, without waiting for the disk."""
    import pyarrow.parquet as pq

    from bench import store
    from benchmarks.simulated import planned, simulated

    results = folder / "results"
    store.prepare(results)
    plan = planned(folder)
    _save_grid(results, plan)
    started = time.perf_counter()
    for runs, epochs in simulated(plan, EPOCHS):
        for i, run_id in enumerate(runs["run_id"].to_pylist()):
            name = f"{run_id}.parquet"
            pq.write_table(runs.slice(i, 1), results / "runs" / name)
            pq.write_table(epochs.slice(i * EPOCHS, EPOCHS), results / "epochs" / name)
    return {"seconds": time.perf_counter() - started, "cpu": time.process_time()}


def _load_runs(folder: Path) -> dict[str, Any]:
    from bench import store

    return _timed(lambda: f"{len(store.load_runs(folder / 'results')[0]):,} rows")


def _load_epochs(folder: Path) -> dict[str, Any]:
    from bench import store

    return _timed(lambda: f"{len(store.load_epochs(folder / 'results')[0]):,} rows")


def _missing(folder: Path) -> dict[str, Any]:
    from bench import store

    wanted = store.load_grid(folder / "results", NAME)["wanted"]
    ids = [entry["run_id"] for entry in wanted]
    return _timed(lambda: f"{len(ids) - len(store.statuses(folder / 'results', ids)):,} missing")


def _plan(folder: Path) -> dict[str, Any]:
    import bench.launch  # noqa: F401
    from benchmarks.simulated import planned  # what is measured is the plan, not the imports

    def run() -> str:
        plan = planned(folder)
        return f"{len(plan.jobs):,} trials, {len(plan.to_run(None)):,} missing"

    return _timed(run)


def _grid_file(folder: Path) -> dict[str, Any]:
    from bench import store

    results = folder / "results"
    path = results / "grids" / f"{NAME}.json"
    grid = store.load_grid(results, NAME)
    read = _timed(lambda: f"{len(store.load_grid(results, NAME)['wanted'])} trials")

    def save() -> str:
        store.save_grid(results, grid)
        return ""

    write = _timed(save)
    both = {name: read[name] + write[name] for name in ("seconds", "cpu")}
    size = path.stat().st_size / 2**20
    return both | {"detail": f"{size:.1f} MB; reading alone {read['seconds']:.1f} s"}


def _report(folder: Path) -> dict[str, Any]:
    from bench.report.__main__ import app

    found = _timed(lambda: _verb(app, [NAME, "--results", str(folder / "results")]))
    size = (folder / "results" / "reports" / f"{NAME}.html").stat().st_size
    return found | {"detail": f"{size / 1e6:.1f} MB", "megabytes": size / 1e6}


def _dry_run(folder: Path) -> dict[str, Any]:
    from bench.grid import app

    argv = [str(folder / "grid.yaml"), "--dry-run", "--backend", "local"]
    return _timed(lambda: _verb(app, [*argv, "--results", str(folder / "results")]))


def _compact(folder: Path) -> dict[str, Any]:
    from bench.store.compact import compact

    return _timed(lambda: f"{compact(folder / 'results')[0]:,} folded")


STEPS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "simulate": _simulate,
    "part-files": _part_files,
    "load runs": _load_runs,
    "load epochs": _load_epochs,
    "missing": _missing,
    "expand and plan": _plan,
    "grid file": _grid_file,
    "bench.report": _report,
    "bench.grid --dry-run": _dry_run,
    "compact": _compact,
}
COMPACTED = ("load runs", "load epochs", "missing", "expand and plan", "grid file", "bench.report")


def _timed(run: Callable[[], str]) -> dict[str, Any]:
    started, cpu = time.perf_counter(), time.process_time()
    detail = run()
    took = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}
    return took | {"detail": detail}


def _verb(app: Any, argv: list[str]) -> str:
    from bench.__main__ import run

    try:
        run(app, argv, NAME)
    except SystemExit as end:
        return f"exit code {end.code or 0}"
    return "exit code 0"


def _peak_mib() -> float:
    """Returns this process's peak memory; a rusage would count the parent's, too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise OSError("no VmHWM in /proc/self/status")


def child(step: str, folder: Path, rounds: int = 1) -> dict[str, Any]:
    """Runs a step in processes of its own; returns medians of seconds and MiB, and its detail."""
    found = []
    for _ in range(rounds):
        argv = [sys.executable, "-m", "benchmarks.scale", "--child", step, "--folder", str(folder)]
        ended = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(ended.stdout.splitlines()[-1]))
    median = {k: statistics.median(f[k] for f in found) for k in ("seconds", "cpu", "mib")}
    return {**found[-1], **median, "step": step, "rounds": rounds}


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--trials", type=int, default=100_000, help="rounded to 2,000")
    parser.add_argument("--folds", type=int, nargs="*", default=[2000, 20_000], metavar="N")
    parser.add_argument("--rounds", type=int, default=5, help="of a step on what is compacted")
    parser.add_argument("--quick", action="store_true", help="2,000 trials, no part-files")
    parser.add_argument("--folder", type=Path, help="where to simulate; kept afterwards")
    parser.add_argument("--name", help="of the record; without one none is written")
    parser.add_argument("--child", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        print(json.dumps(STEPS[options.child](options.folder) | {"mib": _peak_mib()}))
        return 0
    if options.quick:
        options.trials, options.folds, options.rounds = STEP, [], 1
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        rows = list(_measure(folder, options))
    title = f"{options.trials:,} recorded trials of {EPOCHS} epochs"
    head = "| what | seconds | of CPU | peak MiB | |\n| --- | --- | --- | --- | --- |"
    table = "\n".join([head, *map(_line, rows)])
    print(f"\n{title}\n\n{table}")
    if options.name:
        import torch

        from benchmarks.record import environment, write

        write(
            f"scale-{options.name}", title, table, {"rows": rows} | environment(torch.device("cpu"))
        )
    return 0


def _measure(folder: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    def at(place: Path, trials: int, step: str, rounds: int = 1) -> dict[str, Any]:
        row = child(step, place, rounds) | {"trials": trials}
        print(_line(row), flush=True)
        return row

    place = _place(folder / "compacted", options.trials)
    if not (place / "results").is_dir():
        at(place, options.trials, "simulate")
    for step in (*COMPACTED, "bench.grid --dry-run"):
        yield at(place, options.trials, step, options.rounds)
    for number in options.folds:
        place = _place(folder / f"part-files-{number}", number)
        at(place, number, "part-files")
        for step in ("missing", "load runs", "load epochs", "compact"):
            yield at(place, number, step) | {"step": f"{step}, part-files"}


def _place(folder: Path, trials: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "grid.yaml").write_text(grid_text(trials))
    return folder


def _line(row: dict[str, Any]) -> str:
    figures = f"{row['seconds']:.2f} | {row['cpu']:.2f} | {row['mib']:,.0f}"
    return f"| {row['step']}, {row['trials']:,} | {figures} | {row.get('detail', '')} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
