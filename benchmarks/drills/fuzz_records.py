"""What a results folder holds, fuzzed: part-files, compacted files, definitions of grids.

Every input damages one file of a small sound folder: a run with part-files, three compacted, one
grid. Bytes are changed by `fuzz_damage`; or a file is written anew as Parquet that is sound,
with columns of other names, types and values than ours.
"""

from __future__ import annotations

import contextlib
import functools
import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bench import store
from bench.report import write
from bench.store import care
from bench.store.compact import compact
from bench.store.pairs import write_pair
from bench.store.parts import write_table
from bench.store.seal import sealed
from benchmarks.drills.fuzz_damage import damaged
from benchmarks.drills.fuzz_texts import registry
from benchmarks.drills.fuzz_watch import Target
from benchmarks.simulated import planned, simulated

NAME = "fuzzed"
_GRID = f"""name: {NAME}
base: {{corpus: "synthetic:train=1500:valid=300:test=300", nhid: 10, batch_size: 5, bptt: 10}}
axes: {{regularizer: [none, "ar:alpha=2"]}}
reps: 2
"""
_OWN = 1


@functools.cache
def sound() -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Returns the files of a sound results folder, and its run_ids; those of part-files first."""
    with tempfile.TemporaryDirectory() as name:
        folder, results = Path(name), Path(name) / "results"
        (folder / "grid.yaml").write_text(_GRID)
        store.prepare(results)
        plan = planned(folder)
        ((runs, epochs),) = simulated(plan, epochs=2)
        ids = runs["run_id"].to_pylist()
        for run_id in ids[:_OWN]:
            for table, rows in (("epochs", epochs), ("runs", runs)):
                own = rows.filter(pa.compute.equal(rows["run_id"], run_id))
                write_table(results, table, run_id, own)
        write_pair(results, [(runs.slice(_OWN), epochs.slice(2 * _OWN))])
        wanted = [{"run_id": job.run_id, "trial": job.trial} for job in plan.jobs]
        grid = {"name": NAME, "command": "python -m bench.grid", "skipped": [], "merged": 0}
        store.save_grid(results, grid | {"created_utc": "2026-01-01T00:00:00Z", "wanted": wanted})
        files = {str(p.relative_to(results)): p.read_bytes() for p in results.rglob("*.*")}
    return files, tuple(ids)


def _lay(here: Path, changed: dict[str, bytes]) -> Path:
    results = here / "results"
    for name, content in (sound()[0] | changed).items():
        path = results / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return results


def _pick(data: bytes) -> str:
    """Returns a part-file or compacted file, by a letter: r, e of one's own; R, E compacted."""
    table = "runs" if data[:1].lower() == b"r" else "epochs"
    names = sorted(name for name in sound()[0] if name.startswith(table))
    compacted = [name for name in names if "compacted" in name]
    return compacted[0] if data[:1].isupper() else next(n for n in names if n not in compacted)


def _changed(data: bytes) -> tuple[str, bytes]:
    """Returns a file's name and its new content.

    A recipe `p` writes sound Parquet, `s` damages and then seals the file as its writer would.
    """
    name = _pick(data)
    content = sound()[0][name]
    if data[1:2] == b"p":
        return name, _rewritten(content, data[2:])
    if data[1:2] == b"s":
        with contextlib.suppress(ValueError):  # the place of the seal was damaged, too
            return name, sealed(damaged(content, data[2:]))
    return name, damaged(content, data[1:].removeprefix(b"s"))


def _rewritten(content: bytes, recipe: bytes) -> bytes:
    """Returns a Parquet file with columns replaced: a place, a kind, a length, then the value."""
    table = pq.read_table(io.BytesIO(content)).replace_schema_metadata(None)  # without the seal
    rest = recipe
    while len(rest) >= 3:
        at, kind, length = rest[0] % table.num_columns, rest[1] % len(_KINDS), rest[2]
        value, rest = _KINDS[kind](rest[3 : 3 + length]), rest[3 + length :]
        field = table.field(at)
        if isinstance(value, pa.Array):
            every = pa.array([0] * table.num_rows, pa.int32())
            table = table.set_column(at, field.name, value.take(every))
        elif value == "drop":
            table = table.remove_column(at) if table.num_columns > 1 else table
        elif value == "rows":
            table = table.slice(0, 0)
        elif value == "double":
            table = pa.concat_tables([table, table])
        else:
            table = table.append_column(str(value), table.column(at))
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


_KINDS: tuple[Callable[[bytes], Any], ...] = (
    lambda v: pa.array([_text(v)]),
    lambda v: pa.array([int.from_bytes(v[:8], signed=True)], pa.int64()),
    lambda v: pa.array([float(int.from_bytes(v[:8], signed=True)) * 1e290], pa.float64()),
    lambda v: pa.array([float("nan")]),
    lambda v: pa.array([None], pa.string()),
    lambda v: pa.array([None]),
    lambda v: pa.array([v], pa.binary()),
    lambda v: pa.array([[_text(v)]]),
    lambda v: pa.array([{"a": _text(v)}]),
    lambda v: pa.array([int.from_bytes(v[:4])], pa.timestamp("ns")),
    lambda v: pa.array([_text(v)]).dictionary_encode(),
    lambda v: pa.array([len(v) % 2 == 0]),
    lambda v: "drop",
    lambda v: "rows",
    lambda v: "double",
    lambda v: _text(v),
    lambda v: pa.array([v], pa.binary()).view(pa.string()),  # no text in UTF-8
)


