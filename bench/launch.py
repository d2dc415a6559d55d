"""From the options of `grid` and `train` to a finished grid: the one path both verbs take."""

from __future__ import annotations

import importlib.util
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BadInput, one_line
from bench.pack import MOST

if TYPE_CHECKING:
    from bench.driver import Backend

SHELL = "python -m bench."


@dataclass(frozen=True)
class Options:
    """What the command line decides beside the trials themselves."""

    results: Path
    data_dir: Path | None = None
    plugins: Path | None = None
    device: str | None = None
    backend: str = "ray"
    jobs: int | None = None
    address: str | None = None
    cpus_per_trial: float = 1.0
    gpus_per_trial: float | None = None
    pack: str = "1"
    max_retries: int = 3
    rerun: str | None = None
    keep_weights: str | None = None
    report: bool = True
    dry_run: bool = False


def launch(grid: object, options: Options, verb: str, argv: list[str]) -> int:
    """Runs a grid to its end, draws the report, and returns the exit code.

    `grid` is a bench.config.Grid. Raises BadInput before anything is started or written.
    """
    _check(options)
    # Heavy imports only here: --help and bad options must answer at once.
    from bench.config import Grid, expand
    from bench.corpora import default_data_dir
    from bench.driver import drive, exit_code, summary
    from bench.plan import plan
    from bench.plugins import find
    from bench.precision import refusal

    assert isinstance(grid, Grid)
    registry = find(options.plugins)
    data_dir = (options.data_dir or default_data_dir()).resolve()
    expansion = expand(grid, registry, data_dir)
    address = _address(options)
    gpus, device = _device(options, address)
    if address is None:  # what a cluster's nodes can do, they know
        for precision in {trial.precision for trial in expansion.trials}:
            if reason := refusal(precision, device):
                raise BadInput(f"{grid.name}: {reason}")
    ready = plan(
        grid,
        expansion,
        registry,
        results=options.results,
        data_dir=data_dir,
        plugins=options.plugins,
        device=device,
        threads=max(1, int(options.cpus_per_trial)),
        keep_weights=(options.keep_weights or grid.keep_weights) == "best",
        pack=0 if options.pack == "auto" else int(options.pack),
    )
    slots = _slots(options, gpus)
    if options.dry_run:
        from bench.dryrun import show

        # How many run at a time on a cluster is not known here.
        show(ready, options.results, options.rerun, 1 if address else max(slots, 1), device)
        return 0
    words = argv[1:] if argv[:1] == [verb] else argv  # `bench grid …` is the same command
    command = f"{SHELL}{verb} {shlex.join(words)}".strip()
    todo = ready.to_run(options.rerun)
    print(
        f"{grid.name}: {len(ready.trials)} trial{'s' * (len(ready.trials) != 1)}, "
        f"{len(ready.trials) - len(todo)} recorded, {len(todo)} to run",
        flush=True,
    )
    for job in todo:
        path = options.results / "runs" / f"{job.run_id}.parquet"
        if job.run_id not in ready.statuses and path.exists():
            print(f"{path}: no record of its trial, which is run again")
    backend = None
    if todo:
        _remark(options, address)
        backend = _backend(options, address, gpus, slots)
    try:
        statuses = drive(
            ready,
            backend,
            results=options.results,
            command=command,
            rerun=options.rerun,
            max_retries=options.max_retries,
        )
    except KeyboardInterrupt:
        print("\ninterrupted; finished trials are kept. To go on:", file=sys.stderr)
        print(f"  {command}", file=sys.stderr)
        return 130
    print(summary(statuses, len(ready.trials)))
    if {"failed", "oom", "timeout", "lost"} & set(statuses.values()):
        print(f"errors: {options.results / 'grids' / f'{grid.name}.log'}")
    if options.report:
        _report(options.results, grid.name)
    return exit_code(statuses, len(ready.trials))


def _report(results: Path, name: str) -> None:
    # The trials are done and recorded: a report that cannot be drawn must not look like a failure.
    try:
        from bench.report import build

        print(f"report: {build(results, name)}")
    except (ImportError, BadInput, OSError) as error:
        print(f"report not drawn: {one_line(error)}; later: {SHELL}report {name}")


def _check(options: Options) -> None:
    for name, value, known in (
        ("--backend", options.backend, ("ray", "local")),
        ("--device", options.device, (None, "cpu", "cuda")),
        ("--rerun", options.rerun, (None, "failed", "all")),
        ("--keep-weights", options.keep_weights, (None, "none", "best")),
    ):
        if value not in known:
            words = " or ".join(k for k in known if k)
            raise BadInput(f"{name} {value}: must be {words}")
    if options.jobs is not None and not 0 <= options.jobs <= 1024:
        raise BadInput(f"--jobs {options.jobs}: must be 0 (in this process) to 1024")
    if options.backend == "ray" and options.jobs == 0:
        raise BadInput("--jobs 0: only --backend local runs trials in this process")
    if options.pack != "auto" and not (options.pack.isdecimal() and 0 < int(options.pack) <= MOST):
        raise BadInput(f"--pack {one_line(options.pack, 40)}: must be auto or 1 to {MOST}")
    if not 0 < options.cpus_per_trial <= 1024:
        raise BadInput(f"--cpus-per-trial {options.cpus_per_trial:g}: must be above 0")
    if options.gpus_per_trial is not None and not 0 <= options.gpus_per_trial <= 64:
        raise BadInput(f"--gpus-per-trial {options.gpus_per_trial:g}: must be 0 to 64")
    if not 0 <= options.max_retries <= 100:
        raise BadInput(f"--max-retries {options.max_retries}: must be 0 to 100")
    if options.backend == "local" and (options.gpus_per_trial or 0) > 1:
        raise BadInput("--gpus-per-trial: --backend local gives a trial one GPU at most")
    if options.address and options.backend == "local":
        raise BadInput("--address: only --backend ray joins a cluster")


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

    resources = ray_cluster.Resources(options.cpus_per_trial, gpus, slots)
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
