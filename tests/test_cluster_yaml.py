"""cluster.yaml against Ray's own schema, and against the ways in which a cluster stands open.

Each check has nothing to say about the file as it stands, and something about each spoilt copy.
"""

from __future__ import annotations

import copy
import ipaddress
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml
from ray.autoscaler._private.util import validate_config

from tests.cluster_checks import (
    CHECKS,
    COMMANDS,
    ROOT,
    TOKEN_FILE,
    Check,
    Config,
    check_address,
    check_addresses,
    check_dashboard,
    check_head_is_empty,
    check_ray_version,
    check_security_group,
    check_token,
    check_tree,
    check_workers,
    locked_ray,
    prepared,
)


@pytest.fixture
def config() -> Config:
    return prepared(yaml.safe_load((ROOT / "cluster.yaml").read_text()))


def replaced(key: str, old: str, new: str) -> Callable[[Config], None]:
    """Spoils one list of commands."""

    def spoil(config: Config) -> None:
        before = list(config[key])
        config[key] = [line.replace(old, new) for line in before]
        assert config[key] != before, f"{old!r} is not in {key}: this mutation tests nothing"

    return spoil


def dropped(*path: str) -> Callable[[Config], None]:
    def spoil(config: Config) -> None:
        place = config
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return spoil


def put(value: object, *path: str) -> Callable[[Config], None]:
    def spoil(config: Config) -> None:
        place = config
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return spoil


def rule(cidr: str, kind: str = "IpRanges") -> Callable[[Config], None]:
    key = {"IpRanges": "CidrIp", "Ipv6Ranges": "CidrIpv6"}[kind]
    permission = {"FromPort": 22, "ToPort": 22, "IpProtocol": "tcp", kind: [{key: cidr}]}
    return put({"GroupName": "x", "IpPermissions": [permission]}, "provider", "security_group")


