"""`python -m benchmarks.drills.ray_up`: from `ray up` to `ray down` by the shipped cluster.yaml.

A head and workers are test hosts on this machine (hosts.py). The file for Ray's `local` provider is
made from cluster.yaml; local_cluster.CHANGES says what differs and why. A grid runs through it, and
meanwhile one worker is cut off the network and brought back. The grid must end with exit code 0,
every trial recorded once and ok, and after `ray down` nothing may run. Prints seconds per stage.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import yaml

from bench.errors import one_line
from benchmarks.drills import doors, hosts
from benchmarks.drills.hosts import Host, wait_until
from benchmarks.drills.local_cluster import (
    ROOT,
    copy_tree,
    fetch,
    host_environment,
    local_config,
    table,
    visible,
)

# With the local provider Ray's newer autoscaler, 2.60's default, takes the head for a worker and
# starts one too few; this is the switch that `ray up` names itself.
LAPTOP = {"RAY_UP_enable_autoscaler_v2": "0", "RAY_USAGE_STATS_ENABLED": "0"}
# With --quick: when a silent node is given up and started again, and when one without a head ends.
SOONER = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "AUTOSCALER_HEARTBEAT_TIMEOUT_S": "10",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "15",
}
WATCH = """
import time
from ray._raylet import GcsClient
client, before = GcsClient(address="{head}:6379"), None
while True:
    nodes = client.get_all_node_info().values()
    now = sorted(node.node_manager_address for node in nodes if node.state == 0)
    if now != before:
        print(*now, flush=True)
    before = now
    time.sleep(0.5)
