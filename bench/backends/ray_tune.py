"""Runs jobs through Ray Tune, on this machine or on a cluster. Tune is the scheduler only.

Our records are the truth: messages travel as Tune's reports and are written on the driver; Tune's
own folder is temporary and read by nobody.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Sequence
from typing import Any

from bench.backends.local import Deliver
from bench.backends.ray_cluster import Resources, at_a_time, cluster, temporary
from bench.errors import BadInput, one_line
from bench.pack import MOST
from bench.worker import Job, Message

WAVE, ROUNDS = 1000, 50
"""Trials that Tune is given at a time: it keeps what it knows of each until all have ended.

At the end of a wave devices wait for its last trials; on many devices a wave is longer, so that
each of them has some `ROUNDS` trials of it.
"""


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
    waiting = list(jobs)
    with cluster(address, resources, jobs[0]):
        while waiting:
            devices = at_a_time(resources)  # of a cluster that grows, more from wave to wave
            wave = waiting[: max(WAVE, ROUNDS * devices)]
            with temporary() as storage:
                started = _fit(_together(wave, devices), deliver, resources, storage)
            # What a process did not begin, given up after a failure, is for another.
            left = [job for job in wave if job.run_id not in started]
            if len(left) == len(wave):
                return
            waiting = left + waiting[len(wave) :]


def _together(jobs: Sequence[Job], devices: int) -> list[Sequence[Job]]:
    """Returns the jobs in lists, one for each of Tune's trials.

    Trials that run side by side come in lists several times as long, so that one that ends early
    makes room for another, but short enough that every device has a list.
    """
    pack = jobs[0].pack
    if pack == 1:
        size = 1
    else:
        size = max(1, min(4 * (pack or MOST), math.ceil(len(jobs) / devices)))
    return [jobs[first : first + size] for first in range(0, len(jobs), size)]


def _fit(
    lists: Sequence[Sequence[Job]], deliver: Deliver, resources: Resources, storage: str
) -> set[str]:
    """Runs lists of jobs, each in one process; returns the run_ids of those that were begun."""
    from ray import tune

    from bench.backends.ray_trial import Jobs, packed

    relay = _relay(deliver)
    tuner = tune.Tuner(
        tune.with_resources(Jobs, {"cpu": resources.cpus, "gpu": resources.gpus}),
        param_space={"jobs": tune.grid_search([packed(jobs) for jobs in lists])},
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
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
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
    started: set[str] = relay.started
    return started


def _name(trial: Any) -> str:
    from bench.backends.ray_trial import run_ids

    return run_ids(trial)[0]


def _relay(deliver: Deliver) -> Any:
    from ray import tune

    from bench.backends.ray_trial import run_ids

    class Relay(tune.Callback):  # type: ignore[misc]
        """Hands each message to the driver, in its own process."""

        def __init__(self, deliver: Deliver) -> None:
            self.deliver = deliver
            self.error: BaseException | None = None
            self.started: set[str] = set()

        def __getstate__(self) -> dict[str, Any]:
            return {}  # Tune saves its callbacks; ours holds open files, and nobody restores it

        def on_trial_result(
            self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any
        ) -> None:
            # Taken out: Tune keeps each trial's last result.
            self._deliver(result.pop("parcel", ()))

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            how = "its process or node vanished"
            begun = [run_id for run_id in run_ids(trial) if run_id in self.started]
            if not begun:  # it could not even start: some trial must tell
                begun = run_ids(trial)[:1]
                self.started.update(begun)
            self._deliver([{"run_id": run_id, "vanished": how} for run_id in begun])

        def _deliver(self, messages: Sequence[Message]) -> None:
            if self.error is not None:
                return
            try:
                for message in messages:
                    if "start" in message:
                        self.started.add(message["run_id"])
                    self.deliver(message)
            except BaseException as error:
                self.error = error
                raise

    return Relay(deliver)
