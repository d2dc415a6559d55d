"""The summary as a table for spreadsheets: a row for each entry, numbers at full precision."""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from bench.config import FIELDS
from bench.report import environment, words
from bench.report.entries import NOT_YET, Corpus, Setting
from bench.report.tables import not_averaged, paired_table
from bench.stats import mean_interval
from bench.store import STATUSES

Line = dict[str, Any]

_SPLITS = ("valid", "test")
_NAMES = ("corpus", "cell", "regularizer")
_FIELDS = tuple(name for name in FIELDS if name not in (*_NAMES, "rep"))
_SCORES = ("nll", "nll_low", "nll_high", "ppl", "ppl_low", "ppl_high", "excess", "mc_nll")
_COMPARED = ("difference", "difference_low", "difference_high", "pairs", "p", "p_holm")
HEADER = (
    *_NAMES, *_FIELDS, "num_params", "wanted", *STATUSES, "not_run", "best_on_valid",
    *(f"{split}_{name}" for split in _SPLITS for name in _SCORES),
    *(f"{split}_{name}" for split in _SPLITS for name in _COMPARED),
    *environment.COLUMNS, "not_averaged",
)  # fmt: skip
_START = "=+\\-@\uff1d\uff0b\uff0d\uff20"
_FORMULA = re.compile(rf"\A(?=[\t\r\n]|\s*[{_START}])|(?<=[;\t\r\n])(?=[\s\"]*[{_START}])")
"""Where a cell with a formula would begin: at the start of a text, and within it where a
spreadsheet whose decimal sign is a comma (separated by `;`), or one that is told so, cuts it."""


def as_csv(corpora: Sequence[Corpus]) -> str:
    """Returns the table of all entries, also of those that a large page leaves out.

    As on the page: no mean of an entry whose records differ in environment, and test only of what
    is best on valid. `difference` is to `none` in the same row, in nats.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, HEADER)
    writer.writeheader()
    for corpus in corpora:
        lines: dict[tuple[str, str], Line] = {}
        for row in corpus.rows:
            for setting in row.settings:
                lines[row.label, setting.spelling] = _entry(setting)
        for view in paired_table(corpus):
            lines[view["row"].label, view["setting"].spelling] |= _difference(view)
        for line in lines.values():
            writer.writerow({name: cell(value) for name, value in line.items()})
    return text.getvalue()


def cell(value: Any) -> Any:
    """Returns a value as the file has it.

    A spreadsheet takes a text for a formula that starts like one, perhaps after blanks; with an
    apostrophe before it, it is text. A number stays a number, also a negative one.
    """
    return _FORMULA.sub("'", words.visible(value)) if isinstance(value, str) else value


def _entry(setting: Setting) -> Line:
    trial = setting.runs[0].trial
    met = Counter(run.status for run in setting.runs)
    line: Line = {name: trial.get(name) for name in (*_NAMES, *_FIELDS)}
    line |= {status: met[status] for status in STATUSES}
    line |= {"wanted": len(setting.runs), "not_run": met[NOT_YET], "best_on_valid": setting.chosen}
    line["num_params"] = next((n for r in setting.runs if (n := r.number("num_params"))), None)
    for split in _SPLITS if setting.chosen else _SPLITS[:1]:
        line |= {f"{split}_{name}": value for name, value in _scores(setting, split).items()}
    places = zip(*(environment.of(run.record) for run in setting.runs if run.ok), strict=True)
    for name, values in zip(environment.COLUMNS, places, strict=False):
        known = Counter(values)
        several = "; ".join(f"{n} {environment.value(v)}" for v, n in known.most_common())
        line[name] = values[0] if len(known) == 1 else several
    return line | {"not_averaged": not_averaged(setting)}


def _scores(setting: Setting, split: str) -> Line:
    values = list(setting.values(f"{split}_nll").values())
    if not values:
        return {}
    nll = mean_interval(values)
    line: Line = {"nll": nll.mean, "nll_low": nll.low, "nll_high": nll.high}
    line |= {name.replace("nll", "ppl"): _ppl(value) for name, value in line.items()}
    for name in ("excess", "mc_nll"):
        found = list(setting.values(f"{split}_{name}").values())
        line[name] = sum(found) / len(found) if found else None
    return line


def _ppl(nll: float | None) -> float | None:
    return math.exp(nll) if nll is not None and nll < 700 else None  # beyond that, no float


def _difference(view: Line) -> Line:
    d, split = view["estimate"], view["split"]
    if d is None:
        return {f"{split}_pairs": 0}
    # As on the page: of fewer than three pairs nothing is said.
    numbers = (d.mean, d.low, d.high, d.n, d.p if d.n >= 3 else None, view["adjusted"])
    return {f"{split}_{name}": value for name, value in zip(_COMPARED, numbers, strict=True)}
