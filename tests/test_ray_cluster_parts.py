"""What needs no Ray to run: counts of a cluster that has nothing yet, signals while Ray starts."""

from __future__ import annotations

from typing import Any

import pytest

from bench.backends import ray_cluster
from bench.backends.ray_cluster import Resources, at_a_time


@pytest.mark.parametrize(
    ("there", "expected"), [({}, 1), ({"CPU": 4.0}, 1), ({"CPU": 16.0, "GPU": 8.0}, 8)]
)
def test_a_cluster_without_a_gpu_yet(
    there: dict[str, float], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that grows when trials wait: nothing is divided by its size."""
    ray: Any = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "cluster_resources", lambda: there)
    assert at_a_time(Resources(cpus=1.0, gpus=1.0)) == expected


def test_a_signal_that_ray_takes_for_itself_is_an_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt), ray_cluster._kept():
        raise SystemExit(15)
