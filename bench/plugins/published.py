"""The published figures of bench/published.csv: perplexities that somebody else measured.

Only what was seen in print stands there: V1 in one source, V2 in two or more. They are shown beside
our own and enter no statistic: protocols differ, and there is no repetition to pair with.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).resolve().parent.parent / "published.csv"
MARKS = {"V1": "seen in one source", "V2": "seen in two or more independent sources"}
EVALUATIONS = ("plain", "mc", "cache")
"""One pass without noise; the mean over noisy passes; with a continuous cache, never compared."""


@dataclass(frozen=True)
class Published:
    """One row: `cell` and `regularizer` are names of ours, or empty where we have no such thing.

    `regularizer` is a sum of names (`ar+tar`); `dropout` says whether there is any, between layers
    or on a word. None means that the source does not say.
    """

    model: str
    cell: str
    regularizer: str
    corpus: str
    nlayers: int | None
    nhid: int | None
    tied: bool | None
    dropout: bool | None
    objective: str
    num_params_millions: float | None
    evaluation: str
    valid_ppl: float | None
    test_ppl: float | None
    source: str
    mark: str
    note: str

    def ppl(self, split: str) -> float | None:
        """Perplexity on `valid` or `test`."""
        return self.valid_ppl if split == "valid" else self.test_ppl

    def agrees(self, cell: str, regularizer: str, trial: Mapping[str, object]) -> bool:
        """Whether it can stand beside a trial: cell, regularizer, corpus and size are the same.

        `cell` and `regularizer` are names without hyper-parameters. Depth, tying and whether there
        is dropout count where the source states them; rates, optimizer and epochs may differ.
        """
        rates = [trial.get(name) for name in ("dropout", "dropouti", "dropouth", "dropoute")]
        return (
            (self.cell, self.regularizer) == (cell, regularizer)
            and self.corpus == trial.get("corpus")
            and self.nhid == trial.get("nhid")
            and self.nlayers in (None, trial.get("nlayers"))
            and self.tied in (None, trial.get("tied"))
            and self.dropout in (None, any(rates))
            and self.objective == str(trial.get("objective") or "nll").split(":")[0]
            and self.evaluation != "cache"
        )


def published() -> list[Published]:
    """Returns the table; ValueError, naming the line, where a row is not as it must be."""
    return list(_read(FILE))


@functools.cache
def _read(path: Path) -> tuple[Published, ...]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file, strict=True)
        rows = []
        for row in reader:
            try:
                rows.append(_row(row))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path.name}:{reader.line_num}: {error}") from None
    return tuple(rows)


_BOOL = {"": None, "true": True, "false": False}


def _row(row: dict[str, str]) -> Published:
    words = {
        name: row[name]
        for name in ("model", "cell", "regularizer", "corpus", "objective", "source", "note")
    }
    built = Published(
        **words,
        nlayers=int(row["nlayers"]) if row["nlayers"] else None,
        nhid=int(row["nhid"]) if row["nhid"] else None,
        tied=_BOOL[row["tied"]],
        dropout=_BOOL[row["dropout"]],
        num_params_millions=_float(row["num_params_millions"]),
        evaluation=row["evaluation"],
        valid_ppl=_float(row["valid_ppl"]),
        test_ppl=_float(row["test_ppl"]),
        mark=row["mark"],
    )
    if built.mark not in MARKS or built.evaluation not in EVALUATIONS:
        raise ValueError(f"mark {built.mark!r}, evaluation {built.evaluation!r}")
    if not (built.model and built.corpus and built.objective and built.source):
        raise ValueError("model, corpus, objective and source must be given")
    if built.valid_ppl is None and built.test_ppl is None:
        raise ValueError("a row needs a perplexity")
    return built


def _float(text: str) -> float | None:
    return float(text) if text else None
