"""Which fields of a trial are worth a word where people read it, and how a value is written."""

from __future__ import annotations

from collections.abc import Mapping

from bench.config.trial import UNREAD
from bench.plugins.spelling import spell


def acts(trial: Mapping[str, object], field: str) -> bool:
    """Returns whether a field does anything in a trial: nonmono does not under sgd."""
    return field not in UNREAD.get(str(trial.get("optimizer")), ())


def written(value: object) -> str:
    """Returns a value as a grid file has it; `none` where there is none."""
    return "none" if value is None else spell(value)
