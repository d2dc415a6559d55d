"""From the options of `grid` and `train` to a finished grid: the one path both verbs take."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from typing import TYPE_CHECKING

from bench.errors import BadInput, one_line
from bench.options import Options, check, checkpoints_at, how
from bench.stop import terminable
from bench.storage import check_answers, open_storage, probe

if TYPE_CHECKING:
    from bench.config import Grid
    from bench.driver import Backend
    from bench.store.mirror import Results

SHELL = "python -m bench."


def launch(grid: object, options: Options, verb: str, argv: list[str]) -> int:
    """Runs a grid to its end, draws the report, and returns the exit code.

    `grid` is a bench.config.Grid. Raises BadInput before anything is started or written.
    """
    check(options)
    # Heavy imports only here and below: --help and bad options must answer at once.
    from bench.config import Grid
    from bench.store.mirror import results_folder

    assert isinstance(grid, Grid)
    words = argv[1:] if argv[:1] == [verb] else argv  # `bench grid …` is the same command
    command = f"{SHELL}{verb} {shlex.join(words)}".strip()
    dry = options.dry_run
    try:
        with (
            terminable(),
            results_folder(options.results, write=not dry, may_be_empty=dry) as results,
        ):
            return _run(grid, options, results, command)
    except KeyboardInterrupt:
        print("\ninterrupted; finished trials are kept. To go on:", file=sys.stderr)
        print(f"  {command}", file=sys.stderr)
        return 130


def _run(grid: Grid, options: Options, results: Results, command: str) -> int:
    from bench.config import expand
    from bench.corpora import default_data_dir
    from bench.driver import drive, exit_code, summary
    from bench.plan import plan
    from bench.plugins import find
    from bench.precision import refusal

    registry = find(options.plugins)
    data_dir = (options.data_dir or default_data_dir()).resolve()
    expansion = expand(grid, registry, data_dir)
    address = _address(options)
    gpus, device = _device(options, address)
    if address is None:  # what a cluster's nodes can do, they know
        for precision in {trial.precision for trial in expansion.trials}:
            if reason := refusal(precision, device):
                raise BadInput(f"{grid.name}: {reason}")
    keep_weights = (options.keep_weights or grid.keep_weights) == "best"
    checkpoints = checkpoints_at(options, results.folder, address)
    ready = plan(
        grid,
        expansion,
        registry,
        results=results.folder,
        data_dir=data_dir,
        plugins=options.plugins,
        how=how(options, device, keep_weights, checkpoints),
    )
    slots = _slots(options, gpus)
    if options.dry_run:
        from bench.dryrun import show

        # How many run at a time on a cluster is not known here.
        show(ready, results.folder, options.rerun, 1 if address else max(slots, 1), device)
        return 0
    todo = ready.to_run(options.rerun)
    print(
        f"{grid.name}: {len(ready.trials)} trial{'s' * (len(ready.trials) != 1)}, "
        f"{len(ready.trials) - len(todo)} recorded, {len(todo)} to run",
        flush=True,
    )
    for job in todo:
        path = results.folder / "runs" / f"{job.run_id}.parquet"
        if job.run_id not in ready.statuses and path.exists():
            print(f"{path}: no record of its trial, which is run again")
    backend = None
    if todo:
        if options.storage is not None and checkpoints is not None:
            storage = open_storage(checkpoints)
            check_answers(storage, probe(storage), {})
        _remark(options, address)
        backend = _backend(options, address, gpus, slots)
    statuses = drive(
        ready,
        backend,
        results=results,
        command=command,
        rerun=options.rerun,
        max_retries=options.max_retries,
        checkpoints=None if checkpoints is None else open_storage(checkpoints),
    )
    print(summary(statuses, len(ready.trials)))
    if {"failed", "oom", "timeout", "lost"} & set(statuses.values()):
        print(f"errors: {results.folder / 'grids' / f'{grid.name}.log'}")
    if options.report:
        _report(results, grid.name)
    return exit_code(statuses, len(ready.trials))


def _report(results: Results, name: str) -> None:
    # The trials are done and recorded: a report that cannot be drawn must not look like a failure.
    try:
        from bench.report import build

        path = build(results.folder, name)
        results.push([f"reports/{path.name}"])
        print(f"report: {path}")
    except (ImportError, BadInput, OSError) as error:
        print(f"report not drawn: {one_line(error)}; later: {SHELL}report {name}")


def _address(options: Options) -> str | None:
    if options.backend == "local":
        return None
    address = options.address or os.environ.get("RAY_ADDRESS") or "local"
    return None if address == "local" else address


def _device(options: Options, address: str | None) -> tuple[float, str]:
    import torch

    here = torch.cuda.is_available()
    gpus = options.gpus_per_trial
    if options.device == "cpu":
        if gpus:
            raise BadInput(f"--device cpu: contradicts --gpus-per-trial {gpus:g}")
        gpus = 0.0
    if gpus is None:
        gpus = 1.0 if address is not None or here or options.device == "cuda" else 0.0
    if options.device == "cuda" and not gpus:
        raise BadInput("--device cuda: contradicts --gpus-per-trial 0")
    if gpus and address is None and not here:
        raise BadInput("--device cuda: this machine has no GPU that torch can use; use cpu")
    return gpus, "cuda" if gpus else "cpu"


def _slots(options: Options, gpus: float) -> int:
    """Returns how many trials run at a time on this machine."""
    if options.jobs is not None:
        return options.jobs
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    slots = int(cpus / options.cpus_per_trial)
    if gpus:
        import torch

        slots = min(slots, int(torch.cuda.device_count() / gpus)) or 1
    return max(1, slots)


def _backend(options: Options, address: str | None, gpus: float, slots: int) -> Backend:
    from functools import partial

    if options.backend == "local":
        from bench.backends import local

        names: list[str] = []
        if gpus:
            import torch

            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
            names = (
                visible.split(",")
                if visible
                else [str(n) for n in range(torch.cuda.device_count())]
            )
        return partial(local.run, slots=slots, gpus=names)
    if importlib.util.find_spec("ray") is None:
        raise BadInput("--backend ray: ray is not installed; --backend local needs none")
    from bench.backends import ray_cluster, ray_tune

    resources = ray_cluster.Resources(options.cpus_per_trial, gpus, slots, options.device_class)
    if address is not None:
        address = ray_cluster.check_address(address)
    return partial(ray_tune.run, resources=resources, address=address)


def _remark(options: Options, address: str | None) -> None:
    if options.backend != "ray" or address is not None or options.address == "local":
        return
    from bench.backends.ray_cluster import running_here

    other = running_here()
    if other:
        print(f"a Ray cluster runs here ({other}); to use it: --address auto", flush=True)
