"""Which kills a storm holds, and what is done beside them."""

from __future__ import annotations

import argparse
import random

KINDS: dict[str, tuple[int, str]] = {
    "child": (8, "a process that trains"),
    "actor": (3, "a Ray actor that runs trials"),
    "bell": (1, "the Ray actor that tells them to stop"),
    "raylet": (2, "a raylet"),
    "node": (2, "all of a node"),
    "driver": (3, "a driver"),
    "head": (1, "the head, with that all of Ray"),
}
"""Weight and words of each kind of kill."""
QUICK = ("child", "actor", "child", "driver")


def plan_of(options: argparse.Namespace, draws: random.Random) -> list[str]:
    """Returns the kinds of kills, in the order in which they are tried."""
    if options.quick:
        return list(QUICK)
    plan: list[str] = []
    while len(plan) < options.kills:
        block = [kind for kind, (weight, _) in KINDS.items() for _ in range(weight)]
        draws.shuffle(block)
        plan += block
    return plan[: options.kills]


def extras_of(options: argparse.Namespace, s3: bool) -> list[tuple[int, str]]:
    """Returns what is done beside kills: at how many kills before the last, and what."""
    if options.quick:
        return []
    kinds = ["beside", "stop", "stop", *(["pause"] if s3 else []), "beside", "stop", "stop"]
    each = options.kills / (len(kinds) + 1)
    return [(round(options.kills - each * (n + 1)), kind) for n, kind in enumerate(kinds)]
