"""Downloads a corpus into the data folder: several sources in turn, every text checked by SHA-256.

A file gets its final name only after its hash was found right, by a rename within its folder, so
whoever sees the name sees the whole text. A lock lets one process download and the others wait.
"""

from __future__ import annotations

import errno
import hashlib
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from bench import __version__
from bench.corpora.sources import REMOTE, Source, Text
from bench.errors import BadInput, one_line

TIMEOUT_S = (10.0, 30.0)  # to connect; for each read
DEADLINE_S = 600.0  # for one file, so that a server that drips cannot hold us for ever
LOCK_S = 1800.0
MAX_ZIP_BYTES = 32 * 2**20
# The author's server of WikiText-2 turns away the default agent of Python with 403.
USER_AGENT = f"recurrent-bench/{__version__} (language model benchmark)"

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}

Say = Callable[[str], None]


class _WrongText(Exception):
    """What arrived is not the text that is pinned; its message is a short cause."""


@dataclass
class _Capped:
    """A file to write to that refuses more than `limit` bytes, and anything after a deadline."""

    file: BinaryIO
    limit: int
    ends: float = field(default_factory=lambda: time.monotonic() + DEADLINE_S)
    written: int = 0

    def write(self, data: bytes) -> int:
        self.written += len(data)
        if self.written > self.limit:
            raise _WrongText(f"more than {self.limit:,} bytes")
        if time.monotonic() > self.ends:
            raise _WrongText(f"not complete after {DEADLINE_S:.0f} s")
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def local_path(name: str, split: str, data_dir: Path) -> Path | None:
    """Returns the file of this split in the data folder under any of its names, or None."""
    text = REMOTE[name].texts[split]
    paths = [data_dir / name / file for file in (text.name, *text.other_names)]
    try:
        return next((path for path in paths if path.is_file()), None)
    except OSError:  # a folder that may not be entered: whoever needs the file finds out why
        return None


def fetch(name: str, data_dir: Path, say: Say = lambda line: None) -> None:
    """Makes sure that the texts of a corpus of `REMOTE` lie in `data_dir`, downloading the missing.

    Texts that are there already are left alone and not read. `say` gets a line per step. Raises
    BadInput when a text can be had from no source, or the folder cannot be written.
    """
    import filelock

    texts = REMOTE[name].texts
    if all(local_path(name, split, data_dir) for split in texts):
        return
    folder = data_dir / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (
            filelock.FileLock(folder / ".fetch.lock", timeout=LOCK_S),
            tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as temporary,
        ):
            for split, text in texts.items():
                if not local_path(name, split, data_dir):  # perhaps another process was quicker
                    _obtain(name, text, folder, Path(temporary), say)
    except filelock.Timeout as error:
        raise BadInput(
            f"corpus {name}: another process has been downloading into {folder} for "
            f"{LOCK_S / 60:.0f} minutes; end it, or put the files there yourself"
        ) from error
    except OSError as error:
        missing = [t.name for s, t in texts.items() if not local_path(name, s, data_dir)]
        raise BadInput(
            f"corpus {name}: {', '.join(missing)} missing, and {folder} cannot be written "
            f"({one_line(error.strerror or error, 80)}); choose another folder by --data-dir or "
            "BENCH_DATA, or put the files there"
        ) from error


def _obtain(name: str, text: Text, folder: Path, temporary: Path, say: Say) -> None:
    """Brings one text into its folder, from the first source that has it."""
    part = temporary / text.name
    causes: list[str] = []
    for source in text.sources:
        host = source.url.split("/")[2]
        say(f"{name}: {text.name} from {host}")
        try:
            _download(source, text, part, temporary)
        except Exception as error:  # whatever goes wrong with one source, the next is tried
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                raise  # our own disk: no other source can help
            causes.append(f"{host}: {_cause(error)}")
            say(f"{name}: {causes[-1]}")
        else:
            part.replace(folder / text.name)
            return
    raise BadInput(
        f"corpus {name}: {text.name} could not be downloaded; put it at {folder / text.name} "
        f"({text.size:,} bytes, SHA-256 {text.sha256}), or use --data-dir. "
        f"Last cause: {causes[-1] if causes else 'no source is known'}"
    )


def _cause(error: Exception) -> str:
    """Returns what went wrong in few words; of a failed connection the innermost cause."""
    innermost = one_line(error, 2000).rpartition("Caused by ")[2]
    return one_line(innermost.partition("): ")[2].rstrip("\"')") or innermost, 160)


def _download(source: Source, text: Text, part: Path, temporary: Path) -> None:
    """Writes the text of a source to `part`; raises unless it is exactly the pinned text."""
    if source.member:
        archive = temporary / hashlib.sha256(source.url.encode()).hexdigest()
        if not archive.exists():  # one archive holds all three texts
            _get(source.url, archive, MAX_ZIP_BYTES)
        try:
            _extract(archive, source.member, part, text)
        except (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError) as error:
            raise _WrongText(f"{error} ({_first_bytes(archive)})") from error
    else:
        _get(source.url, part, text.size + 2**16)
    found = sha256_of(part)
    if found != text.sha256:
        raise _WrongText(f"found SHA-256 {found}, {_first_bytes(part)}")


def _get(url: str, to: Path, limit: int) -> None:
    import pooch

    get = pooch.HTTPDownloader(
        timeout=TIMEOUT_S, chunk_size=2**16, headers={"User-Agent": USER_AGENT}
    )
    complete = to.with_name(to.name + ".part")
    with complete.open("wb") as file:
        get(url, _Capped(file, limit), None)
    complete.replace(to)


def _extract(archive: Path, member: str, to: Path, text: Text) -> None:
    """Copies one member by name, never a path from the archive, and no more than it should hold."""
    with zipfile.ZipFile(archive) as opened, opened.open(member) as inside, to.open("wb") as file:
        out = _Capped(file, text.size)
        while block := inside.read(2**20):
            out.write(block)


def sha256_of(path: Path) -> str:
    """Returns the SHA-256 of a file, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_bytes(path: Path) -> str:
    with path.open("rb") as file:
        return f"first bytes {one_line(file.read(40).decode('latin-1'), 40)!r}"


def check(name: str, split: str, path: Path, found: str) -> None:
    """Raises BadInput unless `found` is the SHA-256 that this text must have."""
    text = REMOTE[name].texts[split]
    if found != text.sha256:
        raise BadInput(
            f"corpus {name}: {path} is not the right text: expected SHA-256 {text.sha256}, found "
            f"{found}, {_first_bytes(path)}; delete it and it is downloaded again"
        )
