"""What a disturbed grid must have come to: each trial recorded once, as in an undisturbed run."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.store import EPOCH_RESULT_COLUMNS, FINAL, load_epochs, load_grid, load_runs
from bench.store.care import check, differing
from bench.store.files import compacted_names, own_files

_SHOWN = 20


@dataclass
class Verdict:
    """What is wrong with a results folder, in lines; and of its records, how many were resumed."""

    lost: list[str] = field(default_factory=list)
    double: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    resumed: int = 0

    def lines(self) -> list[str]:
        """Returns the first lines of each kind."""
        kinds = {"lost": self.lost, "double": self.double, "wrong": self.wrong}
        return [f"{kind}: {line}" for kind, found in kinds.items() for line in found[:_SHOWN]]


def judge(calm: Path, results: Path, grid: str) -> Verdict:
    """Compares the records of a grid with those of an undisturbed run of it, `calm`."""
    wanted = [one["run_id"] for one in load_grid(calm, grid)["wanted"]]
    verdict = Verdict()
    if [one["run_id"] for one in load_grid(results, grid)["wanted"]] != wanted:
        verdict.wrong.append(f"grids/{grid}.json is another grid")
    _judge_files(results, wanted, verdict)
    records, others = _records(results, verdict), _records(calm, verdict)
    curves, calm_curves = _curves(results, verdict), _curves(calm, verdict)
    for run_id in wanted:
        record = records.get(run_id)
        if record is None or record["status"] not in FINAL:
            status = "no record" if record is None else record["status"]
            verdict.lost.append(f"{run_id}: {status}")
            continue
        if names := differing(record, others[run_id]):
            verdict.wrong.append(f"{run_id}: {', '.join(names)} not as in the undisturbed run")
        if curves.get(run_id) != calm_curves.get(run_id):
            verdict.wrong.append(f"{run_id}: epochs not as in the undisturbed run")
        verdict.resumed += bool(record["resumed"])
    verdict.wrong += check(results)
    _judge_log(results / "grids" / f"{grid}.log", verdict)
    return verdict


def _judge_files(results: Path, wanted: list[str], verdict: Verdict) -> None:
    """Each run stands in one file of each table, its own; and nothing else is there."""
    for table in ("runs", "epochs"):
        own = own_files(results, table)
        verdict.lost += [f"{table}: no file of {name}" for name in {*wanted} - {*own}]
        verdict.double += [f"{table}: a file more: {name}" for name in {*own} - {*wanted}]
        verdict.double += [f"{table}: {name} beside them" for name in compacted_names(results)]


def _judge_log(path: Path, verdict: Verdict) -> None:
    """No trial was run again after its end was recorded: the log has one end of each."""
    ends = Counter(trained(path))
    verdict.double += [
        f"{run_id}: trained {n} times to its end" for run_id, n in ends.items() if n > 1
    ]


def trained(path: Path) -> list[str]:
    """Returns the run_ids of the trials that a grid's log says were trained to their end."""
    return re.findall(r"^\S+ \S+ ([0-9a-f]{12}) .* valid \S+ test \S+", _text(path), re.M)


def tries(path: Path) -> int:
    """Returns how often, as a grid's log says, a trial vanished and was left for another wave."""
    return len(re.findall(r"^\S+ \S+ lost [0-9a-f]{12} ", _text(path), re.M))


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def _records(results: Path, verdict: Verdict) -> dict[str, dict[Any, Any]]:
    runs, problems = load_runs(results)
    verdict.wrong += problems
    rows = runs.astype(object).where(runs.notna(), None).to_dict("records")
    twice = [name for name, n in Counter(row["run_id"] for row in rows).items() if n > 1]
    verdict.double += [f"{name}: {results} has it twice" for name in twice]
    return {row["run_id"]: row for row in rows}


def _curves(results: Path, verdict: Verdict) -> dict[str, list[str]]:
    """Returns the epochs of each run as text: equal to the bit, where NaN is NaN."""
    epochs, problems = load_epochs(results, columns=EPOCH_RESULT_COLUMNS)
    verdict.wrong += problems
    found: dict[str, list[str]] = {}
    for row in epochs.to_dict("records"):
        found.setdefault(row["run_id"], []).append(repr(row))
    return found
