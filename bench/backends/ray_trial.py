"""What runs on a Ray worker: one of Tune's trials, which is a list of our jobs."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
import traceback
from collections.abc import Sequence
from typing import Any

import ray
from ray import tune

from bench.backends.outbox import Outbox
from bench.backends.pool import Pool
from bench.job import Job


class Bell:
    """An actor that all workers listen to: it rings when trials are to stop."""

    def __init__(self) -> None:
        import asyncio

        self.rung = asyncio.Event()

    async def wait(self) -> None:
        """Returns when it rings."""
        await self.rung.wait()

    async def ring(self) -> None:
        """Lets all `wait` return, also those to come."""
        self.rung.set()


class Jobs(tune.Trainable):  # type: ignore[misc]
    """Runs `jobs`, a JSON list, in a process of their own; each step reports a parcel of messages.

    A trial that breaks its process does not break this one, which Tune uses for the next list.
    """

    def setup(self, config: dict[str, Any], bell: Any = None) -> None:
        self.parcel: list[Any] = []
        self.pool = Pool(1)
        self.stopping = threading.Event()
        if bell is not None:
            threading.Thread(target=self._listen, args=(bell,), daemon=True).start()
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        # The folder on the driver is not on this node: what was sent is.
        jobs = [Job(**job | {"plugins": None}) for job in json.loads(new_config["jobs"])]
        self.config: dict[str, Any] = {}  # Tune would send it back with each report
        self.outbox = Outbox()
        self.thread = threading.Thread(target=self._run, args=(jobs,), daemon=True)
        self.thread.start()
        return True

    def step(self) -> dict[str, Any]:
        self.parcel.clear()  # Tune keeps the last report, and weights may be in it
        self.parcel, ended = self.outbox.take()
        if ended:
            self.thread.join()
        return {"parcel": self.parcel, "done": ended}

    def cleanup(self) -> None:
        self.pool.close()

    def _run(self, jobs: list[Job]) -> None:
        try:
            self.pool.run(jobs, self.outbox.put, self.stopping.is_set)
        except BaseException:  # nothing of a trial comes here: the machine is at its end
            for job in jobs:
                self.outbox.put({"run_id": job.run_id, "vanished": traceback.format_exc()})
            raise
        finally:
            self.outbox.end()

    def _listen(self, bell: Any) -> None:
        while True:
            try:
                ray.get(bell.wait.remote())
                break
            except ray.exceptions.ActorUnavailableError:
                time.sleep(1)
            except ray.exceptions.RayError:  # the driver is gone, and the bell with it
                break
        self.stopping.set()


def packed(jobs: Sequence[Job]) -> str:
    """Returns jobs that one process runs as the parameter of one of Tune's trials."""
    return json.dumps([dataclasses.asdict(job) for job in jobs])


def run_ids(trial: Any) -> list[str]:
    """Returns the run_ids of one of Tune's trials."""
    return [job["run_id"] for job in json.loads(trial.config["jobs"])]
