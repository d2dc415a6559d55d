"""What is killed, when, and what the drivers must make of it."""

from __future__ import annotations

import argparse
import contextlib
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable

import psutil

from benchmarks.drills import nodes
from benchmarks.drills.drivers import STOP_SECONDS, WAITING, Begin, Driver
from benchmarks.drills.kills import extras_of, plan_of
from benchmarks.drills.nodes import Cluster

_STOPS = (signal.SIGTERM, signal.SIGINT)
_PAUSE_SECONDS = 10
_BESIDE_SECONDS = 60
_HEAD_GONE_SECONDS = 60
_END_SECONDS = 600
_STUCK_SECONDS = 300
_LOOK = 0.1
_PATIENCE = 10
"""Seconds after a kill that the next one of the plan is waited for: no trial may run just now."""
_FAILED_WORDS = ("Traceback", "(raylet", "Fatal Python error")


class Storm:
    """Kills until there were enough kills, keeping a driver and the cluster at work."""

    def __init__(
        self,
        cluster: Cluster,
        begin: Begin,
        recorded: Callable[[], int],
        options: argparse.Namespace,
        s3: subprocess.Popen[str] | None,
    ) -> None:
        self.cluster, self.begin, self.recorded, self.s3 = cluster, begin, recorded, s3
        self.draws = random.Random(options.seed)
        self.pause = options.seconds_between
        self.trials: int = options.trials
        self.kills = plan_of(options, self.draws)
        self.extras = extras_of(options, s3 is not None)
        self.drivers: list[Driver] = []
        self.done: Counter[str] = Counter()
        self.violations: list[str] = []
        self.waited = 0
        self.struck = self.longest_stop = 0.0
        self.ended = False  # whether a driver has said that the grid is done

    # --- the loop ---------------------------------------------------------------------------------

    def rage(self) -> None:
        """Kills as planned."""
        self.drivers.append(self.begin())
        self.struck = time.monotonic()
        while not self.recorded() and not self._stuck():
            self._tend()
            time.sleep(_LOOK)
        planned, next_kill = len(self.kills), 0.0
        while self.kills and not self._stuck():
            time.sleep(_LOOK)
            self._tend()
            if any(driver.beside or driver.told for driver in self.drivers):
                continue  # how they wait, or end, is to be seen
            behind = self._share() > (planned - len(self.kills) + 1) / (planned + 2)
            if (time.monotonic() >= next_kill or behind) and (kind := self._strike()):
                print(f"{self._share():4.0%} of the trials recorded: {kind}", flush=True)
                next_kill = time.monotonic() + self.pause * self.draws.uniform(0.5, 1.5)
        if self.kills and self.ended:
            self.violations.append(f"the grid ended {len(self.kills)} kills too early: --trials")

    def _stuck(self) -> bool:
        """Whether there is nothing more to kill; says so where there should be."""
        if time.monotonic() - self.struck > _STUCK_SECONDS:
            self.violations.append(f"no trial ran for {_STUCK_SECONDS} s")
            return True
        return self.ended

    def end_in_peace(self) -> None:
        """Lets the same command end the grid."""
        end = time.monotonic() + _END_SECONDS
        while self.drivers or not self.ended:
            self._tend()
            if time.monotonic() > end:
                lasts = [driver.last() for driver in self.drivers]
                self.violations.append(f"not ended within {_END_SECONDS} s: {lasts}")
                return
            time.sleep(_LOOK)

    def _tend(self) -> None:
        """Brings nodes and drivers back, and judges those that ended."""
        self.cluster.tend()
        for driver in list(self.drivers):
            if driver.beside and not self._judge_beside(driver):
                driver.beside = False
            if not driver.alive():
                self.drivers.remove(driver)
                self._judge(driver)
            elif driver.expected == "stopped":
                self._judge_time(driver)
        if not self.drivers and not self.ended:
            self.drivers.append(self.begin())

    def _share(self) -> float:
        """Returns which share of the trials has a record."""
        return self.recorded() / self.trials

    # --- how drivers end --------------------------------------------------------------------------

    def _judge(self, driver: Driver) -> None:
        code = driver.process.returncode
        self.violations += [
            f"{driver.log.name}: {word}: {driver.last()}"
            for word in _FAILED_WORDS
            if word in driver.text()
        ]
        if driver.expected == "stopped":
            took = time.monotonic() - driver.told
            self.longest_stop = max(self.longest_stop, took)
            self.violations += driver.stopped_badly(self.begin.command)
        elif driver.expected == "" and code not in (0, 1):
            self.violations.append(f"{driver.log.name} ended with {code}: {driver.last()}")
        elif driver.expected == "headless":
            self.done[f"headless {code}"] += 1
        if code == 0:
            self.ended = True

    def _judge_time(self, driver: Driver) -> None:
        if time.monotonic() - driver.told > STOP_SECONDS:
            self.violations.append(
                f"{driver.log.name}: told to stop {STOP_SECONDS} s ago, and runs"
            )
            driver.kill()

    def _judge_beside(self, driver: Driver) -> bool:
        """Returns whether it still has to say that it waits."""
        text = driver.text()
        if WAITING in text:
            self.waited += 1
            return False
        others = [one for one in self.drivers if one is not driver and one.alive()]
        if not others or not driver.alive():
            return False
        if driver.progresses() or time.monotonic() - driver.since > _BESIDE_SECONDS:
            self.violations.append(f"{driver.log.name}: did not wait for another driver")
            return False
        return True

    # --- kills ------------------------------------------------------------------------------------

    def _strike(self) -> str | None:
        """Does the next thing of the plan that can be done now; returns what."""
        due = [kind for at, kind in self.extras if at >= len(self.kills)]
        for kind in due:
            if self._do(kind):
                self.extras.remove(next(one for one in self.extras if one[1] == kind))
                return kind
        patient = time.monotonic() - self.struck < _PATIENCE
        for kind in dict.fromkeys(self.kills[:1] if patient else self.kills):
            if self._do(kind):
                self.kills.remove(kind)
                self.struck = time.monotonic()
                return kind
        return None

    def _do(self, kind: str) -> bool:
        ways: dict[str, Callable[[], bool]] = {
            "child": lambda: self._one_of(nodes.trainers(self.cluster.workers)),
            "actor": lambda: self._one_of(nodes.actors(self.cluster.workers, "Trainable")),
            "bell": lambda: self._one_of(nodes.actors(self._nodes(), "Bell")),
            "raylet": self._raylet,
            "node": self._node,
            "driver": self._driver,
            "head": self._head,
            "stop": self._stop,
            "beside": self._beside,
            "pause": self._still,
        }
        done = ways[kind]()
        self.done[kind] += done
        return done

    def _nodes(self) -> list[nodes.Node]:
        return [*self.cluster.workers, *([self.cluster.head] if self.cluster.head else [])]

    def _one_of(self, processes: list[psutil.Process]) -> bool:
        if not processes:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            self.draws.choice(processes).kill()
            return True
        return False

    def _worker(self) -> nodes.Node | None:
        there = [node for node in self.cluster.workers if node.up()]
        if not there or not self._working():
            return None
        self.cluster.not_before = time.monotonic() + self.draws.uniform(0.5, 3)
        return self.draws.choice(there)

    def _raylet(self) -> bool:
        node = self._worker()
        return node is not None and self._one_of(nodes.raylet(node))

    def _node(self) -> bool:
        if node := self._worker():
            node.end()
        return node is not None

    def _driver(self) -> bool:
        """Any driver; every second time at any moment of its life, in its start as well."""
        there = self._working() if self.done["driver"] % 2 else self.drivers
        there = [one for one in there if one.alive() and not one.expected]
        if there:
            self.draws.choice(there).kill()
        return bool(there)

    def _head(self) -> bool:
        """The head's server or all of its node; drivers must end, and all is begun anew."""
        head = self.cluster.head
        if head is None or not self._working():
            return False
        if self.draws.random() < 0.5:
            nodes.kill(nodes.gcs(head))
        else:
            head.end()
        end = time.monotonic() + _HEAD_GONE_SECONDS
        for driver in self.drivers:
            driver.expected = driver.expected or "headless"
        while any(one.alive() for one in self.drivers) and time.monotonic() < end:
            time.sleep(0.1)
        for driver in self.drivers:
            if driver.alive():
                self.violations.append(f"{driver.log.name}: runs on without a head")
                driver.kill()
        self.cluster.end()
        self.cluster.start_head()
        return True

    def _working(self) -> list[Driver]:
        """Returns the drivers that trials have ended under."""
        return [one for one in self.drivers if one.alive() and one.progresses()]

    def _stop(self) -> bool:
        there = [one for one in self._working() if not one.expected]
        if there and len(self.drivers) == 1:
            there[0].stop(_STOPS[self.done["stop"] % 2])
            return True
        return False

    def _beside(self) -> bool:
        if len(self.drivers) != 1 or not self._working() or self.drivers[0].expected:
            return False
        self.drivers.append(self.begin(beside=True))
        return True

    def _still(self) -> bool:
        assert self.s3 is not None
        if not self._working():
            return False
        self.s3.send_signal(signal.SIGSTOP)
        time.sleep(_PAUSE_SECONDS)
        self.s3.send_signal(signal.SIGCONT)
        return True
