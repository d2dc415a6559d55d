"""Simulated grids for the report's tests, and what a reader sees of a page."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench.report import figures, page
from bench.report.entries import join
from bench.store import schema

HOSTILE = (
    "</script><img src=x onerror=alert(1)>", '"><b>', "{{7*7}}", "<!--<script>", "%{x}",
    '<a href="javascript:alert(1)">x</a>', "<b>bold</b>&lt;i&gt;", "javascript:alert(1)",
    "'\\\" onload=alert(1) x='", "a\u202egnp.exe\u2066\u200b", "\x07\x1b[31m\x00\x85",
    "</style><style>*{display:none}</style>", "=HYPERLINK(A1)", "@SUM(1)",
)  # fmt: skip
BASE: dict[str, Any] = {
    "corpus": "synthetic", "cell": "lstm", "regularizer": "none", "nlayers": 2, "nhid": 200,
    "emsize": 200, "tied": True, "dropout": 0.2, "dropouti": 0.2, "dropouth": 0.2, "bptt": 35,
    "batch_size": 5, "epochs": 10, "optimizer": "sgd", "lr": 20.0, "lr_decay": 4.0,
    "min_lr": 20 / 4**6, "clip": 0.25, "wdecay": 1e-7, "precision": "fp32", "rep": 0,
}  # fmt: skip


class Grid:
    """A grid under construction: wanted trials and the records of some of them."""

    def __init__(self, name: str = "demo") -> None:
        self.spec: dict[str, Any] = {
            "name": name, "command": f"python -m bench.grid {name}",
            "created_utc": "2026-01-02T03:04:05Z", "wanted": [], "skipped": [], "merged": 0,
        }  # fmt: skip
        self.records: list[dict[str, Any]] = []
        self.epochs: list[dict[str, Any]] = []

    def add(self, trial: dict[str, Any], curve: Sequence[float] = (), **record: Any) -> str:
        """Wants a trial; with any `record` column it is recorded, ok unless said otherwise."""
        whole = BASE | trial
        run_id = f"{len(self.spec['wanted']):012x}"
        self.spec["wanted"].append({"run_id": run_id, "trial": whole})
        if record:
            full = dict.fromkeys((c.name for c in schema.RUNS), None) | whole
            full |= {"schema": 1, "run_id": run_id, "status": "ok", "stop_reason": "annealed"}
            full |= {"torch": "2.13.0", "python": "3.11.9", "git_commit": "abc1234"}
            full |= {"host": "node1", "device": "AMD EPYC", "threads": 1, "protocol": 1}
            self.records.append(full | record)
        for i, nll in enumerate(curve, start=1):
            self.epochs.append({"run_id": run_id, "epoch": i, "step": i, "valid_nll": nll})
        return run_id

    def frames(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        return (
            pd.DataFrame(self.records, columns=[c.name for c in schema.RUNS]),
            pd.DataFrame(self.epochs, columns=[c.name for c in schema.EPOCHS]),
        )

    def html(self, problems: Sequence[str] = (), mix: bool = False) -> str:
        runs, epochs = self.frames()
        curves = figures.curves_of(epochs)
        return page.render(self.spec, join(self.spec, runs, mix), curves, problems, mix)

    def corpus(self, mix: bool = False) -> Any:
        return join(self.spec, self.frames()[0], mix)[0]


def simulate(reps: int = 3) -> Grid:
    """3 cells x 4 regularizers on the synthetic corpus, with a failed and a diverged run."""
    rng, grid = random.Random(1), Grid("quick")
    for cell, end, lr in (("lstm", 3.83, 20.0), ("gru", 3.87, 20.0), ("rnn_tanh", 4.05, 2.0)):
        level = [rng.gauss(0, 0.012) for _ in range(reps)]
        for regularizer, gain in (
            ("none", 0.0),
            ("ar:alpha=2:form=mean_square:layers=last:of=dropped", -0.02),
            ("tar:beta=1:form=mean_square:layers=last", -0.012),
            ("ar:alpha=2:of=dropped+tar:beta=1", -0.034),
        ):
            for rep in range(reps):
                trial = {"cell": cell, "regularizer": regularizer, "rep": rep, "lr": lr}
                if (cell, rep, gain) == ("rnn_tanh", 2, -0.034):
                    grid.add(trial | {"min_lr": lr / 4**6})
                    continue
                best = end + level[rep] + gain + rng.gauss(0, 0.004)
                curve = [best + 1.6 * math.exp(-e / 2.4) + rng.gauss(0, 0.006) for e in range(12)]
                curve[-1] = best
                record: dict[str, Any] = {
                    "valid_nll": best, "test_nll": best + 0.015, "valid_floor": 3.26,
                    "test_floor": 3.27, "valid_excess": best - 3.26, "valid_excess_se": 0.0042,
                    "test_excess": best + 0.015 - 3.27, "test_excess_se": 0.0041,
                    "unigram_nll": 5.31, "num_params": 1_203_400, "epochs_done": 12,
                    "best_epoch": 12, "train_seconds": 14 + rng.random() - 10 * gain,
                    "tokens_per_s": 41000 + 800 * rng.random(), "peak_mem_bytes": 412 * 2**20,
                }  # fmt: skip
                if (cell, rep, gain) == ("gru", 1, -0.012):
                    record = {"status": "failed", "stop_reason": None, "error_type": "ValueError",
                              "error_text": 'Traceback:\n  File "tar.py", line 9\n'
                              "ValueError: shapes [35, 5, 200] and [34, 5, 200]"}  # fmt: skip
                if (cell, rep, gain) == ("rnn_tanh", 0, -0.02):
                    record |= {"status": "diverged", "stop_reason": "nan", "valid_nll": math.nan}
                if (cell, rep, gain) == ("rnn_tanh", 1, 0.0):
                    record |= {"stop_reason": "not_learned"}
                grid.add(trial | {"min_lr": lr / 4**6}, curve, **record)
    pair = {"cell": "qrnn", "regularizer": "memory", "reason": "gives no memory", "count": 3}
    grid.spec["skipped"].append(pair)
    return grid


def text_of(html: str) -> str:
    """What a reader sees of the page, without scripts, styles and tags, spaces squeezed."""
    html = re.sub(r"<(script|style)\b.*?</\1>", " ", html, flags=re.S)
    html = html.replace("<wbr>", "")  # where a word may break, and no space
    text = re.sub(r"<[^>]*>", " ", html).replace("&nbsp;", " ").replace("&#39;", "'")
    return " ".join(text.split())


def figures_of(html: str) -> list[dict[str, Any]]:
    found = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', html, flags=re.S)
    return [json.loads(text) for text in found]


def hostile() -> Grid:
    """Every string that comes from plugins, machines or errors is an attack, one on each corpus.

    On the last corpus the machines differ, too.
    """
    grid = Grid("quick")
    for i, bad in enumerate(HOSTILE):
        part = simulate()
        kept = {}
        for wanted in part.spec["wanted"][12 * (i % 3) :][:12]:
            kept[wanted["run_id"]] = run_id = f"{len(grid.spec['wanted']):012x}"
            for field in ("cell", "regularizer", "corpus"):
                old = wanted["trial"][field]
                wanted["trial"][field] = old if old == "none" else f"{bad}{old}"
            grid.spec["wanted"].append(wanted | {"run_id": run_id})
        for rows, found in ((part.records, grid.records), (part.epochs, grid.epochs)):
            found += [
                row | {"run_id": kept[row["run_id"]]} for row in rows if row["run_id"] in kept
            ]
        for n, record in enumerate(grid.records):
            if record["run_id"] not in kept.values():
                continue
            words = ("device", "torch", "cuda", "cudnn", "driver", "determinism", "kernel_path")
            record |= dict.fromkeys((*words, "git_commit", "stop_reason"), bad)
            record["host"] = HOSTILE[n % len(HOSTILE)]
            if bad == HOSTILE[-1]:
                record["device"] = HOSTILE[n % len(HOSTILE)]
            if record["status"] != "ok":
                record |= {"error_type": bad, "error_text": f"{bad}\nError: {bad}"}
    # A grid's file is JSON, which holds what Parquet does not: half a surrogate pair.
    grid.spec["command"] = f"{HOSTILE[0]}\ud800"
    grid.spec["skipped"] = [{"cell": b, "regularizer": b, "reason": b, "count": 1} for b in HOSTILE]
    return grid