def _lines(problems: list[str]) -> None:
    for line in problems:
        assert line.isprintable() and "results" in line, f"unclear: {line!r}"


def _others(results: Path, name: str, runs: pd.DataFrame | None = None) -> None:
    """Asserts that the records which were not touched are read as they were."""
    ids = sound()[1]
    kept = ids[:_OWN] if "compacted" in name else ids[_OWN:]
    if not name.startswith("epochs"):
        kept += tuple(run_id for run_id in ids[:_OWN] if run_id not in name and run_id not in kept)
    if runs is None:
        runs, _ = store.load_runs(results, columns=("run_id",))
    assert runs.run_id.is_unique, "a run is there twice"
    missing = {*kept} - {*runs.run_id}
    assert not missing, f"records that were not touched are gone: {missing}"


_CURVE = ("run_id", "epoch", "valid_nll")


def read_records(data: bytes, here: Path) -> None:
    """Reading alone: runs, epochs, statuses, check."""
    name, content = _changed(data)
    results = _lay(here, {name: content})
    # All columns of the table that is damaged: of the other one those that a report draws.
    hit = name.partition("/")[0]
    runs, problems = store.load_runs(results, None, None if hit == "runs" else ("run_id", "status"))
    epochs, more = store.load_epochs(results, None, None if hit == "epochs" else _CURVE)
    _lines([*problems, *more, *care.check(results)])
    assert runs.run_id.notna().all() and epochs.run_id.notna().all(), "a row of no run"
    _others(results, name, runs)
    store.statuses(results, sound()[1])


def keep_records(data: bytes, here: Path) -> None:
    """Looking after it: orphans, compact, prune."""
    name, content = _changed(data)
    results = _lay(here, {name: content})
    with _nothing_beside(here, results):
        care.orphans(results, registry())
        _, problems = compact(results)
        _lines(problems)
        runs, _ = store.load_runs(results, columns=("run_id",))
        _others(results, name, runs)
        care.prune(results, [run_id for run_id in runs.run_id if run_id not in sound()[1]])
        _others(results, name)


def merge_records(data: bytes, here: Path) -> None:
    """Merging it into a folder that is empty."""
    name, content = _changed(data)
    results, other = _lay(here, {name: content}), here / "other"
    with _nothing_beside(here, results):
        _, problems = care.merge(other, [results])
        _lines(problems)
        _others(other, name)


@contextlib.contextmanager
def _nothing_beside(here: Path, results: Path) -> Iterator[None]:
    (results / "weights").mkdir()
    (here / "above.safetensors").write_bytes(b"of nobody")
    try:
        yield
    finally:
        assert (here / "above.safetensors").exists(), "a file above the folder was deleted"
        strangers = sorted(p.name for p in here.iterdir() if p.name not in _MADE)
        assert not strangers, f"files beside the results folder: {strangers}"


_MADE = ("results", "other", "above.safetensors", "cache", "data")


def read_definition(data: bytes, here: Path) -> None:
    """grids/NAME.json as the report takes it, page and table as files."""
    name = f"grids/{NAME}.json"
    results = _lay(here, {name: damaged(sound()[0][name], data)})
    html = write.write_grid(results, NAME).read_text("utf-8")
    assert "<script>alert" not in html
    write.write_sheet(results, NAME)


def _record_seeds() -> list[bytes]:
    files = [b"r", b"e", b"R", b"E"]
    recipes = [b"", b"t\x80\x00", b"t\xff\xf0", b"z\xf0\x00", b"x\x01\x00\x00\x00\xff\xff\x01\x01"]
    recipes += [b"s" + recipe for recipe in recipes] + [b"wPAR1", b"w"]
    for kind in range(len(_KINDS)):
        recipes += [b"p" + bytes([at, kind, 9]) + b"../../abo" for at in (0, 1, 5, 70)]
    recipes += [b"p\x01\x00\x0b../../above", b"p\x01\x00\x0ca/b\n<script>"]
    whole = [letter + b"w" + sound()[0][_pick(letter)] for letter in files]
    return [f + r for f in files for r in recipes] + whole


def _definition_seeds() -> list[bytes]:
    (content,) = (c for name, c in sound()[0].items() if name.endswith(".json"))
    short = b'{"name": "x", "command": "c", "skipped": [], "wanted": [{"run_id": "a", "trial": '
    return [b"w" + content, b"w" + short + b'{"cell": "lstm", "regularizer": "none"}}]}', b"w{}"]


_TOKENS = tuple(
    word.encode()
    for word in ('"run_id"', '"trial"', '"cell"', '"wanted"', '"skipped"', '"common"', '"merged"',
                 '"rep"', '"corpus"', '"regularizer"', "null", "NaN", "1e999", "[]", "{}", "true",
                 '"<script>alert(1)</script>"', "9" * 400, '"\\ud800"', "[[[[[[[[[[")
)  # fmt: skip
TARGETS = {
    "parquet": Target(read_records, ("results",), _record_seeds, (b"PAR1", b"../", b"\n")),
    "care": Target(keep_records, ("results",), _record_seeds, (b"PAR1", b"../", b"\n")),
    "merge": Target(merge_records, ("results", "other"), _record_seeds, (b"PAR1", b"../", b"\n")),
    "grid-json": Target(read_definition, (NAME,), _definition_seeds, _TOKENS),
}
