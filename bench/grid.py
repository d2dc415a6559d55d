"""`python -m bench.grid [PRESET | FILE.yaml]`: trains a grid and draws its report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def grid(
    preset: Annotated[
        str, typer.Argument(metavar="[PRESET | FILE.yaml]", help="What to train.")
    ] = "quick",
    dry_run: Annotated[bool, typer.Option(help="List the trials and start nothing.")] = False,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=V[,V…]", help="Change a field of every trial."),
    ] = None,
    reps: Annotated[int | None, typer.Option(help="Repetitions of every trial.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the changed grid.")] = None,
    results: Annotated[
        str, typer.Option(metavar="DIR|URL", help="Folder of the records, or a bucket's.")
    ] = "results",
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the corpora. [default: $BENCH_DATA or a cache]")
    ] = None,
    plugins: Annotated[
        Path | None, typer.Option(help="A further folder that holds cells/ and regularizers/.")
    ] = None,
    device: Annotated[str | None, typer.Option(metavar="cpu|cuda", help="Where to train.")] = None,
    backend: Annotated[
        str, typer.Option(metavar="ray|local", help="Ray Tune, or processes without Ray.")
    ] = "ray",
    jobs: Annotated[
        int | None,
        typer.Option(help="Trials at a time on this machine; with local, 0 is in this process."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="A Ray cluster: auto, local or HOST:PORT. [default: $RAY_ADDRESS]"),
    ] = None,
    cpus_per_trial: Annotated[float, typer.Option(help="CPUs a trial takes.")] = 1.0,
    gpus_per_trial: Annotated[
        float | None,
        typer.Option(help="GPUs a trial takes. [default: 1 on a cluster or where there is one]"),
    ] = None,
    device_class: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Kind of GPU that a node must have, in Ray's words: H100."
        ),
    ] = None,
    pack: Annotated[
        str,
        typer.Option(metavar="auto|N", help="Trials side by side in one process, on one device."),
    ] = "1",
    max_retries: Annotated[int, typer.Option(help="Further tries for lost and oom trials.")] = 3,
    checkpoint_every: Annotated[
        str, typer.Option(metavar="60s|2e|off", help="Seconds or epochs between checkpoints.")
    ] = "60s",
    storage: Annotated[
        str | None,
        typer.Option(metavar="DIR|URL", help="Where checkpoints go; every node must see it."),
    ] = None,
    trial_timeout: Annotated[
        float | None, typer.Option(help="Seconds that a trial may take.")
    ] = None,
    epoch_timeout: Annotated[
        float | None, typer.Option(help="Seconds that an epoch may take.")
    ] = None,
    memory_limit: Annotated[
        float | None, typer.Option(help="GB of memory that a trial's process may take.")
    ] = None,
    rerun: Annotated[
        str | None, typer.Option(metavar="failed|all", help="Run these recorded trials again, too.")
    ] = None,
    keep_weights: Annotated[
        str | None, typer.Option(metavar="none|best", help="Keep each trial's best weights.")
    ] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Draw the report.")] = True,
) -> int:
    """Train every trial of a grid that has no final record yet, then draw the report.

    Run the same command again after an interruption: what is recorded is not run again.
    """
    from bench.config import load_grid, override
    from bench.launch import launch
    from bench.options import Options

    options = Options(
        results=results,
        data_dir=data_dir,
        plugins=plugins,
        device=device,
        backend=backend,
        jobs=jobs,
        address=address,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=gpus_per_trial,
        pack=pack,
        max_retries=max_retries,
        rerun=rerun,
        keep_weights=keep_weights,
        report=report,
        dry_run=dry_run,
        device_class=device_class,
        storage=storage,
        checkpoint_every=checkpoint_every,
        trial_timeout=trial_timeout,
        epoch_timeout=epoch_timeout,
        memory_limit=memory_limit,
    )
    changed = override(load_grid(preset), sets or (), reps, name)
    return launch(changed, options, "grid", sys.argv[1:])


if __name__ == "__main__":
    from bench.__main__ import run

    run(app, name="python -m bench.grid")
