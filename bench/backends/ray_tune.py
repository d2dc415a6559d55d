"""Runs jobs through Ray Tune, on this machine or on a cluster. Tune is the scheduler only.

Our records are the truth: messages travel as Tune's reports and are written on the driver; Tune's
own folder is temporary and read by nobody.
"""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bench.backends.child import GRACE
from bench.backends.pool import Deliver, Stopping
from bench.backends.ray_cluster import Resources, at_a_time, cluster, temporary
from bench.errors import BadInput, one_line
from bench.job import Job, Message
from bench.pack import MOST

_ON_ITS_WAY = 0.5
"""Seconds that the last word of a trial takes to the driver."""
WAVE, ROUNDS = 1000, 50
"""Trials that Tune is given at a time: it keeps what it knows of each until all have ended.

At the end of a wave devices wait for its last trials; on many devices a wave is longer, so that
each of them has some `ROUNDS` trials of it.
"""


def run(
    jobs: Sequence[Job],
    deliver: Deliver,
    stopping: Stopping = lambda: False,
    *,
    resources: Resources,
    address: str | None,
) -> None:
    """Runs the jobs and delivers their messages.

    `address` None starts a private cluster on this machine, anything else is joined. A job whose
    actor or node vanished delivers no record. Once `stopping` says so, trials write where they
    stand and the rest is not begun. Raises BadInput when no cluster can be joined.
    """
    with cluster(address, resources, jobs[0], stopping) as shared:
        waiting = [replace(job, storage_id=shared) for job in jobs]
        while waiting and not stopping():
            devices = at_a_time(resources)  # of a cluster that grows, more from wave to wave
            wave = waiting[: max(WAVE, ROUNDS * devices)]
            with temporary() as storage:
                relay = _relay(deliver, stopping)
                _fit(_together(wave, devices), relay, resources, storage)
                started = relay.started
            # What was not begun, for its node vanished first, is for another.
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


def _fit(lists: Sequence[Sequence[Job]], relay: Any, resources: Resources, storage: str) -> None:
    """Runs lists of jobs, each in one process, until all have ended or are to stop."""
    from ray import tune

    from bench.backends.ray_trial import Jobs, packed

    listening = tune.with_parameters(Jobs, bell=relay.bell)
    tuner = tune.Tuner(
        tune.with_resources(listening, resources.of_a_trial()),
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
        if relay.stopped or relay.stopping():  # a SIGTERM to all ends Ray as well
            return
        if relay.ended.issuperset(job.run_id for jobs in lists for job in jobs):
            return  # somebody deleted Tune's own files, which it reads at its end
        if relay.error is not None:
            raise relay.error from None
        raise BadInput(
            f"Ray failed: {one_line(error, 200)}; what is recorded is kept, and the same "
            "command goes on",
            detail=traceback.format_exc(),
        ) from None


def _name(trial: Any) -> str:
    from bench.backends.ray_trial import run_ids

    return run_ids(trial)[0]


class _Stopped(Exception):
    """Ends Tune's loop: all trials under way have stopped, or had their time to."""


def _relay(deliver: Deliver, stopping: Stopping) -> Any:
    import ray
    from ray import tune
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from bench.backends.ray_trial import Bell, run_ids

    class Relay(tune.Callback):  # type: ignore[misc]
        """Hands each message to the driver, in its own process, and says when to stop."""

        def __init__(self, deliver: Deliver, stopping: Stopping) -> None:
            self.deliver, self.stopping = deliver, stopping
            # Here: a bell on a node of theirs would end all trials with that node.
            node = ray.get_runtime_context().get_node_id()
            here = NodeAffinitySchedulingStrategy(node, soft=False)
            always = {"max_restarts": -1, "max_task_retries": -1, "max_concurrency": 100_000}
            bell = ray.remote(num_cpus=0, scheduling_strategy=here, **always)(Bell)
            self.bell = bell.remote()
            self.error: BaseException | None = None
            self.started: set[str] = set()
            self.under_way: set[str] = set()
            self.ended: set[str] = set()
            self.end: float | None = None
            self.stopped = False

        def __getstate__(self) -> dict[str, Any]:
            return {}  # Tune saves its callbacks; ours holds open files, and nobody restores it

        def on_step_begin(self, iteration: int, trials: Any, **_: Any) -> None:
            if self.end is None and self.stopping():
                self.end = time.monotonic() + GRACE + _ON_ITS_WAY
            if self.end is not None:
                self.bell.ring.remote()  # again and again: one that was killed knows nothing
            if self.end is not None and (not self.under_way or time.monotonic() > self.end):
                self.stopped = True
                raise _Stopped

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
                        self.under_way.add(message["run_id"])
                    if "record" in message or "vanished" in message:
                        self.under_way.discard(message["run_id"])
                        self.ended.add(message["run_id"])
                    self.deliver(message)
            except BaseException as error:
                self.error = error
                raise

    # Given, not closed over: Tune pickles the class with all that its methods see.
    return Relay(deliver, stopping)
