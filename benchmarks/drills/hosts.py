"""Test hosts on this machine: what runs in one sees neither the others nor the machine.

`in_a_world` runs a program in namespaces of its own: process 1 of a new table of processes, with
its own network, mounts, host name and /tmp. There it makes a bridge and hosts, which are namespaces
inside, each with its own address, sshd, /tmp, /dev/shm, /home and user `ubuntu`. Nothing of this
has a name outside, so nothing can stay behind: with process 1 the kernel ends every process of the
world and of its hosts, and with the last process go mounts, bridge and links.

Root is needed, for the mounts. The user `ubuntu` of a host is therefore uid 0 under another name.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.drills.host_files import SSHD_CONFIG, STUBS

USER = "ubuntu"
GATEWAY = "10.77.0.1"
NEEDS = ("unshare", "nsenter", "ip", "mount", "ssh", "ssh-keygen", "rsync", "git", "make", "tmux")
SSHD = "/usr/sbin/sshd"
NEW = ("--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc")


@dataclass
class Host:
    """One host: its name, address, folder on this machine, and the process that holds it."""

    name: str
    address: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def home(self) -> Path:
        """The home of its user, as this machine sees it."""
        return self.folder / "home" / USER

    def cut(self) -> None:
        """Takes it off the network."""
        _run("ip", "link", "set", self.name, "down")

    def bring_back(self) -> None:
        _run("ip", "link", "set", self.name, "up")

    def processes(self) -> list[str]:
        """Returns the command lines of what runs in it, sshd and its sessions aside."""
        here = Path(f"/proc/{self.process.pid}/ns/pid_for_children").readlink()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and (entry / "ns" / "pid").readlink() == here:
                    name, state = (entry / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                    if name != "sshd" and not state.startswith(" Z"):
                        found.append(line or name)  # in the midst of exec there is no line
            except OSError:  # it has ended
                continue
        return found


def lacking() -> str | None:
    """Returns why no hosts can be made here, or None."""
    if not sys.platform.startswith("linux"):
        return "needs Linux's namespaces"
    if os.geteuid() != 0:
        return "needs root: hosts are made of namespaces and mounts"
    absent = [name for name in NEEDS if shutil.which(name) is None]
    if not Path(SSHD).exists():
        absent.append("sshd")
    if absent:
        return f"not installed: {', '.join(absent)}"
    trial = "mount -t tmpfs none /mnt && ip link add name bridge type bridge"
    tried = subprocess.run(["unshare", *NEW, "sh", "-c", trial], capture_output=True, text=True)
    if tried.returncode != 0:
        return f"namespaces are not allowed here: {tried.stderr.strip()}"
    return None


def in_a_world(module: str, argv: Sequence[str], folder: Path) -> int:
    """Runs `python -m module argv` as process 1 of a new world; returns its exit code.

    The program calls `settle` first. Whatever happens here, also SIGINT, SIGTERM and SIGKILL, no
    process of the world outlives this call.
    """
    here = os.getpid()

    def die_with_parent() -> None:
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != here:
            os._exit(1)

    def stop(signum: int, _: object) -> None:
        raise SystemExit(128 + signum)

    before = signal.signal(signal.SIGTERM, stop)
    world = subprocess.Popen(
        ["unshare", *NEW, sys.executable, "-m", module, *argv],
        preexec_fn=die_with_parent,
        start_new_session=True,  # Ctrl-C comes to us alone
    )
    try:
        return world.wait()
    finally:
        if world.poll() is None:
            # Its child is process 1: the kernel ends all others with it.
            children = Path(f"/proc/{world.pid}/task/{world.pid}/children").read_text()
            for pid in children.split():
                os.kill(int(pid), signal.SIGKILL)
            world.wait()
        signal.signal(signal.SIGTERM, before)


def settle(folder: Path, keep: Sequence[Path]) -> None:
    """Gives this world a /tmp, a bridge and a laptop's home, all in `folder`; `keep` stays seen."""
    home = folder / "laptop"
    home.mkdir()
    lines = [*_cover("/tmp", folder / "laptop-tmp", [folder, *keep])]
    _run("sh", "-ec", "\n".join(lines))
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", "name", "bridge", "type", "bridge")
    _run("ip", "addr", "add", f"{GATEWAY}/24", "dev", "bridge")
    _run("ip", "link", "set", "bridge", "up")
    _run("hostname", "laptop")
    _key(folder / "key", "laptop")
    os.environ.update(HOME=str(home), USER=USER, LOGNAME=USER)
    os.environ.pop("TMPDIR", None)
    tempfile.tempdir = None


def start(
    folder: Path, names: Sequence[str], keep: Sequence[Path], environment: Mapping[str, str]
) -> list[Host]:
    """Starts hosts of these names at 10.77.0.11 and up; returns when each answers.

    Every session on a host has `environment`.
    """
    hosts = [
        _start(folder, name, f"10.77.0.{11 + number}", keep, environment)
        for number, name in enumerate(names)
    ]
    for host in hosts:
        wait_until(partial(answers, host), 20, f"{host.name}'s sshd")
    return hosts


