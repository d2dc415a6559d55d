"""What runs on a Ray worker: one of Tune's trials, which is a list of our jobs."""

from __future__ import annotations

import dataclasses
import json
import threading
import traceback
from collections.abc import Sequence
from typing import Any

from ray import tune

from bench.backends.outbox import Outbox
from bench.worker import ERROR_CHARS, Job, Message, run_trials


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
        under_way: dict[str, None] = {}

        def report(message: Message) -> None:
            if "start" in message:
                under_way[message["run_id"]] = None
            if "record" in message:
                under_way.pop(message["run_id"], None)
            self.outbox.put(message)

        how = "the device stopped working under several trials"
        try:
            self.reusable = run_trials(jobs, report, jobs[0].pack)
        except BaseException:  # a KeyboardInterrupt that a plugin raised ends those beside it too
            text = traceback.format_exc().encode("utf-8", "backslashreplace").decode()
            how = text[-ERROR_CHARS:]
            if not under_way:
                under_way[jobs[0].run_id] = None  # none has begun: one must tell why
        finally:
            for run_id in under_way:
                self.outbox.put({"run_id": run_id, "vanished": how})
            self.outbox.end()


def packed(jobs: Sequence[Job]) -> str:
    """Returns jobs that one process runs as the parameter of one of Tune's trials."""
    return json.dumps([dataclasses.asdict(job) for job in jobs])


def run_ids(trial: Any) -> list[str]:
    """Returns the run_ids of one of Tune's trials."""
    return [job["run_id"] for job in json.loads(trial.config["jobs"])]
