"""`compact` folds part-files into one file per table; no reader sees fewer rows, or one twice.

Each table's compacted file is written whole, beside the part-files, and takes the place of the one
before in a single step; only then part-files whose content is in it are taken away. So at every
moment, and after a kill at any moment, each run is in the compacted file or in a file of its own,
and where it is in both, the file of its own counts (see `bench.store.read`).

A rerun may replace a part-file between the reading and the taking away, and no file system removes
a name only if it still is the same file. So the part-file is renamed aside, where readers still
find it, compared with what was folded, byte for byte by its hash, and removed if it is the same.
Otherwise it stays aside and the next pass folds it. Nothing here needs more of a file system than
that a rename is atomic. The lock only keeps two of us from doing the work twice at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BadInput
from bench.store.files import COMPACTED, aside_path, own_files, part_path
from bench.store.parts import StoreError, publish
from bench.store.read import arrow_schema, parse_part, read_compacted

if TYPE_CHECKING:
    import pyarrow as pa

RUNS_PER_GROUP = 2000
"""Runs in a row group: a reader of one run reads this many, and a fold holds this many at once."""
_PASSES = 5
"""Further passes fold the reruns that came in meanwhile; what still comes is left for next time."""
_Digests = dict[tuple[str, str], bytes]


def compact(results: Path) -> tuple[int, list[str]]:
    """Folds every readable part-file; returns how many runs, and a line for each broken file.

    Raises BadInput when another one is at work or a compacted file is damaged, StoreError when the
    folder is full or read-only. Whatever is raised, every record is where a reader finds it.
    """
    total, problems = 0, list[str]()
    with alone(results):
        for _ in range(_PASSES):
            digests, problems = _fold(results)
            total += sum(table == "runs" for table, _ in digests)
            # Epochs first: without a record of its own, nobody would look for them again.
            gone = [_take_away(results, *key, digests[key]) for key in sorted(digests)]
            if all(gone):
                break
    return total, problems


def drop(results: Path, run_ids: Collection[str]) -> None:
    """Writes the compacted files anew without these runs, if they hold one; within `alone`."""
    ids = _compacted_ids(results)
    kept = sorted(set(ids) - set(run_ids))
    if len(kept) < len(ids):
        tables = {t: _chunks(results, t, kept, (), {}, []) for t in ("runs", "epochs")}
        write_compacted(results, tables, order=("runs", "epochs"))  # a run counts by its record


@contextlib.contextmanager
def alone(results: Path) -> Iterator[None]:
    """Holds the folder's lock against another compact or prune; raises BadInput, StoreError."""
    from filelock import FileLock, Timeout

    lock = FileLock(results / ".compact.lock", timeout=0)
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


def write_compacted(
    results: Path,
    tables: Mapping[str, Iterable[pa.Table]],
    order: Sequence[str] = ("epochs", "runs"),
) -> None:
    """Writes compacted files from chunks that are sorted by run_id; raises OSError.

    `tables` are written in their own order and published in `order`, once all of them are whole.
    """
    written: dict[str, Path] = {}
    try:
        for table, chunks in tables.items():
            folder = results / table
            folder.mkdir(parents=True, exist_ok=True)
            written[table] = folder / f".{COMPACTED}.{uuid.uuid4().hex}.tmp"
            _write(written[table], table, chunks)
        for table in order:
            publish(written[table], results / table / COMPACTED)
    finally:
        for temporary in written.values():
            temporary.unlink(missing_ok=True)


def _write(temporary: Path, table: str, chunks: Iterable[pa.Table]) -> None:
    import pyarrow.parquet as pq

    rows = 0
    with temporary.open("wb") as file:
        with pq.ParquetWriter(file, arrow_schema(table), compression="zstd") as writer:
            for chunk in chunks:
                rows += chunk.num_rows
                writer.write_table(chunk, row_group_size=max(1, chunk.num_rows))
        file.flush()
        os.fsync(file.fileno())
    if pq.read_metadata(temporary).num_rows != rows:
        raise OSError(f"{temporary} did not arrive whole")


def _fold(results: Path) -> tuple[_Digests, list[str]]:
    """Publishes compacted files that hold every readable part-file; returns what they took up."""
    own = own_files(results, "runs")
    digests: _Digests = {}
    problems: list[str] = []
    if own:
        ids = sorted({*_compacted_ids(results), *own})
        # All records are read before any epochs: a rerun that comes in between has written its
        # epochs first, so its record, at least, is not the one that was folded, and stays.
        names = ("runs", "epochs")
        tables = {t: _chunks(results, t, ids, set(own), digests, problems) for t in names}
        write_compacted(results, tables)
    return digests, problems


def _compacted_ids(results: Path) -> list[str]:
    rows, problem = read_compacted(results, "runs", columns=("run_id",))
    if problem:
        raise BadInput(f"{problem}; restore it, or move it away to go on without its runs")
    ids: list[str] = rows["run_id"].to_pylist()
    return ids


def _chunks(
    results: Path,
    table: str,
    ids: Sequence[str],
    own: Collection[str],
    digests: _Digests,
    problems: list[str],
) -> Iterator[pa.Table]:
    """Yields a table's rows of these runs in their order, part-files before what was compacted.

    Notes in `digests` which part-files went in, and in `problems` which could not be read.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    for start in range(0, len(ids), RUNS_PER_GROUP):
        some = ids[start : start + RUNS_PER_GROUP]
        parts, taken = [], []
        for run_id in some:
            if run_id not in own or (table == "epochs" and ("runs", run_id) not in digests):
                continue
            found = _content(results, table, run_id)
            if found is None:
                continue
            content, path = found
            part, problem = parse_part(content, path, table)
            if part is None:
                problems.append(str(problem))
                continue
            digests[table, run_id] = hashlib.sha256(content).digest()
            parts.append(part)
            taken.append(run_id)
        rows, problem = read_compacted(results, table, some)
        if problem:
            raise BadInput(f"{problem}; restore it, or move it away to go on without its rows")
        if taken:
            rows = rows.filter(pc.invert(pc.is_in(rows["run_id"], pa.array(taken))))
        rows = pa.concat_tables([rows, *parts])
        if parts:
            rows = rows.take(pc.sort_indices(rows, [("run_id", "ascending")]))  # it is stable
        yield rows.combine_chunks()


def _content(results: Path, table: str, run_id: str) -> tuple[bytes, Path] | None:
    for path in (part_path(results, table, run_id), aside_path(results, table, run_id)):
        try:
            return path.read_bytes(), path
        except FileNotFoundError:
            continue
    return None


def _take_away(results: Path, table: str, run_id: str, digest: bytes) -> bool:
    """Removes a part-file that was folded; returns False if it is another by now, and stays."""
    aside = aside_path(results, table, run_id)
    # A part-file is newer than one that was left aside before, so it may take its place.
    with contextlib.suppress(FileNotFoundError):
        os.replace(part_path(results, table, run_id), aside)  # noqa: PTH105 - the atomic step
    try:
        if hashlib.sha256(aside.read_bytes()).digest() != digest:
            return False
    except FileNotFoundError:
        return True
    aside.unlink()
    return True
