"""cluster.yaml for hosts that are there already, and the Python environment of such a host."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.drills.hosts import USER

ROOT = Path(__file__).resolve().parents[2]
AS_SHIPPED = (
    "cluster_name",
    "upscaling_speed",
    "idle_timeout_minutes",
    "file_mounts",
    "rsync_exclude",
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
CHANGES = [
    ("provider", "type: local, the hosts' addresses", "no AWS account"),
    ("auth", "plus a key of the drill's own", "Ray makes key pairs on AWS only"),
    ("max_workers", "as many as hosts", "the local provider has no others to start"),
    ("head_node_type, available_node_types", "left out", "the local provider refuses them"),
    ("metadata", "left out", "holds values for AWS"),
    ("autoscaler", "v1", "Ray 2.60's v2 takes a local head for a worker, starts one too few"),
    ("the laptop's folder", "a copy without .venv", "`ray up` hashes all of it, 2 GB with .venv"),
    ("Ray's clocks with --quick", "a silent node is given up in 9 s", "a test waits for it"),
    ("~/venv", "made beforehand; sees this machine's packages", "a host has no index"),
    ("sudo, cloud-init, apt-get", "stand-ins; apt-get only looks", "no index, no first boot"),
    ("user ubuntu", "uid 0 under that name", "the interpreter may lie in root's home"),
]
_SITE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


def local_config(shipped: dict[str, Any], addresses: list[str], key: Path) -> dict[str, Any]:
    """Returns `shipped` for Ray's local provider; the first address is the head's.

    Every list of commands and files is the shipped one, word for word.
    """
    config = {name: shipped[name] for name in AS_SHIPPED}
    config["provider"] = {
        "type": "local",
        "head_ip": addresses[0],
        "worker_ips": addresses[1:],
    }
    config["auth"] = {**shipped["auth"], "ssh_private_key": str(key)}
    config["max_workers"] = len(addresses) - 1
    return config


def table() -> str:
    """Returns what differs from cluster.yaml, and why."""
    rows = [("against cluster.yaml", "here", "why"), ("---", "---", "---"), *CHANGES]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def copy_tree(shipped: dict[str, Any], tree: Path) -> None:
    """Copies what of the repository travels: no environment, no results of its own."""
    left = [f"--exclude={pattern}" for pattern in shipped["rsync_exclude"]]
    subprocess.run(["rsync", "--archive", *left, f"{ROOT}/", f"{tree}/"], check=True)


def fetch(shipped: dict[str, Any], common: Path) -> None:
    """Makes an environment with what cluster.yaml's pip commands install, by these commands.

    They run here, where an index is; a host then finds all that they ask for. Raises SystemExit
    with pip's words.
    """
    environment(common, common)
    for line in [*shipped["setup_commands"], *shipped["head_setup_commands"]]:
        if "-m pip install" in line:
            line = line.replace("~/venv", str(common)).replace("~/recurrent-bench", str(ROOT))
            done = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
            if done.returncode != 0:
                raise SystemExit(f"{line}\n{done.stderr.strip()}")


def host_environment(folder: Path, common: Path) -> None:
    """Makes the ~/venv of a host whose folder is `folder`: `make setup` finds it and goes on."""
    environment(folder / "home" / USER / "venv", Path(f"/home/{USER}/venv"), common)


def environment(path: Path, seen_as: Path, *others: Path) -> None:
    """Makes an environment that sees this one's packages, and those of `others` before them.

    `seen_as` is its path where it will be used.
    """
    words = [sys.executable, "-m", "venv", "--without-pip", str(path)]
    subprocess.run(words, check=True, capture_output=True)
    seen = [other / _SITE for other in (*others, Path(sys.prefix))]
    (path / _SITE / "others.pth").write_text("".join(f"{each}\n" for each in seen))
    # pip would write this one, but finds Ray installed.
    script = path / "bin" / "ray"
    script.write_text(f"#!{seen_as}/bin/python\nfrom ray.scripts.scripts import main\n\nmain()\n")
    script.chmod(0o755)


def visible(common: Path) -> list[Path]:
    """Returns what a host must see wherever it lies: that environment, this one, and its base."""
    return [common, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()]
