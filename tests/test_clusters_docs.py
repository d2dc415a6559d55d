"""docs/clusters.md and docs/kuberay.yaml, as far as one machine can hold them to what they say.

The manifest keeps the few rules of Kubernetes and KubeRay that it relies on, and a spoilt copy does
not; the commands of the page are understood. The script for SLURM is in test_clusters_slurm.py.
"""

from __future__ import annotations

import copy
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import commands_page
from tests.cluster_checks import locked_ray, strings

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "clusters.md"
SCRIPT = ROOT / "docs" / "slurm.sbatch"
NAME = "recurrent-bench"
Manifest = dict[str, Any]


@pytest.fixture
def manifest() -> Manifest:
    """The documents of the file by their kind."""
    text = (ROOT / "docs" / "kuberay.yaml").read_text()
    found = list(yaml.safe_load_all(text))
    assert len({one["kind"] for one in found}) == len(found)
    return {one["kind"]: copy.deepcopy(one) for one in found}  # no part shared between two places


def groups(manifest: Manifest) -> list[Manifest]:
    spec = manifest["RayCluster"]["spec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def pods(manifest: Manifest) -> list[Manifest]:
    return [group["template"]["spec"] for group in groups(manifest)]


def containers(manifest: Manifest) -> list[Manifest]:
    return [container for pod in pods(manifest) for container in pod["containers"]]


def variables(container: Manifest) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container["env"]}


# --- the manifest ---------------------------------------------------------------------------------
# Field names, defaults, conditions: KubeRay's RayCluster type and pod builder, v1.5.1 to v1.7.0.


def closed(m: Manifest) -> bool:
    """Nothing in it speaks of all addresses, and no traffic enters but from members."""
    rules = m["NetworkPolicy"]["spec"]
    members = {"ray.io/cluster": m["RayCluster"]["metadata"]["name"]}
    return (
        not any("0.0.0.0" in text or "::" in text for text in strings(m))
        and rules["podSelector"] == {"matchLabels": members}
        and set(rules["policyTypes"]) == {"Ingress", "Egress"}
        and rules["ingress"] == [{"from": [{"podSelector": {"matchLabels": members}}]}]
        and all(rule.get("to") or rule.get("ports") for rule in rules["egress"])
    )


def token(m: Manifest) -> bool:
    """A token by the operator; without one, or with an older operator, Ray refuses to start."""
    spec = m["RayCluster"]["spec"]
    return (
        spec.get("authOptions", {}).get("mode") == "token"
        and all(variables(one).get("RAY_AUTH_MODE") == "token" for one in containers(m))
        and not any("RAY_AUTH_TOKEN" in variables(one) for one in containers(m))
    )


def dashboard(m: Manifest) -> bool:
    """KubeRay's default for a missing dashboard-host is every interface."""
    head = m["RayCluster"]["spec"]["headGroupSpec"]
    return (
        head["rayStartParams"].get("dashboard-host") == "127.0.0.1"
        and head.get("serviceType") == "ClusterIP"
        and not head.get("enableIngress")
    )


def unprivileged(m: Manifest) -> bool:
    """Nobody's user, no capabilities, no account; the autoscaler would bring one into the head."""
    return not m["RayCluster"]["spec"].get("enableInTreeAutoscaling", False) and all(
        pod.get("automountServiceAccountToken") is False
        and "serviceAccountName" not in pod
        and pod["securityContext"]["runAsNonRoot"]
        and pod["securityContext"]["runAsUser"] >= 1000
        and not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
        and not any("hostPath" in volume for volume in pod.get("volumes", []))
        and all(
            one["securityContext"]["allowPrivilegeEscalation"] is False
            and one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            and not one["securityContext"].get("privileged")
            for one in pod["containers"]
        )
        for pod in pods(m)
    )


def versions(m: Manifest) -> bool:
    """One Ray everywhere, that of requirements.lock; rayVersion is text, and tokens need it."""
    return m["RayCluster"]["spec"]["rayVersion"] == locked_ray() and all(
        one["image"].endswith(f":ray{locked_ray()}") for one in containers(m)
    )


def empty_head(m: Manifest) -> bool:
    """KubeRay takes what is missing here from the limits of the container."""
    parameters = m["RayCluster"]["spec"]["headGroupSpec"]["rayStartParams"]
    return (parameters.get("num-cpus"), parameters.get("num-gpus")) == ("0", "0")


