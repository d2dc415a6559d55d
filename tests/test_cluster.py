"""A cluster of three nodes on this machine: joined by its address, and one node killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import store
from tests.grids import assert_same, bench, grid_file, rogue, start
from tests.test_resume import recorded, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.xdist_group("cluster")]
HERE = ("--backend", "local", "--jobs", 0)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head that offers no CPU, as in cluster.yaml, and two workers of one CPU each."""
    from ray.cluster_utils import Cluster

    quick_to_notice = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
    head = {
        "num_cpus": 0,
        "include_dashboard": False,
        "object_store_memory": 100_000_000,
        "_system_config": quick_to_notice,
    }
    nodes = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            nodes.add_node(num_cpus=1, object_store_memory=100_000_000)
        yield nodes
    finally:
        nodes.shutdown()


def test_a_node_killed_in_mid_grid_costs_nothing(cluster: Any, tmp_path: Path) -> None:
    rogue(tmp_path / "p", "slow", call="import time; time.sleep(0.01)")
    grid = grid_file(tmp_path, "{cell: [slow, lstm], regularizer: [none, ar]}")
    options = ("--plugins", tmp_path / "p", "--no-report")
    calm = tmp_path / "calm"
    assert bench("grid", grid, *options, *HERE, "--results", calm) == 0
    run = start(
        "grid",
        grid,
        *options,
        "--address",
        cluster.address,
        "--device",
        "cpu",
        "--results",
        tmp_path / "r",
    )
    wait_until(lambda: recorded(tmp_path) >= 1 or run.poll() is not None, 180)
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    out, _ = run.communicate(timeout=180)
    assert run.returncode == 0, out
    runs, problems = store.load_runs(tmp_path / "r")
    assert problems == [] and set(runs.status) == {"ok"} and len(runs) == 4
    assert_same(calm, tmp_path / "r")
    assert "Traceback" not in out and "(raylet" not in out, out
