"""`ray up` to `ray down` on test hosts, by the shipped cluster.yaml; and the hosts themselves.

Where no hosts can be made (no root, no namespaces, no sshd) these tests say so and are skipped.
"""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

from benchmarks.drills import hosts
from benchmarks.drills.local_cluster import AS_SHIPPED, CHANGES, ROOT, local_config

ADDRESSES = ["10.77.0.11", "10.77.0.12", "10.77.0.13"]


@pytest.fixture
def possible() -> None:
    if reason := hosts.lacking():
        pytest.skip(f"no test hosts here: {reason}")


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *words],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        | {"TMPDIR": str(folder)},
        # What a shell starts in its background ignores SIGINT.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_every_key_of_the_shipped_file_is_taken_or_accounted_for() -> None:
    shipped = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    changed = {key for what, _, _ in CHANGES for key in what.split(", ")}
    assert set(shipped) - set(AS_SHIPPED) <= changed
    assert not set(AS_SHIPPED) & changed


def test_commands_and_files_are_those_of_the_shipped_file() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    shipped = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    config = local_config(shipped, ADDRESSES, Path("key"))
    prepared = copy.deepcopy(prepare_config(copy.deepcopy(config)))
    validate_config(prepared)
    common = shipped["setup_commands"]  # Ray puts these before those of each kind
    assert prepared["head_setup_commands"] == common + shipped["head_setup_commands"]
    assert prepared["worker_setup_commands"] == common + shipped["worker_setup_commands"]
    for key in set(AS_SHIPPED) - {"head_setup_commands", "worker_setup_commands"}:
        assert prepared[key] == shipped[key], key
    (kind,) = prepared["available_node_types"].values()
    assert kind["min_workers"] == kind["max_workers"] == 2


@pytest.mark.usefixtures("possible")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_hosts_are_apart_and_nothing_outlives_the_end(end: signal.Signals, tmp_path: Path) -> None:
    """Each has its own name, home, /tmp, /dev/shm and processes; no signal leaves any of them."""
    links = psutil.net_if_addrs().keys()
    seen = tmp_path / "seen" / "facts"
    seen.parent.mkdir()
    world = start(tmp_path, "tests.world", str(seen))
    outside = psutil.Process(world.pid)
    try:
        hosts.wait_until(lambda: seen.exists() or world.poll() is not None, 60, "the hosts")
        assert world.poll() is None, world.communicate()[0]
        inside = outside.children(recursive=True)
    finally:
        world.send_signal(end)
        world.communicate(timeout=30)
    assert len(inside) > 5
    _, alive = psutil.wait_procs(inside, timeout=20)
    assert not alive
    assert seen.read_text().splitlines() == [
        "one blue /home/ubuntu one one",
        "two blue /home/ubuntu",
        "0",
        "started",
        "[1, 0]",
        "two answers: False",
        "two is back",
    ]
    assert psutil.net_if_addrs().keys() == links
    assert "bench-hosts-" not in Path("/proc/self/mounts").read_text()
    assert end == signal.SIGKILL or not list(tmp_path.glob("bench-hosts-*"))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.xdist_group("cluster")
@pytest.mark.usefixtures("possible")
def test_from_ray_up_to_ray_down(tmp_path: Path) -> None:
    """The whole drill: its exit code says that all held, its lines that nothing was left out."""
    run = start(tmp_path, "benchmarks.drills.ray_up", "--quick")
    try:
        out, _ = run.communicate(timeout=900)
    finally:
        if run.poll() is None:
            run.send_signal(signal.SIGTERM)
            run.communicate(timeout=60)
    print(out)
    assert run.returncode == 0
    said = (
        "ray up cluster.yaml --yes",
        "the workers have joined",
        "another token is refused",
        "worker2, which trains, is cut off",
        "the head gave worker2 up",
        "worker2 has joined again",
        "the grid ended with exit code 0: {'ok': 6}",
        "at home: {'ok': 6} on",
        "ray down cluster.yaml --yes",
        "nothing runs on head",
        "nothing runs on worker1 worker2",
    )
    assert [line for line in said if line not in out] == []
    assert not list(tmp_path.glob("bench-hosts-*"))
