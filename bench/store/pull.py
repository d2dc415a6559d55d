"""Makes a mirror equal to its bucket: first sends what only is here, then fetches what is not.

What is compared here is a file's state as it was before the bucket was listed: another driver of
this machine may write at any moment, and what it writes is left alone.

A rerun sends its epochs before its record. So a record that has not changed keeps the epochs that
came with it, and records are listed again after they were fetched, until none changed meanwhile.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

from filelock import FileLock

from bench.errors import BadInput
from bench.storage import Found, Storage
from bench.store.index import Entry, Index, digest, local_state
from bench.store.threads import aside, each
from bench.store.unsent import NAME, States, newest_of, send_unsent, settled, states, unsent
from bench.store.upload import Mirror, is_good, of_run

PULLED = ("grids", "epochs", "runs")
"""What a mirror holds of the bucket; weights come when they are asked for, reports never."""
SENT = ("weights", *PULLED, "reports")
_WRITING = 60.0
"""Seconds for which epochs may wait for the record that `write_run` writes right after them."""
_ROUNDS = 3


def pull(storage: Storage, folder: Path, index: Index, write: bool) -> Mirror:
    """Makes a mirror equal to the bucket; one that may `write` sends first. OSError.

    Raises BadInput where none of the records is left in the bucket that were known to be there.
    """
    with FileLock(folder.with_suffix(".lock")):
        index.load()
        before = states(folder, SENT)
        was = dict(before)
        listings: dict[str, dict[str, Found]] = {}
        damaged: list[str] = []

        def look(part: str) -> None:
            listings[part] = storage.listing(part)

        # Beside each other: to read 100,000 records, 7 s, takes no longer than to list them.
        check = partial(_note_damaged, folder, index, before, damaged)
        each(lambda work: work(), [check, *(partial(look, part) for part in SENT)])
        there = {n: found for part in SENT for n, found in listings[part].items() if _ours(n)}
        _refuse_if_gone(storage, folder, index, before, there, write)
        for name in damaged:
            index.pop(name, None)  # so it is fetched anew
        mirror = Mirror(storage, folder, index, {n for n in there if n.startswith("weights/")})
        sent = send_unsent(mirror, before, there) if write else {*()}
        _bring(mirror, before, {n: f for n, f in there.items() if n not in sent}, write)
        for name in sorted(was, reverse=True):  # a record before its epochs
            if name not in there and name not in sent and name.startswith(PULLED):
                known, now = index.get(name), local_state(folder / name)
                if known is not None and known.local == was[name] == now:
                    (folder / name).unlink(missing_ok=True)
        index.save({*there, *sent})
        return mirror


def send_rest(mirror: Mirror) -> None:
    """Sends what nobody pushed. OSError."""
    with FileLock(mirror.folder.with_suffix(".lock")):
        mirror.index.load()  # another driver of this machine may have sent or fetched meanwhile
        before = states(mirror.folder, SENT)
        names = unsent(mirror.index, before)
        records = any(n.startswith("runs/") for n in names)
        there = aside(lambda: mirror.storage.listing("runs")) if records else {}
        send_unsent(mirror, before, there)


def fetch(mirror: Mirror, prefix: str, write: bool) -> None:
    """Brings a file, or all of a folder, and removes those that are there no more. OSError."""
    part = prefix.partition("/")[0]
    before = {n: s for n, s in states(mirror.folder, [part]).items() if n.startswith(prefix)}
    listing = aside(lambda: mirror.storage.listing(part))
    there = {n: f for n, f in listing.items() if n.startswith(prefix) and _ours(n)}
    newest = newest_of(listing)
    each(lambda name: _bring_file(mirror, before, name, there[name], newest), there)
    kept = {*there, *(unsent(mirror.index, before) if write else ())}
    for name in before.keys() - kept:
        (mirror.folder / name).unlink(missing_ok=True)


def waiting(mirror: Mirror) -> list[str]:
    """Returns the files here that are not as they were last fetched or sent."""
    return unsent(mirror.index, states(mirror.folder, SENT))


def _ours(name: str) -> bool:
    part, _, rest = name.partition("/")
    return part in SENT and NAME.fullmatch(rest) is not None


def _refuse_if_gone(
    storage: Storage,
    folder: Path,
    index: Index,
    before: States,
    there: Collection[str],
    write: bool,
) -> None:
    """Raises BadInput rather than to follow a bucket that came back empty: here is a last copy."""
    known = [n for n in index if n.startswith("runs/") and n in before]
    if known and not any(n in there for n in known):
        again = f"{folder / 'index.jsonl'} to send them again, or " if write else ""
        raise BadInput(
            f"--results {storage.location}: none of the {len(known)} records known here is there "
            f"any more; they are kept in {folder}; delete {again}that folder to go on without them"
        )


def _note_damaged(folder: Path, index: Index, before: States, damaged: list[str]) -> None:
    """Finds the files that no longer match their checksum though nothing seems to have changed."""
    for name, state in before.items():
        known = index.get(name)
        if known is not None and known.local == state and name.startswith(("runs/", "epochs/")):
            try:
                good = is_good(name, (folder / name).read_bytes())
            except FileNotFoundError:
                continue
            except OSError:  # a disk that is going bad
                good = False
            if not good:
                damaged.append(name)


def _bring(mirror: Mirror, before: States, there: dict[str, Found], write: bool) -> None:
    """Fetches what is not here as it is in the bucket: grids, and records with their epochs."""
    newest = newest_of(there)
    brought: list[str] = []

    def bring(name: str) -> None:
        if name.startswith("grids/"):
            _bring_file(mirror, before, name, there[name], newest)
        elif _bring_run(mirror, before, name, there, newest, write):
            brought.append(name)

    each(bring, [name for name in there if name.startswith(("grids/", "runs/"))])
    for _ in range(_ROUNDS):
        if not brought:
            break
        again = aside(lambda: mirror.storage.listing("runs"))
        changed = [n for n in brought if n in again and again[n] != there[n]]
        there |= {n: again[n] for n in changed}
        brought.clear()
        each(bring, changed)


def _bring_file(mirror: Mirror, before: States, name: str, found: Found, newest: float) -> None:
    if not _is_here(mirror, before, name, found):
        content = mirror.storage.get(name)
        if content is not None:
            _keep(mirror, before, name, content, settled(found, newest))


def _bring_run(
    mirror: Mirror,
    before: States,
    record: str,
    there: Mapping[str, Found],
    newest: float,
    write: bool,
) -> bool:
    """Fetches a record and its epochs unless both are here; returns whether the record changed."""
    _, epochs = of_run(record)
    known = mirror.index.get(epochs)
    has_epochs = known is not None and known.local == before.get(epochs)
    is_here = _is_here(mirror, before, record, there[record])
    if is_here and (has_epochs or epochs not in there):
        return False
    if write and not has_epochs and _is_young(mirror.folder / epochs):
        return False  # a driver of this machine is just about to write its record
    content = None if is_here else mirror.storage.get(record)
    if not is_here and content is None:
        return False  # deleted meanwhile
    changed = content is not None and not _equals(mirror.folder / record, content)
    if changed or (epochs in there and not has_epochs):
        curve = mirror.storage.get(epochs)  # of a new record, though not listed a moment ago
        if curve is not None:
            listed = there.get(epochs)
            _keep(mirror, before, epochs, curve, listed and settled(listed, newest))
    if content is not None:
        _keep(mirror, before, record, content, settled(there[record], newest))
    return changed


def _keep(mirror: Mirror, before: States, name: str, content: bytes, remote: Found | None) -> None:
    """Writes what was fetched, unless another driver of this machine has written it meanwhile."""
    path = mirror.folder / name
    state = local_state(path)
    if state != before.get(name):
        return
    if state is None or not _equals(path, content):
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_bytes(content)  # not synced: it can be fetched again
            state = local_state(temporary)
            if local_state(path) != before.get(name):
                return
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    if state is not None:
        before[name] = state
        mirror.index.note(name, Entry(remote, state, digest(content)))


def _equals(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False


def _is_here(mirror: Mirror, before: States, name: str, found: Found) -> bool:
    known = mirror.index.get(name)
    return known is not None and known.remote == found and known.local == before.get(name)


def _is_young(path: Path) -> bool:
    state = local_state(path)
    return state is not None and abs(time.time() - state[1] / 1e9) < _WRITING
