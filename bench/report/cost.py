"""The page's table of training cost."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from bench.report import words
from bench.report.comparisons import pairs
from bench.report.entries import BASELINE, Corpus, Row, Run, Setting
from bench.report.tables import View, spanned
from bench.stats import Estimate, paired


def cost_table(corpus: Corpus) -> list[View]:
    """Rows of the cost table, from ok runs; ratios pair equal repetitions on equal devices.

    Means go over all hosts whose devices have one name, and say so: such hosts may differ in speed.
    Runs that were packed shared the device with others: their clocks measure those, too, and count
    for nothing here.
    """
    table: list[View] = []
    for row in corpus.rows:
        lines: list[View] = []
        for setting in row.settings:
            ok = [run for run in setting.runs if run.ok and _alone(run)]
            averaged = () if setting.mixed else ok
            speed = [v for run in averaged if (v := run.number("tokens_per_s"))]
            epoch = [v for run in averaged if (v := _epoch_seconds(run))]
            time, rate = (_log_ratio(row, setting, f) for f in (_epoch_seconds, _tokens_per_s))
            lines.append(
                {
                    "row": row,
                    "setting": setting,
                    "n": len(ok),
                    "hosts": len({run.record.get("host") for run in averaged}),
                    "tokens": words.number(sum(speed) / len(speed) if speed else None),
                    "seconds": words.number(sum(epoch) / len(epoch) if epoch else None, 2),
                    "time": words.ratio(time) if time else words.NOTHING,
                    "rate": words.ratio(rate) if rate else words.NOTHING,
                    "verdict": words.verdict(time, "faster", "slower") if time else "",
                }
            )
        table += spanned(lines)
    return table


def _log_ratio(row: Row, setting: Setting, measure: Any) -> Estimate | None:
    base = row.baseline
    if base is None or setting.name == BASELINE:
        return None
    devices = {r.rep: _device(r) for r in base.runs}
    both = pairs(setting, base).reps
    same = [r for r in setting.runs if r.rep in both and devices[r.rep] == _device(r)]

    def logs(runs: Iterable[Run]) -> dict[int, float]:
        return {r.rep: math.log(v) for r in runs if r.ok and _alone(r) and (v := measure(r))}

    return paired(logs(same), logs(base.runs))


def _device(run: Run) -> tuple[Any, ...]:
    return tuple(run.record.get(c) for c in ("host", "device", "threads", "kernel_path"))


def _alone(run: Run) -> bool:
    return (run.number("packed") or 1) == 1  # null in records from before


def _epoch_seconds(run: Run) -> float | None:
    seconds, epochs = run.number("train_seconds"), run.number("epochs_done")
    return seconds / epochs if seconds and epochs and min(seconds, epochs) > 0 else None


def _tokens_per_s(run: Run) -> float | None:
    speed = run.number("tokens_per_s")
    return speed if speed and speed > 0 else None
