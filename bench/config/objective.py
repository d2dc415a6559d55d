"""How a training objective is written: `nll`, or `augmented[:gamma=...][:tau=...]`."""

from __future__ import annotations

from bench.errors import BadInput, nearest, one_line
from bench.plugins.spelling import Param, Value, complete, join, split

OBJECTIVES: dict[str, tuple[Param, ...]] = {
    "nll": (),
    "augmented": (Param("gamma", "float", 0.5), Param("tau", "float", 20.0)),
}
"""Every objective and its hyper-parameters; what they do is in `bench.objective`."""


def parse(spelling: str) -> tuple[str, dict[str, Value]]:
    """Returns the objective's name and all its hyper-parameters; raises BadInput."""
    name, given = split(spelling, "objective")
    if name not in OBJECTIVES:
        raise BadInput(f"objective: {one_line(name, 60)!r} is unknown. {nearest(name, OBJECTIVES)}")
    values = complete(name, given, OBJECTIVES[name], "objective")
    gamma, tau = values.get("gamma"), values.get("tau")
    if isinstance(gamma, float) and gamma < 0:
        raise BadInput(f"objective: {name}: gamma={gamma:g} must be at least 0")
    if isinstance(tau, float) and tau <= 0:
        raise BadInput(f"objective: {name}: tau={tau:g} must be above 0")
    return name, values


def canonical(spelling: str) -> str:
    """Returns the one spelling: keys sorted, values equal to their default left out; BadInput."""
    name, values = parse(spelling)
    return join(name, values, OBJECTIVES[name])
