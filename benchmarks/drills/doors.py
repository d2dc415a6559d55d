"""A cluster's doors from outside: who has no token learns nothing, the dashboard is on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from benchmarks.drills.hosts import Host, ssh

_NODES = """
from ray._raylet import GcsClient
print(len(GcsClient(address="{address}:6379").get_all_node_info()))
"""
_DASHBOARD = "python -c 'import socket; socket.create_connection((\"127.0.0.1\", 8265), 5)'"


def closed(head: Host, key: Path) -> str:
    """Tries them from the laptop; returns what was seen. Raises SystemExit if one is open."""
    asked = {"a token": {}, "another token": {"RAY_AUTH_TOKEN": "0" * 64}}
    answers = {name: _asks(head.address, more) for name, more in asked.items()}
    if answers["a token"].returncode != 0:
        raise SystemExit(f"the token does not admit:\n{answers['a token'].stderr}")
    if answers["another token"].returncode == 0:
        raise SystemExit("another token admits, too")
    if "nauthenticated" not in answers["another token"].stderr:
        raise SystemExit(f"refused, but not for the token:\n{answers['another token'].stderr}")
    if subprocess.run([*ssh(key, head), _DASHBOARD], timeout=30).returncode != 0:
        raise SystemExit("there is no dashboard on the head's loopback")
    try:
        socket.create_connection((head.address, 8265), timeout=5).close()
    except ConnectionRefusedError:
        return "another token is refused, and so is the dashboard from outside"
    raise SystemExit("the dashboard is open to the network")


def _asks(address: str, more: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _NODES.format(address=address)],
        env=os.environ | {"RAY_AUTH_MODE": "token", **more},
        capture_output=True,
        text=True,
        timeout=60,
    )
