"""Results in a bucket: a local folder that mirrors them; each record is sent when it is written.

Everything else of the harness reads and writes plain files. A record is one object, which appears
whole or not at all, so a reader of the bucket never meets half of one. There are no locks between
machines: two drivers may train one trial twice, and then write equal records. Where they are not
equal, the last one that is sent counts, except that `lost` is not sent over a final record.

Nothing is lost when a driver dies, or the network: what was written here and not yet sent is seen
by its time and size, which differ from those in the index, and the next start sends it first;
unless another machine has sent a record of that run meanwhile that counts as much. A file that only
looks unsent, since the index is gone or the cache was copied, is compared byte for byte.

Readers have a mirror of their own, which holds what the bucket holds and sends nothing by itself.
Each server has one, too: a URL alone does not tell two of them apart. A record that was deleted in
the bucket is deleted here; but where none of those known here is left there, nothing is.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bench.corpora import cache_dir
from bench.errors import BadInput
from bench.storage import Storage, is_remote, local_path, open_storage
from bench.storage.bucket import server_of
from bench.store.index import Index
from bench.store.parts import StoreError
from bench.store.pull import PULLED, fetch, pull, send_rest, waiting
from bench.store.upload import Mirror, Uploads


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
        self.push([f"runs/{run_id}.parquet"])


@contextlib.contextmanager
def results_folder(
    location: str | Path, *, write: bool, may_be_empty: bool = False
) -> Iterator[Results]:
    """Yields the results at a folder or URL as a local folder; a folder is yielded as it is.

    A URL that only is read must hold results, unless it `may_be_empty`. Raises BadInput, and
    StoreError at the end if what was written could not be sent: it is kept, and the next start with
    `write` sends it. A KeyboardInterrupt passes within three seconds or so, and says in a line what
    is left for that start.
    """
    location = str(location)
    storage = _open(location)
    if not is_remote(location):
        yield Results(location, local_path(location))
        return
    # A line break is part of neither.
    name = f"{location.rstrip('/')}\n{server_of(location)}"
    name = hashlib.sha256(name.encode()).hexdigest()[:16]
    folder = cache_dir() / "results-mirror" / f"{name}-{'write' if write else 'read'}"
    for part in PULLED:
        (folder / part).mkdir(parents=True, exist_ok=True)
    with _told():
        mirror = pull(storage, folder, Index(folder / "index.jsonl"), write)
    if not (write or may_be_empty) and not any(
        p for part in PULLED for p in (folder / part).iterdir()
    ):
        raise BadInput(f"--results {location}: holds no results")

    def bring(name: str) -> None:
        with _told():
            fetch(mirror, name, write)

    uploads = Uploads(mirror)
    try:
        with contextlib.ExitStack() as at_end:
            at_end.callback(uploads.close)
            try:
                yield Results(location, folder, uploads.add, bring)
            except KeyboardInterrupt:
                at_end.pop_all()
                raise
        if write and not uploads.trouble:
            uploads.trouble = _send_rest(mirror)
    except KeyboardInterrupt:
        uploads.drop()
        # A log alone is no result.
        if write and (left := [n for n in waiting(mirror) if not n.endswith(".log")]):
            print(f"bench: --results {_waits(location, folder, len(left))}", file=sys.stderr)
        raise
    if uploads.trouble:
        count = len(waiting(mirror)) if write else len(uploads.left)
        raise StoreError(f"--results {_waits(uploads.trouble, folder, count)}")


def _waits(why: str, folder: Path, count: int) -> str:
    return f"{why}; {count} files wait in {folder}: run the same command again, which sends them"


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInput(f"--results {error.strerror or error}") from None


def _open(location: str) -> Storage:
    try:
        return open_storage(location)
    except BadInput as error:
        raise BadInput(f"--results {error}") from None
    except OSError as error:
        raise BadInput(f"--results {error.strerror or error}") from None


def _send_rest(mirror: Mirror) -> str:
    """Sends what nobody pushed; returns what went wrong."""
    try:
        send_rest(mirror)
    except OSError as error:
        return error.strerror or str(error)
    return ""
