"""Where a run happened: host, device, versions, commit, peak memory."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import platform
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import bench


@functools.cache
def of_process(device: str) -> dict[str, Any]:
    """Returns host, device, torch, cuda, cudnn, driver, python; looked up once per process."""
    import torch

    on_gpu = device == "cuda"
    cudnn = torch.backends.cudnn.version() if on_gpu else None  # type: ignore[no-untyped-call]
    return {
        "host": socket.gethostname(),
        "device": torch.cuda.get_device_name() if on_gpu else cpu_name(),
        "torch": str(torch.__version__),
        "cuda": torch.version.cuda if on_gpu else None,
        "cudnn": None if cudnn is None else str(cudnn),
        "driver": nvidia_driver() if on_gpu else None,
        "python": platform.python_version(),
    }


def of_thread(device: str) -> dict[str, Any]:
    """Returns determinism: the switches that are on, as this thread and torch have them now.

    Asked when a run has ended, on the thread that trained: a plugin may have changed any of them.
    """
    import torch

    cudnn = torch.backends.cudnn
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    algorithms = torch.are_deterministic_algorithms_enabled()
    # Torch has no question for it. Halved, the smallest normal float is a denormal.
    smallest = torch.tensor([torch.finfo(torch.float32).tiny], dtype=torch.float32, device="cpu")
    switches = {
        f"deterministic algorithms{', warnings only' if warned else ''}": algorithms,
        "flush denormals": not (smallest / 2).any().item(),
    }
    if device == "cuda":
        workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
        switches |= {
            "cudnn deterministic": cudnn.deterministic,
            "cudnn benchmark": cudnn.benchmark,
            "cudnn off": not cudnn.enabled,
            f"CUBLAS_WORKSPACE_CONFIG={workspace}": workspace is not None,
        }
    return {"determinism": ", ".join(name for name, on in switches.items() if on) or "none"}


def nvidia_driver() -> str | None:
    """Returns the version of NVIDIA's driver, None where nothing tells it."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        text = ""
    # NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023
    found = re.search(r"Kernel Module\b.*?\s(\d+(?:\.\d+)+)\s", text)
    return found[1] if found else _nvml_driver()


def _nvml_driver() -> str | None:
    """Asks the driver's own library: containers may lack the file in /proc."""
    answer = ctypes.create_string_buffer(80)
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        if nvml.nvmlInit_v2() or nvml.nvmlSystemGetDriverVersion(answer, len(answer)):
            return None
        nvml.nvmlShutdown()
    except (OSError, AttributeError):
        return None
    return answer.value.decode(errors="replace") or None


@functools.cache
def cpu_name() -> str:
    """Returns the processor's model name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@functools.cache
def git() -> dict[str, Any]:
    """Returns git_commit and git_dirty of the checkout the harness runs from, or nulls."""
    root = Path(bench.__file__).resolve().parent.parent
    # Inside a git hook, GIT_DIR and its kin name the repository of the hook.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}

    def ask(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "--no-optional-locks", "-C", str(root), *words],
                capture_output=True,
                text=True,
                timeout=10,
                env=environment,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout if done.returncode == 0 else None

    # An installed copy may lie inside somebody else's repository: then its commit is not ours.
    if ask("ls-files", "--error-unmatch", "bench/__init__.py") is None:
        return {"git_commit": None, "git_dirty": None}
    commit = ask("rev-parse", "HEAD")
    # A new file counts where it can move numbers; elsewhere it may be anything.
    changes = ask("status", "--porcelain", "--untracked-files=no")
    new = ask("status", "--porcelain", "--", "bench", "cells", "regularizers")
    if changes is not None:
        changes += new or ""
    return {
        "git_commit": commit.strip() if commit else None,
        "git_dirty": None if changes is None else bool(changes.strip()),
    }


def reset_peak_memory(device: str) -> None:
    """Forgets the peak so far, so that a reused process counts each trial by itself."""
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return
    with contextlib.suppress(OSError, AttributeError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)  # what the trial before freed and the process kept
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: resets VmHWM


def peak_memory(device: str) -> int | None:
    """Returns the peak in bytes: of the device, or of this process on a CPU."""
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
