"""The contract suites: every plugin found is held to them, in `make test` and by `plugins check`."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from typing import Any

from bench.contract import cells, regularizers
from bench.errors import one_line
from bench.plugins import Plugin, load_class

CHECKS: dict[str, tuple[Any, ...]] = {"cell": cells.CHECKS, "regularizer": regularizers.CHECKS}


def run(plugin: Plugin) -> Iterator[tuple[str, str, str | None, str]]:
    """Yields (rule, its meaning, None or what is wrong, traceback) for each rule.

    Raises BadInput when the plugin cannot be loaded at all.
    """
    make = load_class(plugin)
    for check in CHECKS[plugin.kind]:
        meaning = (check.__doc__ or "").strip().split("\n")[0]
        try:
            check(make)
        except AssertionError as error:
            yield check.__name__, meaning, one_line(error), ""
        except Exception as error:
            text = f"{type(error).__name__}: {one_line(error)}"
            yield check.__name__, meaning, text, traceback.format_exc()
        else:
            yield check.__name__, meaning, None, ""