"""


class Laptop:
    """Where the commands are given: runs them in the repository, and says how long each took."""

    def __init__(self, folder: Path, verbose: bool) -> None:
        self.folder, self.verbose = folder, verbose
        self.file = folder / "cluster.yaml"
        self.began = time.monotonic()
        self.alive: list[str] = []

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Starts `ray …`."""
        return subprocess.Popen(
            [str(self.folder / "common" / "bin" / "ray"), *words],
            cwd=self.folder / "tree",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ray(self, *words: str, limit: float = 300) -> None:
        """Runs `ray …` to its end. SystemExit with its last words if it failed."""
        began = time.monotonic()
        run = self.start(*words)
        timer = threading.Timer(limit, run.kill)
        timer.start()
        last = self.read(run)
        timer.cancel()
        shown = " ".join(words).replace(f"{self.folder}/", "")
        if run.returncode != 0:
            raise SystemExit(f"{last}\nray {shown}: exit code {run.returncode}")
        self.say(f"ray {shown}: {time.monotonic() - began:.1f} s")

    def read(self, run: subprocess.Popen[str]) -> str:
        """Reads what a command prints, to its end; returns the last of it."""
        assert run.stdout is not None
        last: deque[str] = deque(maxlen=60)
        for line in run.stdout:
            last.append(line)
            if self.verbose:
                print(f"        | {line.rstrip()}", flush=True)
        run.wait()
        return "".join(last)

    @contextlib.contextmanager
    def watching(self, head: Host) -> Iterator[None]:
        """Keeps `alive`, the addresses of the nodes that the head counts as there."""
        watch = subprocess.Popen(
            [*hosts.ssh(self.folder / "key", head), "python -u -"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert watch.stdin is not None and watch.stdout is not None
        watch.stdin.write(WATCH.format(head=head.address))
        watch.stdin.close()
        threading.Thread(target=self._follow, args=(watch.stdout,), daemon=True).start()
        try:
            yield
        finally:
            watch.kill()
            watch.wait()

    def _follow(self, stream: IO[str]) -> None:
        for line in stream:
            self.alive = line.split()
            if self.verbose:
                self.say(f"alive: {' '.join(self.alive)}")


def drill(folder: Path, options: argparse.Namespace) -> None:
    """All stages. Raises when something is not as it must be."""
    keep = visible(folder / "common")
    hosts.settle(folder, [ROOT, *keep])  # the drill itself may lie in /tmp
    os.environ.update(LAPTOP)
    names = ["head", *(f"worker{n}" for n in range(1, options.workers + 1))]
    for name in names:
        host_environment(folder / name, folder / "common")
    here = hosts.start(folder, names, keep, SOONER if options.quick else {})
    laptop = Laptop(folder, options.verbose)
    laptop.say(f"hosts: {', '.join(f'{host.name} {host.address}' for host in here)}")
    shipped = yaml.safe_load((folder / "tree" / "cluster.yaml").read_text())
    config = local_config(shipped, [host.address for host in here], folder / "key")
    laptop.file.write_text(yaml.safe_dump(config, sort_keys=False))
    try:
        _stages(laptop, here, options)
    except BaseException:
        _last_words(here[0])
        raise


def _stages(laptop: Laptop, here: list[Host], options: argparse.Namespace) -> None:
    head, file = here[0], str(laptop.file)
    laptop.ray("get-auth-token", "--generate")
    laptop.ray("up", file, "--yes", "--no-config-cache")
    with laptop.watching(head):
        _join(laptop, here, "the workers have joined")
        laptop.say(doors.closed(head, laptop.folder / "key"))
        _grid(laptop, here, options)
    results = laptop.folder / "results"
    laptop.ray("rsync-down", file, "~/recurrent-bench/results/", f"{results}/")
    _check_records(laptop, results, options.reps)
    laptop.ray("down", file, "--yes")
    _nothing_left(laptop, [head])
    # AWS ends the machines; the local provider leaves them, and Ray on the workers, as they are.
    laptop.say(f"on the workers Ray goes on: {sum(len(host.processes()) for host in here[1:])}")
    ends = [[*hosts.ssh(laptop.folder / "key", host), "ray stop"] for host in here[1:]]
    for end in [subprocess.Popen(words, stdout=subprocess.DEVNULL) for words in ends]:
        end.wait(60)
    _nothing_left(laptop, here[1:])


def _grid(laptop: Laptop, here: list[Host], options: argparse.Namespace) -> None:
    """Runs a grid from the laptop; meanwhile the last worker goes and comes back."""
    victim, results = here[-1], here[0].home / "recurrent-bench" / "results"
    fields = f"--set cell=lstm --set regularizer=none --set epochs={options.epochs}"
    words = f"quick {fields} --reps {options.reps} --device cpu --no-report"
    command = f"cd recurrent-bench && python -m bench.grid {words}"
    laptop.say(f"ray exec cluster.yaml '{command}'")
    grid = laptop.start("exec", str(laptop.file), command)
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.append(laptop.read(grid)))
    reader.start()

    def meanwhile(holds: Callable[[], object], what: str) -> None:
        wait_until(lambda: grid.poll() is not None or holds(), 180, what)
        if grid.poll() is not None:
            reader.join()
            raise SystemExit(f"{said[0]}\nthe grid ended before {what}")

    meanwhile(
        lambda: _recorded(results).get("ok") and _trains(victim), "a record and a trial there"
    )
    laptop.say(f"recorded: {_recorded(results)} on {_where(results)}")
    laptop.say(f"{victim.name}, which trains, is cut off")
    victim.cut()
    meanwhile(lambda: victim.address not in laptop.alive, "the loss was noticed")
    laptop.say(f"the head gave {victim.name} up: {_recorded(results)}; it is plugged in again")
    victim.bring_back()
    _join(laptop, here, f"{victim.name} has joined again, started by the head")
    laptop.say(f"recorded: {_recorded(results)}")
    grid.wait(300)
    reader.join()
    laptop.say(f"the grid ended with exit code {grid.returncode}: {_recorded(results)}")
    if grid.returncode != 0:
        raise SystemExit(said[0])


def _recorded(results: Path, column: str = "status") -> dict[str, int]:
    """Returns how many records have which status."""
    from bench import store

    runs, _ = store.load_runs(results)
    return {str(value): int(count) for value, count in runs[column].value_counts().items()}


def _where(results: Path) -> dict[str, int]:
    """Returns how many records come from which host."""
    return _recorded(results, "host")


def _trains(host: Host) -> bool:
    lines = host.processes()
    return any(line.startswith("ray::") and not line.startswith("ray::IDLE") for line in lines)


def _join(laptop: Laptop, here: list[Host], what: str) -> None:
    wanted = sorted(host.address for host in here)
    took = wait_until(lambda: laptop.alive == wanted, 180, what)
    laptop.say(f"{what}: {took:.1f} s")


def _check_records(laptop: Laptop, results: Path, trials: int) -> None:
    from bench import store

    runs, problems = store.load_runs(results)
    laptop.say(f"at home: {_recorded(results)} on {_where(results)}")
    if problems or list(runs.status) != ["ok"] * trials or runs.run_id.duplicated().any():
        raise SystemExit(f"wanted {trials} records, each ok\n{runs.status}\n{problems}")


def _nothing_left(laptop: Laptop, here: list[Host]) -> None:
    left: list[str] = []

    def ended() -> bool:
        left[:] = [line for host in here for line in host.processes()]
        return not left

    try:
        took = wait_until(ended, 60, "processes end")
    except TimeoutError:
        raise SystemExit("\n".join(["left behind:", *left])) from None
    laptop.say(f"nothing runs on {' '.join(host.name for host in here)}: {took:.1f} s later")


def _last_words(head: Host) -> None:
    """Prints what the autoscaler said last."""
    for log in sorted((head.folder / "tmp" / "ray").glob("session_2*/logs/monitor.*")):
        lines = log.read_text(errors="replace").splitlines()[-40:]
        lines = [one_line(line, 300) for line in lines]
        print("\n".join([f"{log.name}:", *lines]), file=sys.stderr)


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.drills.ray_up", description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--reps", type=int, default=6, help="trials of the grid")
    parser.add_argument("--epochs", type=int, default=2, help="of each trial")
    parser.add_argument("--quick", action="store_true", help="silent nodes are given up sooner")
    parser.add_argument("--verbose", action="store_true", help="show what Ray prints")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.inside:
        drill(options.inside, options)
        return 0
    if reason := hosts.lacking():
        print(f"ray_up: {reason}", file=sys.stderr)
        return 2
    print(table(), flush=True)
    with hosts.folder() as folder:
        began = time.monotonic()
        shipped = yaml.safe_load((ROOT / "cluster.yaml").read_text())
        copy_tree(shipped, folder / "tree")
        fetch(shipped, folder / "common")
        print(f"what the hosts' pip would fetch: {time.monotonic() - began:.1f} s", flush=True)
        words = [*argv, "--inside", str(folder)]
        return hosts.in_a_world("benchmarks.drills.ray_up", words, folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
