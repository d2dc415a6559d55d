"""What every fuzzed input is held to: an answer or one clear line, in time, and nothing elsewhere.

An input is a finding when it raises anything but BadInput, when the line is no line or does not say
what it is about, when it takes over LIMIT_S of processor time, when the process grows by over
GROWTH bytes, or when Python writes, renames or removes outside the folder, starts a process, goes
to the network or unpickles. What native code writes is seen by listing the folder around it.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import BadInput

LIMIT_S = 5.0
GROWTH = 2**30

_PATHS = {
    "os.mkdir": (0,), "os.remove": (0,), "os.rmdir": (0,), "os.rename": (0, 1), "os.link": (1,),
    "os.symlink": (1,), "os.chmod": (0,), "os.chown": (0,), "os.utime": (0,), "os.mkfifo": (0,),
}  # fmt: skip
_NEVER = ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec",
          "os.posix_spawn", "os.fork", "pickle.find_class")  # fmt: skip


@dataclass(frozen=True)
class Target:
    """Something that reads what others wrote.

    read: takes the input and an empty folder that it is in and may write to. says: what a refusal
        names, one of them at least. seeds: good inputs. tokens: what is worth trying in an input.
    """

    read: Callable[[bytes, Path], None]
    says: tuple[str, ...]
    seeds: Callable[[], list[bytes]]
    tokens: tuple[bytes, ...] = ()


@dataclass
class Watch:
    """Notes what Python does outside `inside` while it is `awake`; Python has no way to unhook."""

    inside: Path
    awake: bool = False
    seen: list[str] = field(default_factory=list)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.awake:
            return
        if event in _NEVER:
            self.seen.append(f"{event} {arguments!r:.200}")
        elif event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and isinstance(path, str | bytes):
                self._note(event, os.path.realpath(os.fsdecode(path)))
        elif event in _PATHS:
            descriptor = arguments[-1] if isinstance(arguments[-1], int) else -1
            for place in _PATHS[event]:
                if isinstance(arguments[place], str | bytes | os.PathLike):
                    self._note(event, _named(arguments[place], descriptor))

    def _note(self, event: str, path: str) -> None:
        if path != os.devnull and not Path(path).is_relative_to(self.inside):
            self.seen.append(f"{event} {path}")


def _named(path: Any, descriptor: int) -> str:
    """Returns the path of a name itself: of its folder links are followed, of the name not."""
    base = os.readlink(f"/proc/self/fd/{descriptor}") if descriptor >= 0 else "."  # noqa: PTH115
    whole = Path(base, os.fsdecode(path))
    return str(Path(os.path.realpath(whole.parent), whole.name))


@contextmanager
def place(folder: Path) -> Iterator[Watch]:
    """Makes `folder`/inside, the only one that may be written, and stays in it; the hook stays."""
    inside = Path(os.path.realpath(folder)) / "inside"
    (inside.parent / "beside").mkdir(parents=True)
    (inside.parent / "beside" / "keep.txt").write_text("keep")
    inside.mkdir()
    folders = {"HOME": "home", "BENCH_CACHE": "cache", "BENCH_DATA": "data"}
    folders["TORCHINDUCTOR_CACHE_DIR"] = "torch"  # torch makes it on the first draw on "meta"
    before, cwd = {name: os.environ.get(name) for name in (*folders, "RAY_ADDRESS")}, Path.cwd()
    os.environ |= {name: str(inside / value) for name, value in folders.items()}
    os.environ.pop("RAY_ADDRESS", None)
    watch = Watch(inside)
    tempfile.gettempdir()  # which tries the folder, but once
    sys.addaudithook(watch.hook)
    os.chdir(inside)
    try:
        yield watch
    finally:
        watch.awake = False
        os.chdir(cwd)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def complaint(target: Target, data: bytes, watch: Watch) -> str:
    """Feeds one input to a target; returns what is wrong with how it took it, or nothing."""
    said, seconds = _once(target, data, watch)
    if not said and seconds > LIMIT_S:
        said = f"slow: {seconds:.1f} s of processor time"
    return said


def _once(target: Target, data: bytes, watch: Watch) -> tuple[str, float]:
    _empty(watch.inside)
    before, peak, began = _around(watch.inside), _peak(), time.process_time()
    said = ""
    watch.seen.clear()
    watch.awake = True
    try:
        target.read(data, watch.inside)
    except KeyboardInterrupt:
        raise
    except BadInput as error:
        said = _unclear(str(error), target.says)
    except BaseException:
        said = traceback.format_exc()
    finally:
        watch.awake = False
    seconds = time.process_time() - began
    if watch.seen:
        said = f"outside: {watch.seen[0]}\n{said}"
    elif _around(watch.inside) != before:
        said = f"outside: files around the folder changed\n{said}"
    elif not said and _peak() - peak > GROWTH:
        said = f"memory: grew by {(_peak() - peak) / 2**20:,.0f} MiB"
    return said, seconds


def _empty(folder: Path) -> None:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            Path(entry.path).unlink()


def _around(inside: Path) -> list[tuple[str, int, int]]:
    """Returns name, size and time of everything beside the folder."""
    found = [*inside.parent.iterdir(), *(inside.parent / "beside").rglob("*")]
    stats = [(str(path), path.lstat()) for path in found if path != inside]
    return sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _unclear(line: str, says: tuple[str, ...]) -> str:
    if not line.strip() or not line.isprintable() or len(line) > 1000:
        return f"unclear: no printable line: {line!r}"
    return "" if any(word in line for word in says) else f"unclear: names nothing: {line}"


def kind(said: str) -> str:
    """Returns 8 digits that are the same for complaints of one cause: its kind and last place."""
    lines = said.strip().splitlines()
    ours = [line for line in lines if line.startswith('  File "')]
    what = lines[-1].split(":")[0] if ours else " ".join(lines[0].split()[:2])
    return hashlib.sha256(f"{what}{ours[-2:]}".encode()).hexdigest()[:8]


def keep(folder: Path, name: str, data: bytes, said: str) -> bool:
    """Writes a finding, the shortest input of its cause; returns whether the cause is new."""
    path = folder / f"{name}-{kind(said)}.bin"
    new = not path.exists()
    if new or path.stat().st_size > len(data):
        path.write_bytes(data)
        path.with_suffix(".txt").write_text(said, errors="backslashreplace")
    return new
