"""How long the fuzz tests look: briefly in the suite, `HYPOTHESIS_PROFILE=deep` for an hour."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

from benchmarks.drills.fuzz_watch import Target, complaint, place

DEEP = 10_000


def often(examples: int) -> Any:
    """Settings: alike on every run of CI, other examples each time elsewhere."""
    deep = os.environ.get("HYPOTHESIS_PROFILE") == "deep"
    return settings(
        max_examples=DEEP if deep else examples,
        deadline=None,
        derandomize="CI" in os.environ,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@contextmanager
def fed(folder: Path) -> Iterator[Callable[[Target, bytes], None]]:
    """Yields what feeds an input to a target of the drill, and fails where the drill would."""
    with place(folder / "place") as watch:

        def feed(target: Target, data: bytes) -> None:
            said = complaint(target, data, watch)
            assert not said, f"{said}\nthe input: {data[:300]!r}"

        yield feed
