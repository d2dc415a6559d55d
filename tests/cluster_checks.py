"""What a cluster file must not do: each check takes a configuration and returns its complaints.

The configuration is a prepared one: Ray's defaults are filled in, as `ray up` does: a line that
is missing counts as what Ray puts in its place.
"""

from __future__ import annotations

import copy
import ipaddress
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from ray.autoscaler._private.util import prepare_config

ROOT = Path(__file__).resolve().parent.parent
TOKEN_FILE = "~/.ray/auth_token"
COMMANDS = (
    "initialization_commands",
    "head_setup_commands",  # Ray prepends setup_commands to this list and the next
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)
Config = dict[str, Any]
Check = Callable[[Config], list[str]]


def prepared(raw: Config) -> Config:
    """`raw` with Ray's AWS defaults wherever a top-level key is missing; no boto3 needed."""
    return copy.deepcopy(prepare_config(copy.deepcopy(raw)))


def strings(value: object) -> Iterator[str]:
    """Every key and value of a nested structure, as text."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    else:
        yield str(value)


def starts(config: Config, who: str) -> list[str]:
    return [line for line in config[f"{who}_start_ray_commands"] if "ray start" in line]


def check_addresses(config: Config) -> list[str]:
    """No address that means everybody, no network wider than 256 addresses."""
    found = []
    for text in strings(config):
        if "0.0.0.0" in text or re.search(r"(?<![\w:])::(?![\w:])", text):
            found.append(f"an address open to all: {text}")
        for word in re.findall(r"[0-9A-Fa-f.:]+/\d+", text):
            try:
                network = ipaddress.ip_network(word, strict=False)
            except ValueError:
                continue
            if network.num_addresses > 256:
                found.append(f"a wide network: {word}")
    return found


def check_security_group(config: Config) -> list[str]:
    """Each machine names its group: one that Ray makes admits SSH from the whole internet."""
    found = [
        f"{name}: no SecurityGroupIds"
        for name, kind in config["available_node_types"].items()
        if not kind["node_config"].get("SecurityGroupIds")
    ]
    if "security_group" in config["provider"]:
        found.append("provider.security_group: Ray adds open SSH to that group")
    return found


def check_token(config: Config) -> list[str]:
    """The token file goes to every node, is private there, and no Ray starts without its mode."""
    found = []
    if config["file_mounts"].get(TOKEN_FILE) != TOKEN_FILE:
        found.append("the token file is not mounted")
    setup = config["initialization_commands"]
    if not any(f"chmod 600 {TOKEN_FILE}" in line for line in setup):
        found.append("the token file is not made private")
    if not any("export RAY_AUTH_MODE=token" in line for line in setup):
        found.append("shells do not know the token mode")
    for who in ("head", "worker"):
        lines = starts(config, who)
        if not lines:
            found.append(f"{who}: no ray start")
        for line in lines:
            if "export RAY_AUTH_MODE=token;" not in line.split("ray start")[0]:
                found.append(f"{who}: ray start without the token mode")
    for text in strings(config):
        if "RAY_AUTH_TOKEN=" in text or "RAY_AUTH_MODE=disabled" in text:
            found.append(f"a token in the open, or none: {text}")
    return found


def check_dashboard(config: Config) -> list[str]:
    """Said aloud on the head, and loopback; Ray's shipped default is every interface."""
    hosts = [re.findall(r"--dashboard-host[= ](\S+)", line) for line in starts(config, "head")]
    return [f"dashboard on {host or 'nothing said'}" for host in hosts if host != ["127.0.0.1"]]


def locked_ray() -> str:
    match = re.search(r"^ray==(\S+)$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert match, "requirements.lock does not pin ray"
    return match[1]


def check_ray_version(config: Config) -> list[str]:
    """Every Ray that a command installs is the one of requirements.lock, on head and workers."""
    found = []
    for who in ("head", "worker"):
        asked = []
        for line in config[f"{who}_setup_commands"]:
            words = shlex.split(line)
            if "install" in words and any(word.endswith("pip") for word in words):
                asked += [word for word in words if re.match(r"ray\b(?!/)", word)]
        if not asked:
            found.append(f"{who}: no Ray is installed")
        for word in asked:
            if str(Requirement(word).specifier) != f"=={locked_ray()}":
                found.append(f"{who}: {word} is not ray=={locked_ray()}")
    return found


def check_head_is_empty(config: Config) -> list[str]:
    """No trial lands on the head."""
    head = config["available_node_types"][config["head_node_type"]]
    found = [f"head offers {kind}" for kind in ("CPU", "GPU") if head["resources"].get(kind) != 0]
    for line in starts(config, "head"):
        found += [
            f"head starts without {flag}"
            for flag in ("--num-cpus=0", "--num-gpus=0")
            if flag not in line.split()
        ]
    return found


def check_workers(config: Config) -> list[str]:
    """GPU machines come on demand and go when idle."""
    found = []
    for name, kind in config["available_node_types"].items():
        if name == config["head_node_type"]:
            continue
        if kind["resources"].get("GPU", 0) < 1:
            found.append(f"{name}: no GPU")
        if kind["min_workers"] != 0 or kind["max_workers"] < 1:
            found.append(f"{name}: does not come and go")
    if not 1 <= config["idle_timeout_minutes"] <= 60:
        found.append("idle machines stay too long or not at all")
    if config["provider"]["cache_stopped_nodes"]:
        found.append("stopped machines keep their disks")
    return found


def check_address(config: Config) -> list[str]:
    """A driver on the head finds the cluster by itself; workers have no driver."""
    wanted = "export RAY_ADDRESS=auto"
    found = []
    if not any(wanted in line for line in config["head_setup_commands"]):
        found.append("RAY_ADDRESS is not set on the head")
    if any("RAY_ADDRESS" in line for line in config["worker_setup_commands"]):
        found.append("RAY_ADDRESS is set on workers")
    return found


def check_tree(config: Config) -> list[str]:
    """The repository travels, without what was made from it."""
    found = [] if "." in config["file_mounts"].values() else ["the repository is not mounted"]
    kept = set(config["rsync_exclude"])
    return found + [f"{name} travels" for name in ("/.venv", "/results") if name not in kept]


CHECKS: list[Check] = [
    check_addresses,
    check_security_group,
    check_token,
    check_dashboard,
    check_ray_version,
    check_head_is_empty,
    check_workers,
    check_address,
    check_tree,
]
