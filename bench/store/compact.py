"""`compact` folds part-files into one file per table; no reader sees fewer rows, or one twice.

A compacted pair, runs and their epochs, is named by the hash of its content and never changed: it
is written whole, beside what is there, and published under a name that no other has. Then it is
read back, and only what it was seen to hold is taken away: part-files, and the pairs it was made
from. So at every moment, and after a kill at any moment, each run is in a compacted file or in a
file of its own; `bench.store.read` and `.folded` say which one answers where there are several.

A rerun may replace a part-file between the reading and the taking away, and no file system removes
a name only if it still is the same file. So the part-file is renamed aside, where readers still
find it, compared with what was folded, byte for byte by its hash, and removed if it is the same.
Otherwise it stays aside and the next pass folds it.

Nothing here needs more of a file system than that a rename is atomic. The lock only saves work: two
at once, on machines that do not see each other's lock, publish two pairs that the next one joins.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BadInput
from bench.store.files import (
    aside_path,
    compacted_names,
    own_files,
    part_path,
    refuse_links,
    shown,
)
from bench.store.folded import (
    answering,
    made_from,
    read_compacted,
    read_one,
    rows_by_run,
    unknown_columns,
)
from bench.store.pairs import Pair, remove_pairs, write_pair
from bench.store.parts import StoreError
from bench.store.rows import TABLES, arrow_schema, own_content, parse_part, read_own, strings
from bench.store.schema import FINAL

if TYPE_CHECKING:
    import pyarrow as pa

RUNS_PER_GROUP = 2000
"""Runs in a row group: a reader of one run reads this many, and a fold holds this many at once."""
_PASSES = 5
"""Further passes fold the reruns that came in meanwhile; what still comes is left for next time."""
_Digests = dict[tuple[str, str], bytes]


def compact(results: Path) -> tuple[int, list[str]]:
    """Folds every readable part-file; returns how many runs, and a line for each problem.

    Raises BadInput when another one is at work or a compacted file is damaged, StoreError when the
    folder is full or read-only. Whatever is raised, every record is where a reader finds it.
    """
    total, problems = 0, list[str]()
    with alone(results):
        _clear(results)
        for _ in range(_PASSES):
            own = own_files(results, "runs")
            if not own and len(compacted_names(results)) < 2:
                break
            digests, problems = _fold(results, own)
            total += sum(table == "runs" for table, _ in digests)
            # A run's record first: epochs without one are of nobody, a record without has none.
            order = sorted(digests, key=lambda key: (key[1], key[0] != "runs"))
            gone = [_take_away(results, *key, digests[key]) for key in order]
            if all(gone):
                break
    return total, problems


def drop(results: Path, run_ids: Collection[str]) -> None:
    """Writes the compacted files anew without these runs, if they hold one; within `alone`."""
    answers, _ = answering(results, compacted_names(results))
    if any(not {*run_ids}.isdisjoint(ids) for ids in answers.values()):
        _, problems = _fold(results, (), run_ids)
        if problems:
            raise StoreError(problems[0])


@contextlib.contextmanager
def alone(results: Path) -> Iterator[None]:
    """Holds the folder's lock against another compact or prune; raises BadInput, StoreError."""
    from filelock import FileLock, Timeout

    refuse_links(results)
    # A lock file that is itself the lock would stay behind whoever is killed.
    lock = FileLock(results / ".compact.lock", timeout=0, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise BadInput(
            f"--results {results}: another compact or prune is at work there; "
            "run the command again when it has ended"
        ) from None
    except (OSError, NotImplementedError) as error:
        raise StoreError(f"--results {results}: cannot be locked: {error}") from None
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"--results {results}: cannot be rewritten: {error.strerror or error}; "
            "nothing is lost; make room and run the same command again"
        ) from None
    finally:
        lock.release()


def _fold(
    results: Path, own: Sequence[str], dropped: Collection[str] = ()
) -> tuple[_Digests, list[str]]:
    """Publishes a pair of every readable part-file and all that was compacted, but for `dropped`.

    Removes the pairs that it was made from. Returns which part-files went in, for the caller to
    take away, and what could not.
    """
    names = compacted_names(results)
    # Runs whose epochs were not copied yet, or were lost, stay as they are.
    lone = [name for name in names if not part_path(results, "epochs", name).exists()]
    if not dropped:
        names = [name for name in names if name not in lone]
    answers, damaged = answering(results, names)
    for name in names:
        damaged += [said for _, said in [rows_by_run(results, "epochs", name)] if said]
    if damaged:
        raise BadInput(f"{damaged[0]}; restore it, or move the pair away to go on without it")
    if said := unknown_columns(results, names):
        raise BadInput(f"{said}; use the version that wrote it, or none of them is kept")
    digests: _Digests = {}
    problems = [
        f"{shown(part_path(results, 'runs', name))}: has no pair in epochs/" for name in lone
    ]
    chunks = _chunks(results, answers, {*own}, {*dropped}, digests, problems)
    worth = lambda: bool(digests or dropped or len(names) > 1)  # noqa: E731
    new = write_pair(results, chunks, names, worth)
    if not new:
        return {}, problems
    curves = {run_id for table, run_id in digests if table == "epochs"}
    problems += remove_pairs(results, new, answers, {*dropped}, curves)
    return digests, problems