def workers(m: Manifest) -> bool:
    """Bounded in number, each with GPUs, whose limit and request Kubernetes wants equal."""
    found = m["RayCluster"]["spec"]["workerGroupSpecs"]
    return bool(found) and all(
        0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        and set(group["template"]["spec"]["containers"][0]["resources"]) == {"requests", "limits"}
        and int(group["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
        and len({str(r) for r in group["template"]["spec"]["containers"][0]["resources"].values()})
        == 1
        for group in found
    )


def replaced(m: Manifest) -> bool:
    """KubeRay makes a new pod for one that ended only where that one may not start again."""
    return all(pod.get("restartPolicy") == "Never" for pod in pods(m))


def shared(m: Manifest) -> bool:
    """One claim, writable by all, mounted at one place everywhere."""
    claim = m["PersistentVolumeClaim"]
    wanted = {"claimName": claim["metadata"]["name"]}
    mounts = {str(one["volumeMounts"]) for one in containers(m)}
    return (
        claim["spec"]["accessModes"] == ["ReadWriteMany"]
        and all([v["persistentVolumeClaim"] for v in pod["volumes"]] == [wanted] for pod in pods(m))
        and len(mounts) == 1
        and all("/shared" in variables(one)["BENCH_DATA"] for one in containers(m))
    )


Rule = Callable[[Manifest], bool]
RULES: list[Rule] = [
    closed, token, dashboard, unprivileged, versions, empty_head, workers, replaced, shared,
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_manifest_keeps_the_rule(manifest: Manifest, rule: Rule) -> None:
    assert rule(manifest), rule.__doc__


CLUSTER = ("RayCluster", "spec")
HEAD = (*CLUSTER, "headGroupSpec")
WORKER = (*CLUSTER, "workerGroupSpecs", 0)
POD = (*WORKER, "template", "spec")
BOX = (*POD, "containers", 0)
POLICY = ("NetworkPolicy", "spec")
SPOILT: list[tuple[Rule, tuple[str | int, ...], object]] = [
    (closed, (*HEAD, "rayStartParams", "node-ip-address"), "0.0.0.0"),
    (closed, (*POLICY, "ingress"), [{}]),
    (closed, (*POLICY, "ingress"), [{"from": [{"podSelector": {}}]}]),
    (closed, (*POLICY, "egress"), [{}]),
    (closed, (*POLICY, "policyTypes"), ["Egress"]),
    (closed, ("RayCluster", "metadata", "name"), "another"),
    (token, (*CLUSTER, "authOptions"), {"mode": "disabled"}),
    (token, (*CLUSTER, "authOptions"), {}),
    (token, (*BOX, "env"), []),
    (token, (*BOX, "env", 0, "value"), "disabled"),
    (token, (*BOX, "env", 1), {"name": "RAY_AUTH_TOKEN", "value": "in the open"}),
    (dashboard, (*HEAD, "rayStartParams", "dashboard-host"), "localhost.example"),
    (dashboard, (*HEAD, "serviceType"), "LoadBalancer"),
    (dashboard, (*HEAD, "enableIngress"), True),
    (unprivileged, (*POD, "automountServiceAccountToken"), True),
    (unprivileged, (*POD, "securityContext", "runAsUser"), 0),
    (unprivileged, (*POD, "hostNetwork"), True),
    (unprivileged, (*POD, "volumes"), [{"hostPath": {"path": "/"}}]),
    (unprivileged, (*BOX, "securityContext", "privileged"), True),
    (unprivileged, (*BOX, "securityContext", "capabilities"), {"drop": []}),
    (unprivileged, (*CLUSTER, "enableInTreeAutoscaling"), True),
    (versions, (*CLUSTER, "rayVersion"), "2.52.0"),
    (versions, (*CLUSTER, "rayVersion"), 2.60),
    (versions, (*BOX, "image"), "registry.example/recurrent-bench:latest"),
    (empty_head, (*HEAD, "rayStartParams", "num-cpus"), "2"),
    (empty_head, (*HEAD, "rayStartParams"), {}),
    (workers, (*WORKER, "replicas"), 9),
    (workers, (*BOX, "resources", "requests"), {"cpu": "4"}),
    (workers, (*BOX, "resources", "limits", "nvidia.com/gpu"), "0"),
    (replaced, (*POD, "restartPolicy"), "Always"),
    (shared, (*BOX, "volumeMounts"), []),
    (shared, ("PersistentVolumeClaim", "metadata", "name"), "another"),
]


@pytest.mark.parametrize(("rule", "path", "value"), SPOILT)
def test_a_spoilt_manifest_breaks_the_rule(
    manifest: Manifest, rule: Rule, path: tuple[str | int, ...], value: object
) -> None:
    place: Any = manifest
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert not rule(manifest)


def test_the_parameters_of_the_manifest_are_options_of_ray_start(manifest: Manifest) -> None:
    from ray.scripts.scripts import start

    known = {option for param in start.params for option in param.opts}
    for group in groups(manifest):
        assert {f"--{name}" for name in group["rayStartParams"]} <= known
        # KubeRay leaves out the value of a flag, and only of a flag.
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_the_image_of_the_page_holds_the_locked_ray() -> None:
    assert f"FROM rayproject/ray:{locked_ray()}-py312\n" in PAGE.read_text()
    assert f"{NAME}:ray{locked_ray()} " in PAGE.read_text()


# --- the commands ---------------------------------------------------------------------------------


def grids(text: str) -> Iterator[list[str]]:
    """The words of every `bench.grid` command, up to a pipe, a comment or a redirection."""
    for rest in re.findall(r"python -m bench\.grid([^'`#>|]*)", text.replace("\\\n", " ")):
        words = shlex.split(rest.replace("…", " ").split("\n")[0])
        if words:
            yield words


@pytest.mark.parametrize("name", ["clusters.md", "aws.md"])
def test_every_grid_command_of_a_page_is_understood(name: str) -> None:
    [(_, command)] = commands_page.commands("grid")
    found = list(grids((ROOT / "docs" / name).read_text()))
    assert len(found) >= 2
    for words in found:
        command.make_context("bench grid", list(words))  # raises for an option that is not there


def test_the_options_of_the_page_and_the_script_are_there() -> None:
    [(_, command)] = commands_page.commands("grid")
    known = {option for param in command.params for option in param.opts}
    named = set(re.findall(r"`(--[a-z-]+)[ `]", PAGE.read_text()))
    named |= set(re.findall(r"^# +sbatch \S+ \S+ (--[a-z-]+)", SCRIPT.read_text(), re.MULTILINE))
    elsewhere = {"--time", "--nodes", "--gpus-per-node", "--cpus-per-task", "--node-ip-address"}
    assert named - elsewhere - known == set()
