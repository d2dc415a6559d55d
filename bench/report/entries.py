"""Joins what a grid wanted with what was recorded: corpora > rows > settings > runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import pandas as pd

from bench.config import FIELDS
from bench.errors import BadInput, one_line
from bench.fields import acts, written
from bench.report import environment
from bench.report.environment import Environment
from bench.store import RUNS

_UNREAD = {
    *("schema", "corpus_hash", "seed", "regularizer_hparams", "started_utc"),
    *("cell_source", "regularizer_source", "plugin_origin"),
}
COLUMNS = tuple(c.name for c in RUNS if c.name not in FIELDS and c.name not in _UNREAD)
"""Columns of the records that the page reads; a trial's fields are in the grid's file."""
NOT_YET = "not yet run"
BASELINE = "none"

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Run:
    """One wanted trial and its record; `record` is empty while there is none.

    `environment`: what keeps the record apart from others; () if it is to be mixed with any.
    """

    run_id: str
    trial: Mapping[str, Any]
    status: str
    record: Mapping[str, Any]
    environment: Environment = ()

    @property
    def rep(self) -> int:
        """Repetition index: what two runs of one pair have in common."""
        return int(self.trial["rep"])

    @property
    def reason(self) -> str:
        """`stop_reason` of the record, or an empty string."""
        return str(self.record.get("stop_reason") or "")

    @cached_property
    def ok(self) -> bool:
        """Whether the run's numbers may enter a mean."""
        return self.status == "ok" and self.number("valid_nll") is not None

    def number(self, column: str) -> float | None:
        """A finite number of the record, or None."""
        value = self.record.get(column)
        if isinstance(value, (int, float)) and math.isfinite(value):
            return float(value)
        return None


@dataclass(frozen=True)
class Setting:
    """One regularizer with its hyper-parameters in one row, over its repetitions.

    `chosen`: the best on valid among the row's settings of this name, so its test may be shown.
    Those that are mixed have no mean to be the best by; the only one of a name needs none.
    """

    spelling: str
    name: str
    label: str
    runs: tuple[Run, ...]
    chosen: bool = False

    @cached_property
    def ok(self) -> dict[int, Run]:
        """The ok runs by repetition."""
        return {run.rep: run for run in self.runs if run.ok}

    @cached_property
    def environments(self) -> dict[int, Environment]:
        """The environment of each ok run by repetition."""
        return {rep: run.environment for rep, run in self.ok.items()}

    @cached_property
    def mixed(self) -> bool:
        """Whether the ok runs differ in environment, so that nothing is averaged over them."""
        return bool(environment.differing(self.environments.values()))

    def values(self, column: str, reps: Collection[int] | None = None) -> dict[int, float]:
        """Finite values of the ok runs by repetition: of `reps`, or of all, then none if mixed."""
        if reps is None:
            reps = () if self.mixed else self.ok
        found = ((rep, self.ok[rep].number(column)) for rep in reps)
        return {rep: value for rep, value in found if value is not None}


@dataclass(frozen=True)
class Row:
    """Trials that differ in nothing but regularizer and repetition.

    `size` is cell and units; `details` are the other fields that vary over the corpus. `short` has
    of these only what tells the row from the others.
    """

    size: str
    details: tuple[str, ...]
    short: str
    settings: tuple[Setting, ...]

    @property
    def label(self) -> str:
        """The row in full."""
        return ", ".join((self.size, *self.details))

    @property
    def baseline(self) -> Setting | None:
        """The row's unregularized setting."""
        return next((s for s in self.settings if s.name == BASELINE), None)


@dataclass(frozen=True)
class Corpus:
    """All rows on one corpus, and the regularizer names met there, `none` first."""

    name: str
    names: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def runs(self) -> list[Run]:
        """Every wanted trial on this corpus."""
        return [run for row in self.rows for s in row.settings for run in s.runs]

    def known(self, column: str) -> float | None:
        """A number that all records of the corpus share (a floor), from the first that has it."""
        return next((v for run in self.runs if (v := run.number(column)) is not None), None)


def join(grid: Mapping[str, Any], records: pd.DataFrame, mix: bool = False) -> list[Corpus]:
    """Returns the grid's corpora in wanted order, with every wanted trial exactly once.

    `mix`: records are averaged even where they differ in environment. BadInput if a trial of the
    grid's file lacks a field that the page cannot do without.
    """
    for wanted in grid["wanted"]:
        for field in ("corpus", "cell", "regularizer", "nhid", "rep"):
            if field not in wanted["trial"]:
                raise BadInput(
                    f"grid {grid['name']}: trial {one_line(wanted['run_id'], 40)} has no {field}; "
                    "start the grid again to write its file anew"
                )
    by_id = {record["run_id"]: record for record in _plain(records)}
    runs = {}
    for wanted in grid["wanted"]:
        record = by_id.get(wanted["run_id"], {})
        status = str(record["status"]) if record else NOT_YET
        place = () if mix else environment.of(record)
        runs[wanted["run_id"]] = Run(wanted["run_id"], wanted["trial"], status, record, place)
    regularizers = shorten(str(r.trial["regularizer"]) for r in runs.values())
    cells = shorten(str(r.trial["cell"]) for r in runs.values())
    by_corpus = _group(runs.values(), lambda run: str(run.trial["corpus"]))
    return [_corpus(name, part, cells, regularizers) for name, part in by_corpus.items()]


