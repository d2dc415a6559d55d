"""Runs jobs through Ray Tune, on this machine or on a cluster. Tune is the scheduler only.

Our records are the truth: messages travel as Tune's reports and are written on the driver; Tune's
own folder is temporary and read by nobody.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import bench
from bench.backends.local import Deliver, thread_limits
from bench.errors import BadInput, one_line
from bench.plugins import FOLDER, ship, tree
from bench.worker import Job, Message, run_trials

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10
_QUIET = {
    "GCS_SERVER_REQUEST_TIMEOUT_SECONDS": str(CONNECT_SECONDS),
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "1000000",
}
# Tune trains in a thread, and glibc gives a thread a heap of its own that large tensors tear to
# pieces: processes of 0.6 GB grew to 3.4 GB on Penn Treebank.
_ONE_HEAP = {"MALLOC_ARENA_MAX": "1"}


@dataclasses.dataclass(frozen=True)
class Resources:
    """What a trial takes of a node; `slots` limits a private local cluster (None: all CPUs)."""

    cpus: float
    gpus: float
    slots: int | None = None


def run(
    jobs: Sequence[Job],
    deliver: Deliver,
    *,
    resources: Resources,
    address: str | None,
) -> None:
    """Runs the jobs and delivers their messages.

    `address` None starts a private cluster on this machine, anything else is joined. A job whose
    actor or node vanished delivers no record. Raises BadInput when no cluster can be joined.
    """
    with _cluster(address, resources, jobs[0]), _temporary() as storage:
        from ray import tune

        relay = _relay(deliver)
        tuner = tune.Tuner(
            tune.with_resources(_train, {"cpu": resources.cpus, "gpu": resources.gpus}),
            param_space={
                "job": tune.grid_search([json.dumps(dataclasses.asdict(job)) for job in jobs])
            },
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                trial_name_creator=_name,
                trial_dirname_creator=_name,
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=storage,
                callbacks=[relay],
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),
            ),
        )
        try:
            tuner.fit()
        except Exception as error:
            # Tune wraps what our callback raised (a full disk, say) into an error of its own.
            if relay.error is not None:
                raise relay.error from None
            raise BadInput(
                f"Ray failed: {one_line(error, 200)}; what is recorded is kept, and the same "
                "command goes on",
                detail=traceback.format_exc(),
            ) from None


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
    if "//" in address or not colon or not port.isdigit() or not 0 < int(port) < 65536:
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
def _cluster(address: str | None, resources: Resources, job: Job) -> Iterator[None]:
    os.environ.update(_QUIET)
    if address is not None:
        address = check_address(address)
    import ray

    _quieten()
    options: dict[str, Any] = {
        "logging_level": logging.CRITICAL,
        "log_to_driver": False,
        "configure_logging": False,
    }
    with _shipped(job.plugins) as module, contextlib.ExitStack() as stack:
        options["runtime_env"] = {
            "py_modules": [module],
            "env_vars": thread_limits(job.threads) | _QUIET | _ONE_HEAP,
        }
        # Ray puts the folder that ray.init is called in before all else on its workers' sys.path.
        # There it must find what was sent, not a checkout that happens to be on that machine.
        stack.enter_context(contextlib.chdir(Path(module).parent))
        if address is None:
            # Never attach to a cluster that happens to run here: the address is always stated.
            slots = resources.slots or max(1, int((os.cpu_count() or 1) / resources.cpus))
            ray.init(
                address="local",
                num_cpus=max(1, round(slots * resources.cpus)),
                include_dashboard=False,
                **options,
            )
        else:
            try:
                ray.init(address=address, **options)
            except Exception as error:
                raise BadInput(
                    f"--address {address}: {one_line(error, 200)}; a driver joins a cluster from "
                    "one of its own machines: run the command there"
                ) from None
            if resources.gpus and not ray.cluster_resources().get("GPU"):
                print("no node has a GPU yet: trials wait for one (--device cpu needs none)")
        stack.close()
        try:
            yield
        finally:
            ray.shutdown()


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
def _shipped(plugins: str | None) -> Iterator[str]:
    """Yields a copy of the package with all plugins inside, to be sent to every worker.

    Those of installed packages are files as well, so a node need not have the package.
    """
    with _temporary() as folder:
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
def _temporary() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="bench-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _name(trial: Any) -> str:
    name: str = json.loads(trial.config["job"])["run_id"]
    return name


def _train(config: dict[str, Any]) -> None:
    """Runs on the worker: one job, its messages as reports."""
    from ray import tune

    def report(message: Message) -> None:
        # Weights travel in a report of their own before the record's: Tune keeps the last one.
        weights = message.pop("weights", None)
        if weights is not None:
            tune.report({"message": {"run_id": message["run_id"], "weights": weights}})
        tune.report({"message": message})

    job = Job(**json.loads(config["job"]))
    # The folder on the driver is not on this node: what was sent is.
    job = dataclasses.replace(job, plugins=None)
    if not run_trials([job], report):
        # The record is sent. An error makes Tune give this process up instead of reusing it.
        raise RuntimeError("this process is given up")


def _relay(deliver: Deliver) -> Any:
    from ray import tune

    class Relay(tune.Callback):  # type: ignore[misc]
        """Hands each message to the driver, in its own process."""

        def __init__(self, deliver: Deliver) -> None:
            self.deliver = deliver
            self.error: BaseException | None = None

        def __getstate__(self) -> dict[str, Any]:
            return {}  # Tune saves its callbacks; ours holds open files, and nobody restores it

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            if self.error is None:
                self.deliver({"run_id": _name(trial), "vanished": "its process or node vanished"})

        def on_trial_result(
            self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any
        ) -> None:
            if self.error is not None or "message" not in result:
                return
            try:
                self.deliver(dict(result["message"]))
            except BaseException as error:
                self.error = error
                raise

    return Relay(deliver)
