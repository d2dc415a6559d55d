"""Do all nodes of a cluster see one storage? Asked of each before the first trial."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from bench.backends.pool import Stopping
from bench.errors import one_line
from bench.storage import check_answers, identity, open_storage, probe, probe_from_node

_SECONDS = 30


def check_storage(location: str, cpus: float, stopping: Stopping) -> str:
    """Returns a storage's identity; BadInput unless each node there writes what we read.

    Nodes with fewer than `cpus` CPUs run no trials and are not asked. Raises KeyboardInterrupt once
    `stopping` says so.
    """
    storage = open_storage(location)
    token = probe(storage)
    answers, ids = {}, {}
    for node in ray.nodes():
        if node["Alive"] and node["Resources"].get("CPU", 0) >= cpus:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ask = ray.remote(num_cpus=0, scheduling_strategy=there)(probe_from_node)
            name = f"{node['NodeManagerHostname']} {node['NodeManagerAddress']}"
            name = f"{name} {node['NodeID'][:8]}"
            answers[name] = ask.remote(location, token, name)
            ids[name] = node["NodeID"]
    pending, end = list(answers.values()), time.monotonic() + _SECONDS
    while pending and time.monotonic() < end:
        _, pending = ray.wait(pending, num_returns=len(pending), timeout=0.5)
        if stopping():
            raise KeyboardInterrupt
    said = {name: _answer(answer) for name, answer in answers.items()}
    alive = {node["NodeID"] for node in ray.nodes() if node["Alive"]}  # one may have died meanwhile
    check_answers(storage, token, {n: words for n, words in said.items() if ids[n] in alive})
    return identity(storage)


def _answer(said: Any) -> str:
    try:
        answer: str = ray.get(said, timeout=0.1)
    except ray.exceptions.RayError as error:
        return f"no answer within {_SECONDS} s: {one_line(error, 100)}"
    return answer