def _chunks(
    results: Path,
    answers: Mapping[str, Sequence[str]],
    own: Collection[str],
    dropped: Collection[str],
    digests: _Digests,
    problems: list[str],
) -> Iterator[Pair]:
    """Yields the rows of all runs in their order, part-files before what was compacted.

    Notes in `digests` which part-files may go, and in `problems` which could not be taken up.
    """
    import pyarrow.compute as pc

    held = {name: {*run_ids} for name, run_ids in answers.items()}
    ids = sorted({*own}.union(*held.values()).difference(dropped))
    for start in range(0, len(ids), RUNS_PER_GROUP):
        some = ids[start : start + RUNS_PER_GROUP]
        runs, epochs = (_compacted_rows(results, table, held, some) for table in TABLES)
        final = {*runs.filter(pc.is_in(runs["status"], strings(FINAL)))["run_id"].to_pylist()}
        parts: dict[str, dict[str, pa.Table]] = {table: {} for table in TABLES}
        for run_id in some:
            found, problem = _own_pair(results, run_id) if run_id in own else ({}, None)
            problems += [problem] if problem else []
            digests |= {(table, run_id): digest for table, (digest, _) in found.items()}
            if "runs" in found:
                status = found["runs"][1]["status"][0].as_py()
                if status in FINAL or run_id not in final:  # lost replaces no final record
                    for table, (_, part) in found.items():
                        parts[table][run_id] = part
        yield _joined(runs, parts["runs"]), _joined(epochs, parts["epochs"])


def _own_pair(results: Path, run_id: str) -> tuple[dict[str, tuple[bytes, pa.Table]], str | None]:
    """Returns hash and rows of a run's part-files, or why it must be left as it is.

    The record is read first: a rerun that comes in between has written its epochs before, so its
    record, at least, is not the one that was read, and stays.
    """
    found = {}
    for table in TABLES:
        try:
            content = own_content(results, table, run_id)
        except OSError as error:
            return {}, str(error.strerror)
        if content is not None:
            part, problem = parse_part(*content, table, whole=True)
            if part is None:
                return {}, problem
            found[table] = hashlib.sha256(content[0]).digest(), part
        elif table == "runs":
            return {}, None
    return found, None


def _compacted_rows(
    results: Path, table: str, held: Mapping[str, Collection[str]], some: Sequence[str]
) -> pa.Table:
    import pyarrow as pa

    found = [arrow_schema(table).empty_table()]
    for name, run_ids in held.items():
        rows, problem = read_one(results, table, name, [r for r in some if r in run_ids])
        if problem:
            raise BadInput(f"{problem}; nothing was changed, run the command again")
        found.append(rows)
    return pa.concat_tables(found)


def _joined(rows: pa.Table, parts: Mapping[str, pa.Table]) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    if parts:
        rows = rows.filter(pc.invert(pc.is_in(rows["run_id"], strings(parts))))
    rows = pa.concat_tables([rows, *parts.values()])
    return rows.take(pc.sort_indices(rows, [("run_id", "ascending")])).combine_chunks()  # stable


def _clear(results: Path) -> None:
    """Removes the epochs of records, and of pairs, that were removed before a kill came between."""
    made = {old for name in compacted_names(results) for old in made_from(results, name)}
    for name in made.intersection(compacted_names(results, "epochs")) - {*compacted_names(results)}:
        part_path(results, "epochs", name).unlink(missing_ok=True)
    for run_id in sorted({*own_files(results, "epochs")} - {*own_files(results, "runs")}):
        own, _ = read_own(results, "epochs", run_id) or (None, None)
        record, _ = read_compacted(results, "runs", [run_id], ("run_id",))
        rows, _ = read_compacted(results, "epochs", [run_id])
        # As text, for NaN equals NaN. Others are of a rerun that has no record yet, or never will.
        if own is not None and record.num_rows and f"{own.to_pylist()}" == f"{rows.to_pylist()}":
            for path in (part_path, aside_path):
                path(results, "epochs", run_id).unlink(missing_ok=True)


def _take_away(results: Path, table: str, run_id: str, digest: bytes) -> bool:
    """Removes a part-file that was folded; returns False if it is another by now, and stays."""
    aside = aside_path(results, table, run_id)
    # Last a name of our own: another compact, unseen by the lock, may lay a rerun aside, too.
    ours = aside.with_name(f".{run_id}.{uuid.uuid4().hex}.tmp")
    # A part-file is newer than one that was left aside before, so it may take its place.
    with contextlib.suppress(FileNotFoundError):
        os.replace(part_path(results, table, run_id), aside)  # noqa: PTH105 - the atomic step
    try:
        if hashlib.sha256(aside.read_bytes()).digest() != digest:
            return False
        os.replace(aside, ours)  # noqa: PTH105
    except FileNotFoundError:
        return True
    if hashlib.sha256(ours.read_bytes()).digest() != digest:
        os.replace(ours, aside)  # noqa: PTH105
        return False
    ours.unlink()
    return True
