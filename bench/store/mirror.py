"""Results in a bucket: a local folder that mirrors them; each record is sent when it is written.

Everything else of the harness reads and writes plain files. A record is one object, which appears
whole or not at all, so a reader of the bucket never meets half of one. There are no locks between
machines: two drivers may train one trial twice, and then write equal records.

Nothing is lost when a driver dies, or the network: what was written here and not yet sent is seen
by its time and size, which differ from those in the index, and the next start sends it first.
Readers have a mirror of their own, which holds what the bucket holds and sends nothing by itself.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from bench.corpora import cache_dir
from bench.errors import BadInput
from bench.storage import Found, Storage, is_remote, local_path, open_storage
from bench.store.index import CLOCKS, Entry, Index, local_state
from bench.store.parts import StoreError
from bench.store.upload import Uploads, send, with_runs

PULLED = ("grids", "epochs", "runs")
"""What a mirror holds of the bucket; weights come when they are asked for, reports never."""
SENT = ("weights", "epochs", "runs", "grids", "reports")
"""What goes to the bucket, in this order: the record of a run, which makes it count, comes late."""
_THREADS = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass
class Results:
    """A results folder; where it mirrors a bucket, what is written is sent by `push`."""

    location: str
    folder: Path
    push: Callable[[Iterable[str]], None] = field(default=lambda names: None)
    """Takes names of files, `grids/quick.json` say, that are written; returns at once."""
    fetch: Callable[[str], None] = field(default=lambda name: None)
    """Brings a file, `weights/0123456789ab.safetensors` say, or all of a folder. BadInput."""

    def push_run(self, run_id: str) -> None:
        """Sends a run that `write_run` has written: weights, epochs and last its record."""
        self.push(with_runs([f"runs/{run_id}.parquet"]))


@contextlib.contextmanager
def results_folder(
    location: str | Path, *, write: bool, may_be_empty: bool = False
) -> Iterator[Results]:
    """Yields the results at a folder or URL as a local folder; a folder is yielded as it is.

    A URL that only is read must hold results, unless it `may_be_empty`. Raises BadInput, and
    StoreError at the end if what was written could not be sent: it is kept, and the next start with
    `write` sends it.
    """
    location = str(location)
    storage = _open(location)
    if not is_remote(location):
        yield Results(location, local_path(location))
        return
    name = hashlib.sha256(location.rstrip("/").encode()).hexdigest()[:16]
    folder = cache_dir() / "results-mirror" / f"{name}-{'write' if write else 'read'}"
    for part in PULLED:
        (folder / part).mkdir(parents=True, exist_ok=True)
    index = Index(folder / "index.jsonl")
    try:
        weights = _pull(storage, folder, index, write)
    except OSError as error:
        raise BadInput(f"--results {error.strerror or error}") from None
    if not (write or may_be_empty) and not any(
        p for part in PULLED for p in (folder / part).iterdir()
    ):
        raise BadInput(f"--results {location}: holds no results")

    def fetch(name: str) -> None:
        part = name.partition("/")[0]
        try:
            there = storage.listing(part)
            _fetch(storage, folder, index, there, name)
        except OSError as error:
            raise BadInput(f"--results {error.strerror or error}") from None
        for gone in {*_local(folder, [part])} - there.keys() - {*(_unsent(folder, index) * write)}:
            if gone.startswith(name):
                (folder / gone).unlink(missing_ok=True)

    uploads = Uploads(storage, folder, index, weights)
    try:
        yield Results(location, folder, uploads.add, fetch)
    finally:
        uploads.close()
    if write and not uploads.trouble:
        uploads.trouble = _send_rest(storage, folder, index, weights)
    if uploads.trouble:
        count = len(_unsent(folder, index)) if write else len(uploads.left)
        raise StoreError(
            f"--results {uploads.trouble}; {count} files wait in {folder}: "
            "run the same command again, which sends them"
        )


def _open(location: str) -> Storage:
    try:
        return open_storage(location)
    except BadInput as error:
        raise BadInput(f"--results {error}") from None
    except OSError as error:
        raise BadInput(f"--results {error.strerror or error}") from None


def _send_rest(storage: Storage, folder: Path, index: Index, weights: set[str]) -> str:
    """Sends what nobody pushed; returns what went wrong."""
    try:
        _send(storage, folder, index, weights, _unsent(folder, index))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _unsent(folder: Path, index: Index) -> list[str]:
    """Returns the files here that are not as they were last fetched or sent, in order to send."""
    names = _local(folder, SENT)
    return [n for n in names if n not in index or index[n].local != local_state(folder / n)]


def _local(folder: Path, parts: Iterable[str]) -> list[str]:
    found = []
    for part in parts:
        with contextlib.suppress(FileNotFoundError):
            names = sorted(os.listdir(folder / part))  # noqa: PTH208 - no Path for each of 100,000
            found += [f"{part}/{name}" for name in names if _NAME.fullmatch(name)]
    return found


def _pull(storage: Storage, folder: Path, index: Index, write: bool) -> set[str]:
    """Makes the mirror equal to the bucket, what is not yet sent first; OSError.

    Returns the weights that the bucket holds.
    """
    with FileLock(folder.with_suffix(".lock")):
        index.load()
        with ThreadPoolExecutor(len(SENT)) as threads:
            listings = dict(zip(SENT, threads.map(storage.listing, SENT), strict=True))
        there = {n: found for part in SENT for n, found in listings[part].items() if _ours(n)}
        weights = {n for n in there if n.startswith("weights/")}
        unsent = _unsent(folder, index) if write else []
        newer = [n for n in unsent if not _overtaken(folder / n, index.get(n), there.get(n))]
        _send(storage, folder, index, weights, newer)
        there = {n: found for n, found in there.items() if n not in {*newer}}
        pulled = {n: found for n, found in there.items() if n.partition("/")[0] in PULLED}
        _fetch(storage, folder, index, pulled, "")
        for name in _local(folder, PULLED):
            known = index.get(name)
            # Not what another driver on this machine has written meanwhile.
            settled = known is not None and known.local == local_state(folder / name)
            if settled and name not in there and name not in newer:
                (folder / name).unlink(missing_ok=True)
        index.save({*there, *newer})
        return weights


def _ours(name: str) -> bool:
    part, _, rest = name.partition("/")
    return part in SENT and _NAME.fullmatch(rest) is not None


def _overtaken(path: Path, known: Entry | None, found: Found | None) -> bool:
    """Says whether the bucket's file has changed since, too, and after the one here."""
    if found is None or (known is not None and known.is_of(found)):
        return False
    return found.modified is not None and found.modified > path.stat().st_mtime