def short_name(spelling: str) -> str:
    """`ar:alpha=2+tar:beta=1` -> `ar+tar`."""
    return "+".join(part.split(":")[0] for part in spelling.split("+"))


def shorten(spellings: Iterable[str]) -> dict[str, str]:
    """Maps each full spelling to a short one: only the hyper-parameters that vary are kept."""
    known = list(dict.fromkeys(spellings))
    short = {}
    for same in _group(known, short_name).values():
        parts = [[part.split(":") for part in spelling.split("+")] for spelling in same]
        shared = [
            set.intersection(*(set(hparams) for _, *hparams in rivals))
            for rivals in zip(*parts, strict=True)
        ]
        for spelling, own in zip(same, parts, strict=True):
            kept = (
                ":".join([name, *(h for h in hparams if h not in common)])
                for (name, *hparams), common in zip(own, shared, strict=True)
            )
            short[spelling] = "+".join(kept)
    times = Counter(short.values())
    return {full: full if times[s] > 1 else s for full, s in short.items()}


def _corpus(
    name: str, runs: Sequence[Run], cells: Mapping[str, str], labels: Mapping[str, str]
) -> Corpus:
    apart = {"corpus", "regularizer", "rep"}
    fields = [f for f in runs[0].trial if f not in apart]
    varying = [f for f in fields if _varies(f, runs)]
    shown = [
        f
        for f in varying
        if f not in {"cell", "nhid"}
        and len({repr(run.trial.get(f)) for run in runs if acts(run.trial, f)}) > 1
        and not _follows(f, runs)
    ]
    groups = list(_group(runs, lambda r: tuple(repr(r.trial.get(f)) for f in varying)).values())
    sizes = [f"{cells[str(s[0].trial['cell'])]} {s[0].trial['nhid']} units" for s in groups]
    details = [tuple(_detail(s[0].trial, f) for f in shown) for s in groups]
    rows = []
    for same, size, more, short in zip(groups, sizes, details, _apart(sizes, details), strict=True):
        settings = [
            Setting(spelling, short_name(spelling), labels[spelling], tuple(part))
            for spelling, part in _group(same, lambda r: str(r.trial["regularizer"])).items()
        ]
        rows.append(Row(size, tuple(filter(None, more)), short, _choose(settings)))
    names = dict.fromkeys(s.name for row in rows for s in row.settings)
    ordered = sorted(names, key=lambda n: n != BASELINE)  # stable: the rest as the grid has them
    return Corpus(name, tuple(ordered), tuple(rows))


def _varies(field: str, runs: Sequence[Run]) -> bool:
    value = runs[0].trial.get(field)
    text = repr(value)
    others = (run.trial.get(field) for run in runs)
    return any(other is not value and repr(other) != text for other in others)


def _apart(sizes: Sequence[str], details: Sequence[tuple[str, ...]]) -> list[str]:
    """Short labels that differ: of the details only those that tell rows of one size apart."""
    short = list(sizes)
    for i in range(len(details[0])):
        met = _group(range(len(short)), lambda row: short[row])
        for rows in met.values():
            if len({details[row][i] for row in rows}) > 1:
                for row in rows:
                    short[row] += f", {details[row][i]}" if details[row][i] else ""
    return short


def _choose(settings: Sequence[Setting]) -> tuple[Setting, ...]:
    """Marks the best on valid of each name. Never looks at test.

    A diverged run is infinitely bad on valid, so settings without one come first.
    """

    def rank(setting: Setting) -> tuple[bool, float]:
        values = list(setting.values("valid_nll").values())
        diverged = any(run.status == "diverged" for run in setting.runs)
        return diverged, sum(values) / len(values)

    best = set()
    for rivals in _group(settings, lambda s: s.name).values():
        candidates = [s for s in rivals if s.values("valid_nll")]
        if len(rivals) == 1 and rivals[0].environments:
            best.add(rivals[0].spelling)
        elif candidates:
            best.add(min(candidates, key=rank).spelling)
    return tuple(replace(s, chosen=s.spelling in best) for s in settings)


def _follows(field: str, runs: Sequence[Run]) -> bool:
    """Whether `field` only repeats another: emsize nhid, dropouti dropout, min_lr a part of lr."""
    source = {"emsize": "nhid", "dropouti": "dropout", "min_lr": "lr"}.get(field)
    if source is None:
        return False
    acting = [run.trial for run in runs if acts(run.trial, field)]
    pairs = [(trial.get(field), trial.get(source)) for trial in acting]
    if field == "min_lr":
        return len({f"{a / b:.9g}" if a and b else (a, b) for a, b in pairs}) == 1
    return all(a == b for a, b in pairs)


def _detail(trial: Mapping[str, Any], field: str) -> str:
    """`clip 0.25`; empty where the field does nothing in this trial."""
    return f"{field} {written(trial.get(field))}" if acts(trial, field) else ""


def _plain(records: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The records as plain Python values, with None for every kind of null."""
    import pyarrow as pa

    names = list(records.columns)
    columns = [pa.array(records[name], from_pandas=True).to_pylist() for name in names]
    for values in zip(*columns, strict=True):
        yield dict(zip(names, values, strict=True))


def _group(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
