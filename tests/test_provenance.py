"""Where a run happened: commit, processor, versions, peak memory."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

import bench
from bench import provenance
from bench.store import RUNS

NOWHERE = {"git_commit": None, "git_dirty": None}


def git(folder: Path, *words: str) -> str:
    names = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *names, "-C", str(folder), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def checkout(folder: Path) -> Path:
    """A repository with a bench/ in it, and one commit."""
    (folder / "bench").mkdir(parents=True)
    (folder / "bench" / "__init__.py").write_text("")
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "first")
    return folder


@pytest.fixture
def of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], dict[str, Any]]:
    """What provenance says when bench lies in a folder."""

    def ask(folder: Path) -> dict[str, Any]:
        monkeypatch.setattr(bench, "__file__", str(folder / "bench" / "__init__.py"))
        return provenance.git.__wrapped__()

    return ask


Ask = Callable[[Path], dict[str, Any]]


def test_commit_and_uncommitted_changes(tmp_path: Path, of: Ask) -> None:
    root = checkout(tmp_path / "clone")
    commit = git(root, "rev-parse", "HEAD")
    assert len(commit) == 40
    assert of(root) == {"git_commit": commit, "git_dirty": False}
    (root / "results").mkdir()
    (root / "results" / "new").write_text("untracked")
    assert of(root)["git_dirty"] is False, "records and scratch files change no code"
    (root / "bench" / "__init__.py").write_text("x = 1\n")
    assert of(root) == {"git_commit": commit, "git_dirty": True}
    git(root, "add", ".")
    assert of(root)["git_dirty"] is True, "staged is not committed"
    git(root, "commit", "--quiet", "-m", "second")
    assert of(root) == {"git_commit": git(root, "rev-parse", "HEAD"), "git_dirty": False}
    assert of(root)["git_commit"] != commit


def test_outside_a_repository(tmp_path: Path, of: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").write_text("")
    assert of(tmp_path) == NOWHERE
    monkeypatch.setenv("PATH", str(tmp_path))  # no git at all
    assert of(tmp_path) == NOWHERE


def test_a_copy_inside_somebody_elses_repository_has_no_commit(tmp_path: Path, of: Ask) -> None:
    """As in their .venv/lib/python3.11/site-packages: their commit is not ours."""
    root = checkout(tmp_path / "theirs")
    site = root / ".venv" / "site-packages"
    (site / "bench").mkdir(parents=True)
    (site / "bench" / "__init__.py").write_text("")
    assert of(site) == NOWHERE


def test_a_repository_without_a_commit(tmp_path: Path, of: Ask) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").write_text("")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    found = of(tmp_path)
    assert found["git_commit"] is None


def test_a_git_hook_does_not_mislead(
    tmp_path: Path, of: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = checkout(tmp_path / "ours"), checkout(tmp_path / "theirs")
    (theirs / "bench" / "__init__.py").write_text("y = 2\n")
    git(theirs, "commit", "--quiet", "-am", "theirs")
    commit = git(ours, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(theirs / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(theirs))
    assert of(ours) == {"git_commit": commit, "git_dirty": False}


def test_the_commit_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    provenance.git()
    monkeypatch.setattr(subprocess, "run", None)
    provenance.git()


# --- the process ----------------------------------------------------------------------------------


def test_what_is_known_of_a_process() -> None:
    found = provenance.of_process("cpu")
    assert found == {
        "host": socket.gethostname(),
        "device": provenance.cpu_name(),
        "torch": torch.__version__,
        "cuda": None,
        "cudnn": None,
        "driver": None,
        "python": platform.python_version(),
    }
    assert type(found["torch"]) is str, "torch's own class does not travel as JSON"


def test_every_word_of_it_is_a_column() -> None:
    columns = {column.name: column for column in RUNS}
    words = {**provenance.of_process("cpu"), **provenance.git(), "peak_mem_bytes": 1}
    words |= provenance.of_thread("cpu")
    assert set(words) <= set(columns)
    assert not any(columns[name].result for name in words), "two machines may differ in them"


@pytest.fixture
def cpuinfo(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], str]:
    """What cpu_name says for a text of /proc/cpuinfo; None: there is no such file."""

    def ask(text: str | None) -> str:
        def read(path: Path) -> str:
            assert str(path) == "/proc/cpuinfo"
            if text is None:
                raise FileNotFoundError
            return text

        monkeypatch.setattr(Path, "read_text", read)
        return provenance.cpu_name.__wrapped__()

    return ask


def test_cpu_name(cpuinfo: Callable[[str | None], str], monkeypatch: pytest.MonkeyPatch) -> None:
    text = "processor\t: 0\nmodel\t\t: 85\nmodel name\t: Some CPU @ 2.00GHz: X\nflags\t: a b\n"
    assert cpuinfo(text + text) == "Some CPU @ 2.00GHz: X"
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert cpuinfo("processor\t: 0\nBogoMIPS\t: 50\n") == "arm64"
    assert cpuinfo(None) == "arm64"
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert cpuinfo(None) == "arm"


# --- driver and switches --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC "
            "2023\nGCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)\n",
            "535.104.05",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.54.15  Release Build  "
            "(dvs-builder@U16-I3-A15-3-1)  Tue Mar  5 22:14:12 UTC 2024\n",
            "550.54.15",
        ),
        ("NVRM version: NVIDIA UNIX aarch64 Kernel Module  580.65  Mon\n", "580.65"),
    ],
)
def test_the_drivers_version(text: str, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda path: text)
    assert provenance.nvidia_driver() == version


def test_without_a_driver_there_is_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    def absent(name: str) -> None:
        assert name == "libnvidia-ml.so.1"
        raise OSError(name)

    monkeypatch.setattr(Path, "read_text", lambda path: "another text")
    monkeypatch.setattr(ctypes, "CDLL", absent)
    assert provenance.nvidia_driver() is None


@pytest.fixture
def switches() -> Iterator[None]:
    """Puts torch's own switches back."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark, cudnn.enabled
    yield
    torch.set_flush_denormal(False)
    torch.use_deterministic_algorithms(False)
    cudnn.deterministic, cudnn.benchmark, cudnn.enabled = before


