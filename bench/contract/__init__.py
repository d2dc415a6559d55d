"""The contract suites: every plugin found is held to them, by the tests and `plugins check`."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Iterator
from typing import Any

from bench.contract import cells, regularizers
from bench.errors import one_line
from bench.plugins import Plugin, load_class
from bench.plugins.spelling import Value, spell

CHECKS: dict[str, tuple[Any, ...]] = {"cell": cells.CHECKS, "regularizer": regularizers.CHECKS}


def variants(plugin: Plugin) -> dict[str, dict[str, Value]]:
    """Returns the hyper-parameters to check under: the defaults, and each other choice alone."""
    found: dict[str, dict[str, Value]] = {"": {}}
    for param in plugin.params:
        choices = (True, False) if param.type == "bool" else param.choices
        for value in choices:
            if value != param.default:
                found[f"{param.name}={spell(value)}"] = {param.name: value}
    return found


def run(plugin: Plugin) -> Iterator[tuple[str, str, str | None, str]]:
    """Yields (rule, its meaning, None or what is wrong, traceback) for each rule.

    Raises BadInput when the plugin cannot be loaded at all.
    """
    cls = load_class(plugin)
    for check in CHECKS[plugin.kind]:
        meaning = (check.__doc__ or "").strip().split("\n")[0]
        for label, hparams in variants(plugin).items():
            where = f"with {label}: " if label else ""
            try:
                check(functools.partial(cls, **hparams))
            except AssertionError as error:
                yield check.__name__, meaning, where + one_line(error), ""
                break
            except Exception as error:
                text = f"{where}{type(error).__name__}: {one_line(error)}"
                yield check.__name__, meaning, text, traceback.format_exc()
                break
        else:
            yield check.__name__, meaning, None, ""