def answers(host: Host) -> bool:
    """Returns whether its sshd answers within a second."""
    if host.process.poll() is not None:
        raise RuntimeError(f"{host.name}: {(host.folder / 'sshd.log').read_text()}")
    try:
        with socket.create_connection((host.address, 22), timeout=1) as stream:
            return stream.recv(4) == b"SSH-"
    except OSError:
        return False


def ssh(key: Path, host: Host) -> list[str]:
    """Returns the words that a command to be run on the host follows."""
    words = ["ssh", "-i", str(key), "-o", "LogLevel=ERROR", "-o", "StrictHostKeyChecking=no"]
    return [*words, "-o", "UserKnownHostsFile=/dev/null", f"{USER}@{host.address}"]


def wait_until(holds: Callable[[], object], seconds: float, what: str) -> float:
    """Waits; returns after how many seconds it held. Raises TimeoutError with `what`."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > seconds:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.1)
    return time.monotonic() - began


@contextmanager
def folder() -> Iterator[Path]:
    """A folder that is gone afterwards, mounts under it included."""
    path = Path(tempfile.mkdtemp(prefix="bench-hosts-")).resolve()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _start(
    folder: Path,
    name: str,
    address: str,
    keep: Sequence[Path],
    environment: Mapping[str, str],
) -> Host:
    place = folder / name
    home = place / "home" / USER
    shutil.copytree("/etc/skel", home, dirs_exist_ok=True)
    private = place / "home" / ".sshd"
    for path in (private, home / ".ssh", home / ".local" / "bin"):
        path.mkdir(parents=True)
        path.chmod(0o700)
    shutil.copy(folder / "key.pub", home / ".ssh" / "authorized_keys")
    for stub, text in STUBS.items():
        (home / ".local" / "bin" / stub).write_text(text)
        (home / ".local" / "bin" / stub).chmod(0o755)
    _key(private / "host_key", name)
    words = " ".join(f"{key}={value}" for key, value in environment.items())
    (private / "sshd_config").write_text(SSHD_CONFIG + (f"SetEnv {words}\n" if words else ""))
    # First of all lines, so that uid 0 has this home: ssh looks there for what `~` means.
    user = f"{USER}:x:0:0::/home/{USER}:/bin/bash\n"
    (place / "passwd").write_text(user + Path("/etc/passwd").read_text())
    (place / "resolv.conf").write_text("# no name is looked up outside\n")
    lines = [
        f"hostname {name}",
        f"mount --bind {place}/passwd /etc/passwd",
        f"mount --bind {place}/resolv.conf /etc/resolv.conf",
        "mount -t tmpfs none /dev/shm",
        "mount -t tmpfs none /run",
        "mkdir /run/sshd",
        *_cover("/home", place / "home", keep),
        *_cover("/tmp", place / "tmp", keep),
        f"exec {SSHD} -D -e -f /home/.sshd/sshd_config",
    ]
    with (place / "sshd.log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", *NEW, "sh", "-ec", "\n".join(lines)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        )
    _connect(process.pid, name, address)
    return Host(name, address, place, process)


def _connect(pid: int, name: str, address: str) -> None:
    """Plugs a host into the bridge. The way out leads to the laptop, which forwards nothing."""
    ours, theirs = Path("/proc/self/ns/net").readlink(), Path(f"/proc/{pid}/ns/net")
    wait_until(lambda: theirs.readlink() != ours, 10, f"{name}'s network")
    peer = ["peer", "name", "eth0", "netns", str(pid)]
    _run("ip", "link", "add", "name", name, "type", "veth", *peer)
    _run("ip", "link", "set", name, "master", "bridge", "up")
    inside = ["nsenter", "--target", str(pid), "--net", "ip"]
    _run(*inside, "link", "set", "lo", "up")
    _run(*inside, "addr", "add", f"{address}/24", "dev", "eth0")
    _run(*inside, "link", "set", "eth0", "up")
    _run(*inside, "route", "add", "default", "via", GATEWAY)


def _cover(path: str, with_: Path, keep: Sequence[Path]) -> list[str]:
    """Commands that put `with_` over `path`; what of `keep` lies under it stays where it was."""
    under = [each for each in keep if each.is_relative_to(path)]
    lines = [f"mkdir -p {with_}"]
    for each in under:
        inner = shlex.quote(f"{with_}/{each.relative_to(path)}")
        lines += [f"mkdir -p {inner}", f"mount --bind {shlex.quote(str(each))} {inner}"]
    return [*lines, f"mount --rbind {with_} {path}"]


def _key(path: Path, name: str) -> None:
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(path))


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{shlex.join(words)}: {done.stderr.strip()}")