@pytest.mark.usefixtures("switches")
def test_switches_are_those_of_torch_and_of_this_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def on(device: str = "cpu") -> str:
        return str(provenance.of_thread(device)["determinism"])

    torch.set_flush_denormal(False)
    torch.use_deterministic_algorithms(False)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.set_flush_denormal, True).result(), "this processor cannot"
        assert pool.submit(on).result() == "flush denormals"
        assert on() == "none", "the switch is of a thread"
    torch.set_flush_denormal(True)
    assert on() == "flush denormals"
    torch.use_deterministic_algorithms(True)
    assert on() == "deterministic algorithms, flush denormals"
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert on() == "deterministic algorithms, warnings only, flush denormals"
    torch.use_deterministic_algorithms(False)
    cudnn = torch.backends.cudnn
    cudnn.deterministic, cudnn.benchmark, cudnn.enabled = True, False, True
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    assert on() == "flush denormals", "of a GPU's switches a CPU's run says nothing"
    assert on("cuda") == "flush denormals, cudnn deterministic, CUBLAS_WORKSPACE_CONFIG=:16:8"
    cudnn.deterministic, cudnn.benchmark, cudnn.enabled = False, True, False
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    assert on("cuda") == "flush denormals, cudnn benchmark, cudnn off"


@pytest.mark.usefixtures("switches")
def test_a_trials_switches_are_what_its_thread_is_prepared_with() -> None:
    from bench.loop import prepare_thread

    prepare_thread(torch.device("cpu"))
    assert provenance.of_thread("cpu") == {"determinism": "flush denormals"}


# --- peak memory ----------------------------------------------------------------------------------


def touched(size: int) -> bytearray:
    """Memory that is really there: every page written."""
    block = bytearray(size)
    block[:: os.sysconf("SC_PAGE_SIZE")] = b"x" * len(block[:: os.sysconf("SC_PAGE_SIZE")])
    return block


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can reset the peak of a process")
def test_peak_memory_grows_and_is_forgotten_between_trials() -> None:
    size = 192 * 2**20
    provenance.reset_peak_memory("cpu")
    before = provenance.peak_memory("cpu")
    assert before is not None and before > 2**20
    block = touched(size)
    during = provenance.peak_memory("cpu")
    assert during is not None and during >= before + 0.9 * size
    del block
    after = provenance.peak_memory("cpu")
    assert after is not None and after > during - 0.1 * size, "a peak stays"
    provenance.reset_peak_memory("cpu")
    again = provenance.peak_memory("cpu")
    assert again is not None and again < during - 0.9 * size


def test_without_proc_the_peak_is_the_systems_own(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    def absent(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    monkeypatch.setattr(Path, "write_text", absent)
    provenance.reset_peak_memory("cpu")
    unit = 1 if sys.platform == "darwin" else 1024
    assert (
        provenance.peak_memory("cpu") == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    )
