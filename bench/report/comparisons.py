"""Which repetitions of two settings may be compared, and their paired differences."""

from __future__ import annotations

from dataclasses import dataclass

from bench.report import environment
from bench.report.entries import BASELINE, Row, Setting
from bench.stats import Estimate, paired


@dataclass(frozen=True)
class Pairs:
    """Repetitions that both settings have, both records of one environment.

    `across` counts those left out, whose two records differ in environment. `told` is empty, or
    says why even the others, each within an environment, are not averaged: then `reps` is empty.
    """

    reps: frozenset[int]
    across: int = 0
    told: str = ""


def pairs(setting: Setting, base: Setting) -> Pairs:
    """Returns the complete pairs of a setting and its baseline that may be averaged."""
    ours, theirs = setting.environments, base.environments
    reps = frozenset(ours.keys() & theirs.keys())
    if not environment.differing({one[rep] for one in (ours, theirs) for rep in reps}):
        return Pairs(reps)
    same = {rep for rep in reps if not environment.differing((ours[rep], theirs[rep]))}
    across = len(reps) - len(same)
    if environment.differing({one[rep] for one in (ours, theirs) for rep in same}):
        both = [environment.together(ours[rep], theirs[rep]) for rep in same]
        return Pairs(frozenset(), across, environment.told(both, "pairs"))
    return Pairs(frozenset(same), across)


def differences(row: Row, split: str) -> list[tuple[Setting, Estimate | None, Pairs]]:
    """Paired differences to `none`, in nats: for test only of the settings best on valid."""
    base, column = row.baseline, f"{split}_nll"
    found: list[tuple[Setting, Estimate | None, Pairs]] = []
    for setting in row.settings:
        if setting.name == BASELINE or (split == "test" and not setting.chosen):
            continue
        if base is None:
            found.append((setting, None, Pairs(frozenset())))
            continue
        both = pairs(setting, base)
        values = (one.values(column, both.reps) for one in (setting, base))
        found.append((setting, paired(*values), both))
    return found


def left_out(both: Pairs) -> str:
    """Says which pairs a difference does without, and why; empty if it has them all."""
    across = f"{both.across} pair{'s' if both.across > 1 else ''} of two environments left out"
    parts = [both.told, across if both.across else ""]
    return "; ".join(part for part in parts if part)
