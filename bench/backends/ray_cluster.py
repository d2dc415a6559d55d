"""Joins a Ray cluster or starts a private one, with our code on its workers' path."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench
from bench.backends.pool import Stopping, thread_limits
from bench.errors import BadInput, nearest, one_line
from bench.job import Job
from bench.plugins import FOLDER, ship, tree
from bench.stop import kept

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10
_TYPE = "accelerator_type:"
_QUIET = {
    "GCS_SERVER_REQUEST_TIMEOUT_SECONDS": str(CONNECT_SECONDS),
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # nobody restores Tune's own state
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000",
}


# Ray's own watch over memory ends all workers for one greedy trial; the kernel ends that one alone.
_OWN = {"RAY_memory_monitor_refresh_ms": "0"}


@dataclasses.dataclass(frozen=True)
class Resources:
    """What a trial takes of a node; `slots` limits a private local cluster (None: all CPUs).

    `device_class`: the type of accelerator, as Ray names it, that a node must have.
    """

    cpus: float
    gpus: float
    slots: int | None = None
    device_class: str | None = None

    def of_a_trial(self) -> dict[str, float]:
        """Returns what Ray is asked for."""
        asked = {"cpu": self.cpus, "gpu": self.gpus}
        if self.device_class is not None:
            asked[f"{_TYPE}{self.device_class}"] = 0.001  # a mark of the node's, not a share of it
        return asked


def check_address(address: str) -> str:
    """Returns the HOST:PORT of a cluster that answers within 10 s; raises BadInput."""
    if address == "auto":
        from ray._private.services import canonicalize_bootstrap_address

        try:
            found = canonicalize_bootstrap_address("auto")
        except Exception as error:
            raise BadInput(f"--address auto: {one_line(error, 200)}") from None
        if found is None:
            raise BadInput(
                "--address auto: no Ray cluster runs here; start one with `ray start --head`, "
                "or leave the option out for a private one"
            )
        address = found
    host, colon, port = address.rpartition(":")
    if (
        "//" in address
        or not colon
        or not re.fullmatch("[0-9]{1,5}", port)
        or not 0 < int(port) < 65536
    ):
        raise BadInput(f"--address {one_line(address, 80)}: write auto, local or HOST:PORT")
    hint = "is the cluster up, and the port that of `ray start` (6379)?"
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, UnicodeError) as error:  # UnicodeError: no host can be called so
        raise BadInput(f"--address {address}: nothing answers there ({error}); {hint}") from None
    # Ray aborts the process when what answers is no Ray, so another process asks.
    ask = f"from ray._raylet import GcsClient; GcsClient(address={address!r}).get_all_node_info()"
    try:
        done = subprocess.run(
            [sys.executable, "-c", ask], timeout=CONNECT_SECONDS, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired:
        raise BadInput(
            f"--address {address}: no Ray cluster answered within {CONNECT_SECONDS} s; {hint}"
        ) from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BadInput(f"--address {address}: no Ray cluster: {one_line(last, 160)}; {hint}")
    return address


def running_here() -> str | None:
    """Returns the address of a Ray cluster that `ray start` began on this machine, if one runs."""
    with contextlib.suppress(OSError, ValueError):  # no such file, or nobody there any more
        address = Path("/tmp/ray/ray_current_cluster").read_text().strip()
        host, _, port = address.rpartition(":")
        socket.create_connection((host, int(port)), timeout=1).close()
        return address
    return None


@contextlib.contextmanager
def cluster(
    address: str | None, resources: Resources, job: Job, stopping: Stopping = lambda: False
) -> Iterator[str | None]:
    """Joins the cluster at `address`, or starts a private one on this machine for None.

    Its workers find our code, as it is now, before all else. Yields the identity of the storage
    that its nodes share, if one is given. Raises BadInput when no cluster can be joined, and
    KeyboardInterrupt once `stopping` says so while nodes are asked.
    """
    os.environ.update(_QUIET)
    if address is None:
        os.environ.update(_OWN)
    else:
        address = check_address(address)
    import ray

    _quieten()
    runtime_env: dict[str, Any] = {"env_vars": thread_limits(job.threads) | _QUIET}
    options: dict[str, Any] = {
        "logging_level": logging.CRITICAL,
        "log_to_driver": False,
        "configure_logging": False,
        "runtime_env": runtime_env,
    }
    with shipped(job.plugins) as module:
        # Ray puts the folder that ray.init is called in before all else on its workers' sys.path.
        # There it must find what was sent, not a checkout that happens to be on that machine.
        with contextlib.chdir(Path(module).parent), _kept():
            if address is None:
                # Never attach to a cluster that happens to run here: the address is always stated.
                slots = resources.slots or max(1, int((os.cpu_count() or 1) / resources.cpus))
                cpus = max(1, round(slots * resources.cpus))
                ray.init(address="local", num_cpus=cpus, include_dashboard=False, **options)
                _shut_token()
            else:
                runtime_env["py_modules"] = [module]  # this machine's have it where we are
                _join(address, options)
        try:
            shared = None
            if address is not None:
                _look_around(resources)
                if job.checkpoints is not None:
                    from bench.backends.ray_storage import check_storage

                    shared = check_storage(job.checkpoints, resources.cpus, stopping)
            yield shared
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself, and ends the process on one while it starts."""
    with kept():
        try:
            yield
        except SystemExit:
            raise KeyboardInterrupt from None


