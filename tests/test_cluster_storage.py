"""A cluster with `--storage`: what a dead node's trial goes on from, and who does not see it.

Also `--device-class`: a trial runs on the nodes of its class and on no other.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench import store
from tests.grids import assert_same, bench, grid_file, rogue, start
from tests.test_cluster import HERE
from tests.test_resume import wait_until
from tests.test_stop import held, long_grid, plugins_of

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.xdist_group("cluster")]
MEMORY = 100_000_000


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """While this file is there, trials of `long_grid` linger in their second epoch."""
    return tmp_path_factory.mktemp("stand") / "stand"


@pytest.fixture(scope="module")
def cluster(stand: Path) -> Iterator[Any]:
    """A head that offers no CPU, and a worker of one CPU that has an accelerator of a kind."""
    from ray.cluster_utils import Cluster

    head = {
        "num_cpus": 0,
        "include_dashboard": False,
        "object_store_memory": MEMORY,
        "_system_config": {"health_check_period_ms": 500, "health_check_failure_threshold": 3},
    }
    nodes = Cluster(initialize_head=True, head_node_args=head)
    os.environ["STAND"] = str(stand)  # nodes hand on what they find
    try:
        kind = {"accelerator_type:TESTGPU": 1}
        nodes.add_node(num_cpus=1, object_store_memory=MEMORY, resources=kind)
        yield nodes
    finally:
        del os.environ["STAND"]
        nodes.shutdown()


@pytest.fixture
def second(cluster: Any) -> Iterator[Any]:
    """A worker of one CPU beside the first."""
    node = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
    yield node
    if node in cluster.list_all_nodes():
        cluster.remove_node(node)


def to(cluster: Any) -> tuple[object, ...]:
    return ("--address", cluster.address, "--device", "cpu", "--no-report")


def raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


NODE = """
def node():
    \"\"\"The process of the node that this one runs on: the parent of the worker's.\"\"\"
    with open(f"/proc/{os.getppid()}/stat") as file:
        return file.read().rpartition(")")[2].split()[1]
"""


def test_a_class_that_no_node_has(cluster: Any, tmp_path: Path) -> None:
    grid = grid_file(tmp_path, "{cell: [lstm]}")
    argv = ("--results", tmp_path / "r", *to(cluster), "--device-class", "TESTGPV")
    run = start("grid", grid, *argv)
    out, _ = run.communicate(timeout=120)
    assert run.returncode == 2
    last = out.splitlines()[-1]
    assert last.startswith("bench: --device-class TESTGPV: no node has it. Did you mean TESTGPU?")
    assert "Traceback" not in out and not list(tmp_path.glob("r/runs/*"))


def test_trials_run_on_nodes_of_their_class_alone(
    cluster: Any, second: Any, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    call = f"open({str(seen)!r}, 'a').write(node() + ' ') if self.calls == 1 else None"
    rogue(tmp_path / "p", "tells", top=NODE, call=call)
    grid = grid_file(tmp_path, "{cell: [tells], regularizer: [none, ar, tar]}")
    (first,) = cluster.worker_nodes - {second}
    run = start("grid", grid, *plugins_of(tmp_path), *to(cluster), "--device-class", "TESTGPU")
    out, _ = run.communicate(timeout=180)
    assert run.returncode == 0, out
    assert seen.read_text().split() == [str(raylet(first))] * 6, "three trials of two layers"
    assert not list(tmp_path.glob("r/checkpoints/*")), "no folder is known that all nodes see"


def test_a_trial_goes_on_where_another_node_died(
    cluster: Any, second: Any, stand: Path, tmp_path: Path
) -> None:
    grid = long_grid(tmp_path, ["none", "ar:alpha=2"])
    calm = tmp_path / "calm"
    here = ("--plugins", tmp_path / "p", "--results", calm, *HERE, "--no-report")
    assert bench("grid", grid, *here) == 0
    stand.touch()
    keep = ("--storage", tmp_path / "shared", "--checkpoint-every", "0.1s")
    run = start("grid", grid, *plugins_of(tmp_path), *to(cluster), *keep)
    wait_until(lambda: held(stand, 2) or run.poll() is not None, 180)
    wait_until(lambda: len({p.parent for p in tmp_path.glob("shared/checkpoints/*/*")}) == 2)
    cluster.remove_node(second, allow_graceful=False)
    stand.unlink()
    out, _ = run.communicate(timeout=180)
    assert run.returncode == 0 and "Traceback" not in out, out
    runs, problems = store.load_runs(tmp_path / "r")
    assert problems == [] and sorted(runs.resumed) == [0, 1], "only its own trial lost anything"
    assert_same(calm, tmp_path / "r")
    left = [path.name for path in tmp_path.rglob("shared/*/*")]
    assert len(left) == 1 and left[0].startswith("storage-id-"), "which later nodes must see"
    assert "goes on after epoch" in (tmp_path / "r" / "grids" / "tiny.log").read_text()


def alive(cluster: Any) -> set[str]:
    return {node["NodeID"] for node in cluster.global_state.node_table() if node["Alive"]}


@pytest.fixture
def blind(cluster: Any, tmp_path: Path) -> Iterator[Path]:
    """A folder in whose place one further node has another, as one on its own disk would be."""
    shared = tmp_path / "shared"
    shared.mkdir()
    mount = ["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", str(shared)]
    if shutil.which("unshare") is None or subprocess.run(mount).returncode != 0:
        pytest.skip("needs the right to make a mount namespace")
    ray = "from ray.scripts.scripts import main; main()"
    words = [
        *(sys.executable, "-c", ray, "start", f"--address={cluster.address}", "--block"),
        *("--num-cpus=1", f"--object-store-memory={MEMORY}"),
    ]
    before = alive(cluster)
    inside = f'mount -t tmpfs tmpfs "{shared}" && exec "$@"'
    node = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", inside, "sh", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env=os.environ,
    )
    try:
        wait_until(lambda: node.poll() is not None or alive(cluster) - before)
        assert node.poll() is None
        yield shared
    finally:
        family = psutil.Process(node.pid).children(recursive=True)
        node.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs([psutil.Process(node.pid), *family], timeout=10)
        for process in left:
            process.kill()
        node.wait()


def test_a_node_that_does_not_see_the_storage(cluster: Any, blind: Path, tmp_path: Path) -> None:
    grid = grid_file(tmp_path, "{cell: [lstm]}")
    run = start("grid", grid, "--results", tmp_path / "r", *to(cluster), "--storage", blind)
    out, _ = run.communicate(timeout=120)
    assert run.returncode == 2, out
    last = out.splitlines()[-1]
    assert last.startswith(f"bench: --storage {blind}: node "), out
    assert "does not see what the driver wrote; it must be one folder or bucket" in last
    assert "Traceback" not in out and not list(tmp_path.glob("r/runs/*"))
    assert [path for path in blind.rglob("*") if path.is_file()] == []