HEAD, WORKER = "head_start_ray_commands", "worker_start_ray_commands"
EXPORT = "export RAY_AUTH_MODE=token;"
SPOILT: list[tuple[Check, Callable[[Config], None]]] = [
    (check_addresses, replaced(HEAD, "host=127.0.0.1", "host=0.0.0.0")),
    (check_addresses, replaced(HEAD, "host=127.0.0.1", "host=::")),
    (check_addresses, rule("0.0.0.0/0")),
    (check_addresses, rule("0.0.0.0/1")),
    (check_addresses, rule("203.0.0.0/8")),
    (check_addresses, rule("::/0", "Ipv6Ranges")),
    (check_addresses, rule("2001:db8::/32", "Ipv6Ranges")),
    (check_security_group, rule("203.0.113.7/32")),
    (
        check_security_group,
        dropped("available_node_types", "head", "node_config", "SecurityGroupIds"),
    ),
    (
        check_security_group,
        put([], "available_node_types", "gpu", "node_config", "SecurityGroupIds"),
    ),
    (check_token, replaced(HEAD, EXPORT, "")),
    (check_token, replaced(WORKER, EXPORT, "")),
    (check_token, dropped(HEAD)),
    (check_token, dropped("file_mounts", TOKEN_FILE)),
    (check_token, dropped("initialization_commands")),
    (check_token, replaced("initialization_commands", "chmod 600", "chmod 644")),
    (check_token, replaced(HEAD, EXPORT, EXPORT + " export RAY_AUTH_TOKEN=abc;")),
    (check_dashboard, replaced(HEAD, "--dashboard-host=127.0.0.1", "")),
    (check_dashboard, replaced(HEAD, "host=127.0.0.1", "host=10.0.0.5")),
    (check_dashboard, dropped(HEAD)),
    (check_ray_version, replaced("setup_commands", f"=={locked_ray()}", "")),
    (check_ray_version, replaced("setup_commands", f"=={locked_ray()}", "==2.51.0")),
    (check_ray_version, replaced("setup_commands", f"=={locked_ray()}", f">={locked_ray()}")),
    (check_ray_version, dropped("setup_commands")),
    (check_head_is_empty, put(2, "available_node_types", "head", "resources", "CPU")),
    (check_head_is_empty, dropped("available_node_types", "head", "resources", "CPU")),
    (check_head_is_empty, replaced(HEAD, "--num-cpus=0", "")),
    (check_workers, put(1, "available_node_types", "gpu", "min_workers")),
    (check_workers, put(0, "available_node_types", "gpu", "resources", "GPU")),
    (check_workers, put(0, "idle_timeout_minutes")),
    (check_workers, dropped("provider", "cache_stopped_nodes")),
    (check_address, replaced("head_setup_commands", "RAY_ADDRESS=auto", "RAY_ADDRESS=local")),
    (check_address, replaced("setup_commands", "export PATH", "export RAY_ADDRESS=auto PATH")),
    (check_tree, put([], "rsync_exclude")),
    (check_tree, dropped("file_mounts", "~/recurrent-bench")),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_file_passes(config: Config, check: Check) -> None:
    assert check(config) == []


@pytest.mark.parametrize("number", range(len(SPOILT)))
def test_a_spoilt_copy_does_not(number: int) -> None:
    check, spoil = SPOILT[number]
    raw = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    assert check(prepared(raw)) == []
    spoil(raw)
    if check is check_workers and "cache_stopped_nodes" not in raw["provider"]:
        raw["provider"]["cache_stopped_nodes"] = True  # what Ray takes a missing key for
    assert check(prepared(raw)) != []


def test_every_check_has_a_spoilt_copy() -> None:
    assert {check for check, _ in SPOILT} == set(CHECKS)


def test_rays_own_schema(config: Config) -> None:
    validate_config(config)
    for spoil in (put("ten", "max_workers"), put(1, "max_wokers"), dropped("provider")):
        bad = copy.deepcopy(config)
        spoil(bad)
        with pytest.raises(jsonschema.ValidationError):
            validate_config(bad)


def test_validation_needs_no_boto3() -> None:
    program = (
        "import sys, yaml; sys.modules['boto3'] = None\n"  # importing it now raises
        "from ray.autoscaler._private.util import prepare_config, validate_config\n"
        f"validate_config(prepare_config(yaml.safe_load(open({str(ROOT / 'cluster.yaml')!r}))))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_nothing_is_left_to_rays_defaults() -> None:
    """Where a list is missing Ray fills in its own: an open dashboard, another Ray."""
    raw = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    for key in (*COMMANDS, "setup_commands", "idle_timeout_minutes", "available_node_types"):
        assert key in raw, key


def run_initialization(config: Config, home: Path) -> list[int]:
    return [
        subprocess.run(
            ["bash", "-c", line],
            env={"HOME": str(home), "PATH": os.environ["PATH"]},
            capture_output=True,
            timeout=20,
        ).returncode
        for line in config["initialization_commands"]
        if not line.startswith("cloud-init")
    ]


def test_initialization_makes_the_token_private_and_known(config: Config, tmp_path: Path) -> None:
    """The commands themselves, run twice in a home of their own."""
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("0" * 64)
    token.chmod(0o644)
    (tmp_path / ".bashrc").write_text("case $- in *i*) ;; *) return ;; esac\n")
    for _ in range(2):
        assert set(run_initialization(config, tmp_path)) == {0}
    assert token.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / ".bashrc").read_text().splitlines()[0] == "export RAY_AUTH_MODE=token"
    assert (tmp_path / ".bashrc").read_text().count("RAY_AUTH_MODE") == 1


@pytest.mark.parametrize("content", [None, ""])
def test_no_token_no_node(config: Config, tmp_path: Path, content: str | None) -> None:
    (tmp_path / ".bashrc").write_text("# empty\n")
    if content is not None:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text(content)
    assert any(run_initialization(config, tmp_path))


def test_the_page_opens_ssh_to_one_address_only() -> None:
    """docs/aws.md makes the security group that the file names."""
    page = (ROOT / "docs" / "aws.md").read_text()
    ranges = re.findall(r"[0-9.]+/\d+", page)
    assert ranges and all(ipaddress.ip_network(each).num_addresses == 1 for each in ranges)
    assert "0.0.0.0" not in page and "::/0" not in page
    ingress = [line for line in page.splitlines() if "authorize-security-group-ingress" in line]
    assert len(ingress) == 2
    assert all("--cidr $MY_ADDRESS" in line or "--source-group" in line for line in ingress)
    for placeholder in ("sg-0123456789abcdef0", "ami-0123456789abcdef0"):
        assert placeholder in page and placeholder in (ROOT / "cluster.yaml").read_text()