def at_a_time(resources: Resources) -> int:
    """Returns how many trials the cluster can run side by side, as it is now; at least one."""
    import ray

    there = ray.cluster_resources()
    wanted = {"CPU": resources.cpus, "GPU": resources.gpus}
    return max(1, min(int(there.get(kind, 0) / share) for kind, share in wanted.items() if share))


def _shut_token() -> None:
    """Takes the token that Ray makes for a private cluster from the other users of the machine."""
    with contextlib.suppress(OSError):
        token = Path.home() / ".ray" / "auth_token"
        if token.stat().st_mode & 0o077:
            token.chmod(0o600)


def _look_around(resources: Resources) -> None:
    """Says what trials will wait for; BadInput for a device class that no node has."""
    import ray

    there = ray.cluster_resources()
    if resources.gpus and not there.get("GPU"):
        print("no node has a GPU yet: trials wait for one (--device cpu needs none)", flush=True)
    wanted = resources.device_class
    known = sorted(name.removeprefix(_TYPE) for name in there if name.startswith(_TYPE))
    if wanted is not None and wanted not in known:
        if known:
            raise BadInput(f"--device-class {wanted}: no node has it. {nearest(wanted, known)}")
        print(f"no node has a {wanted} yet: trials wait for one", flush=True)


def _join(address: str, options: dict[str, Any]) -> None:
    import ray

    try:
        ray.init(address=address, **options)
    except Exception as error:
        raise BadInput(
            f"--address {address}: {one_line(error, 200)}; a driver joins a cluster from one of "
            "its own machines: run the command there"
        ) from None


def _quieten() -> None:
    from ray._private import worker

    for name in ("ray", "ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    def to_log(data: dict[str, Any], ignore_prefix: bool) -> None:
        for text in data.get("lines", []):
            log.warning("ray: %s", one_line(text, 500))

    # Ray prints the cluster's own errors (a node that died) from a thread, and has no switch for
    # it. They belong into the log: what they cost is seen by the trials that are lost.
    worker.print_to_stdstream = to_log


@contextlib.contextmanager
def shipped(plugins: str | None) -> Iterator[str]:
    """Yields a copy of the package with all plugins inside, to be sent to every worker.

    Those of installed packages are files as well, so a node need not have the package.
    """
    with temporary() as folder:
        module = Path(folder) / "bench"
        ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(Path(bench.__file__).resolve().parent, module, ignore=ignore)
        sources = [(tree(), module / "_shipped")]
        if plugins is not None:
            sources.append((Path(plugins), module / "_shipped" / "extra"))
        for source, target in sources:
            for name in FOLDER.values():
                if (source / name).is_dir():
                    shutil.copytree(source / name, target / name, ignore=ignore)
        ship(module / "_shipped" / "installed")
        yield str(module)


@contextlib.contextmanager
def temporary() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="bench-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