def _send(
    storage: Storage, folder: Path, index: Index, weights: set[str], names: list[str]
) -> None:
    """Sends files side by side, but one part after the other. OSError."""
    names = with_runs(names)
    with ThreadPoolExecutor(_THREADS) as threads:
        for part in SENT:
            some = [n for n in names if n.startswith(f"{part}/")]
            list(threads.map(lambda n: send(storage, folder, index, weights, n), some))


def _fetch(
    storage: Storage, folder: Path, index: Index, there: dict[str, Found], prefix: str
) -> None:
    """Fetches what is not here as it is in the bucket. OSError."""
    now = time.time()

    def bring(name: str) -> None:
        path, found = folder / name, there[name]
        before = local_state(path)
        content = storage.get(name)
        if content is None:
            return
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(content)  # not synced: it can be fetched again
        if found.modified is not None:
            os.utime(temporary, (found.modified, found.modified))
        if local_state(path) == before:  # else a driver of this machine has just written it
            temporary.replace(path)
            # A bucket's times are of whole seconds: a young file may change and look the same.
            settled = found.modified is not None and found.modified < now - CLOCKS
            index.note(name, Entry(found if settled else None, local_state(path)))
        temporary.unlink(missing_ok=True)

    missing = [
        name
        for name, found in there.items()
        if name.startswith(prefix)
        and _ours(name)
        and not _here(folder, index.get(name), name, found)
    ]
    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(bring, missing))


def _here(folder: Path, known: Entry | None, name: str, found: Found) -> bool:
    return (
        known is not None
        and known.is_of(found)
        and known.local is not None
        and known.local == local_state(folder / name)
    )
