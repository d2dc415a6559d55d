"""What runs on a Ray worker: one of Tune's trials, which is a list of our jobs."""

from __future__ import annotations

import dataclasses
import json
import threading
from typing import Any

from ray import tune

from bench.backends.outbox import Outbox
from bench.worker import Job, Message, run_trials


class Jobs(tune.Trainable):  # type: ignore[misc]
    """Runs `jobs`, a JSON list, on a thread of its own; each step reports a parcel of messages."""

    def setup(self, config: dict[str, Any]) -> None:
        self.parcel: list[Message] = []
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        # The folder on the driver is not on this node: what was sent is.
        jobs = [Job(**job | {"plugins": None}) for job in json.loads(new_config["jobs"])]
        self.config: dict[str, Any] = {}  # Tune would send it back with each report
        self.outbox = Outbox()
        self.reusable = self.ended = False
        self.thread = threading.Thread(target=self._run, args=(jobs,), daemon=True)
        self.thread.start()
        return True

    def step(self) -> dict[str, Any]:
        self.parcel.clear()  # Tune keeps the last report, and weights may be in it
        if self.ended:
            # The records are sent. An error makes Tune give this process up instead of reusing it.
            raise RuntimeError("this process is given up")
        self.parcel, self.ended = self.outbox.take()
        if self.ended:
            self.thread.join()
        return {"parcel": self.parcel, "done": self.ended and self.reusable}

    def _run(self, jobs: list[Job]) -> None:
        try:
            self.reusable = run_trials(jobs, self.outbox.put)
        finally:
            self.outbox.end()


def packed(jobs: list[Job]) -> str:
    """Returns jobs that one process runs as the parameter of one of Tune's trials."""
    return json.dumps([dataclasses.asdict(job) for job in jobs])


def run_ids(trial: Any) -> list[str]:
    """Returns the run_ids of one of Tune's trials."""
    return [job["run_id"] for job in json.loads(trial.config["jobs"])]
