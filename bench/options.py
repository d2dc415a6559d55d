"""What the command line decides beside the trials themselves, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.checkpoint import parse_every
from bench.errors import BadInput, one_line
from bench.job import How
from bench.pack import MOST
from bench.storage import is_remote, open_storage


@dataclass(frozen=True)
class Options:
    """What the command line decides beside the trials themselves."""

    results: str
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
    storage: str | None = None
    checkpoint_every: str = "60s"
    trial_timeout: float | None = None
    epoch_timeout: float | None = None
    memory_limit: float | None = None
    device_class: str | None = None


def check(options: Options) -> None:
    """Raises BadInput for what cannot be meant."""
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
    pack = options.pack
    if pack != "auto" and not (pack.isdecimal() and len(pack) < 9 and 0 < int(pack) <= MOST):
        raise BadInput(f"--pack {one_line(options.pack, 40)}: must be auto or 1 to {MOST}")
    if not 0 < options.cpus_per_trial <= 1024:
        raise BadInput(f"--cpus-per-trial {options.cpus_per_trial:g}: must be above 0")
    if options.gpus_per_trial is not None and not 0 <= options.gpus_per_trial <= 64:
        raise BadInput(f"--gpus-per-trial {options.gpus_per_trial:g}: must be 0 to 64")
    if not 0 <= options.max_retries <= 100:
        raise BadInput(f"--max-retries {options.max_retries}: must be 0 to 100")
    if options.backend == "local" and (options.gpus_per_trial or 0) > 1:
        raise BadInput("--gpus-per-trial: --backend local gives a trial one GPU at most")
    if options.device_class is not None and options.backend == "local":
        raise BadInput("--device-class: only --backend ray chooses among nodes")
    if options.address and options.backend == "local":
        raise BadInput("--address: only --backend ray joins a cluster")
    parse_every(options.checkpoint_every)
    if options.storage is not None:
        try:
            open_storage(options.storage)
        except (BadInput, OSError) as error:
            raise BadInput(f"--storage {error}") from None
    for name, limit in (
        ("--trial-timeout", options.trial_timeout),
        ("--epoch-timeout", options.epoch_timeout),
        ("--memory-limit", options.memory_limit),
    ):
        if limit is not None and not 0 < limit < 1e9:
            raise BadInput(f"{name} {limit:g}: must be above 0")
        if limit is not None and options.jobs == 0:
            raise BadInput(f"{name}: --jobs 0 has no process that could be ended; use --jobs 1")


def how(options: Options, device: str, keep_weights: bool, checkpoints: str | None) -> How:
    """Returns how the trials are to be run."""
    return How(
        device=device,
        threads=max(1, int(options.cpus_per_trial)),
        keep_weights=keep_weights,
        pack=0 if options.pack == "auto" else int(options.pack),
        checkpoints=checkpoints,
        checkpoint_every=options.checkpoint_every,
        trial_timeout=options.trial_timeout,
        epoch_timeout=options.epoch_timeout,
        memory_limit=None if options.memory_limit is None else int(options.memory_limit * 1e9),
        own_clock=options.pack == "1",
    )


def checkpoints_at(options: Options, results: Path, address: str | None) -> str | None:
    """Returns where checkpoints go: a place that the driver and every worker see, or None."""
    if options.checkpoint_every == "off":
        return None
    if options.storage is not None:
        given = options.storage
        return given if is_remote(given) else str(Path(given).expanduser().resolve())
    if address is None:
        return str(results.resolve())
    # Nodes of a cluster share no folder that we know of.
    return options.results if is_remote(options.results) else None
