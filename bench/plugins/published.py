"""The published figures of bench/published.csv: perplexities that somebody else measured.

Only what was seen in print stands there: V1 in one source, V2 in two or more. They are shown beside
our own and enter no statistic: protocols differ, and there is no repetition to pair with.
Figures in bits per character are left out on purpose: every model here reads words.
"""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.plugins.spelling import spell

FILE = Path(__file__).resolve().parent.parent / "published.csv"
MARKS = {"V1": "seen in one source", "V2": "seen in two or more independent sources"}
EVALUATIONS = ("plain", "mc", "cache")
"""One pass without noise; the mean over noisy passes; with a continuous cache, never compared."""


STRENGTHS = {
    "lstm_recurrent_dropout": ("p",),
    "lstm_variational": ("p",),
    "lstm_weightdrop": ("wdrop",),
    "lstm_zoneout": ("zc", "zh"),
    "rhn": ("p",),
    "ar": ("alpha",),
    "tar": ("beta",),
    "norm_stabilizer": ("beta",),
}
"""Hyper-parameters that, all at 0, switch a plugin of the table off: then it is not that method."""
_TOLERANCE = 0.05


@dataclass(frozen=True)
class Published:
    """One row: `cell` and `regularizer` are names of ours, or empty where we have no such thing.

    `regularizer` is a sum of names (`ar+tar`); `dropout` says whether there is any, between layers
    or on a word. `emsize` is nhid where the source has no other. `only` are conditions on a trial
    by field or hyper-parameter of the cell: `optimizer=sgd`, or `wdecay` for one that is not 0.
    None means that the source does not say.
    """

    model: str
    cell: str
    regularizer: str
    corpus: str
    nlayers: int | None
    nhid: int | None
    emsize: int | None
    tied: bool | None
    dropout: bool | None
    objective: str
    only: str
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

    def agrees(self, trial: Mapping[str, object], record: Mapping[str, object]) -> bool:
        """Whether it can stand beside a trial: cell, regularizer, corpus and size are the same.

        Depth, tying and whether there is dropout count where the source states them, and so does
        `only`; rates, coefficients, optimizer and epochs may else differ, but a method that is
        switched off is none. `record` is empty where none is: then nothing is known of the size of
        a row that has only a number of parameters, and the two do not agree.
        """
        cell, *hparams = str(trial.get("cell")).split(":")
        rates = [trial.get(name) for name in ("dropout", "dropouti", "dropouth", "dropoute")]
        return (
            (self.cell, self.regularizer) == (cell, _names(trial))
            and self.corpus == trial.get("corpus")
            and self._size_agrees(trial, record.get("num_params"))
            and self.nlayers in (None, trial.get("nlayers"))
            and self.tied in (None, trial.get("tied"))
            and self.dropout in (None, any(rates))
            and self.objective == str(trial.get("objective") or "nll").split(":")[0]
            and self.evaluation != "cache"
            and not _switched_off(trial)
            and self._only_holds(_spelled(trial) | _recorded(record) | _given(hparams))
        )

    def _size_agrees(self, trial: Mapping[str, object], num_params: object) -> bool:
        if self.nhid is not None and (
            (self.nhid, self.emsize or self.nhid)
            != (trial.get("nhid"), trial.get("emsize") or trial.get("nhid"))
        ):
            return False
        if self.num_params_millions is None:
            return self.nhid is not None
        if not isinstance(num_params, int | float):
            return False
        millions = self.num_params_millions
        return abs(num_params / 1e6 - millions) <= _TOLERANCE * millions

    def _only_holds(self, values: Mapping[str, str]) -> bool:
        for condition in self.only.split():
            name, sign, value = condition.partition("=")
            found = values.get(name)
            if found is None or (found != value if sign else found in ("0", "false")):
                return False
        return True


def _names(trial: Mapping[str, object]) -> str:
    parts = str(trial.get("regularizer")).split("+")
    return "+".join(part.split(":")[0] for part in parts)


def _spelled(trial: Mapping[str, object]) -> dict[str, str]:
    return {name: spell(value) for name, value in trial.items()}


def _recorded(record: Mapping[str, object]) -> dict[str, str]:
    """Every hyper-parameter of the cell; a spelling has only those that are not the default."""
    try:
        found = json.loads(str(record.get("cell_hparams") or "{}"))
    except ValueError:
        return {}
    return _spelled(found) if isinstance(found, dict) else {}


def _given(hparams: Iterable[str]) -> dict[str, str]:
    return dict(hparam.split("=", 1) for hparam in hparams if "=" in hparam)


def _switched_off(trial: Mapping[str, object]) -> bool:
    """Whether a plugin of the trial is set to do nothing. No default is 0, so a 0 is spelled."""
    for part in (str(trial.get("cell")), *str(trial.get("regularizer")).split("+")):
        name, *hparams = part.split(":")
        strengths, given = STRENGTHS.get(name, ()), _given(hparams)
        if strengths and all(given.get(strength) == "0" for strength in strengths):
            return True
    return False


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
        for name in (
            "model",
            "cell",
            "regularizer",
            "corpus",
            "objective",
            "only",
            "source",
            "note",
        )
    }
    built = Published(
        **words,
        nlayers=int(row["nlayers"]) if row["nlayers"] else None,
        nhid=int(row["nhid"]) if row["nhid"] else None,
        emsize=int(row["emsize"]) if row["emsize"] else None,
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
