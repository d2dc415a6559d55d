"""The page's tables of results as plain text for the template: every number is worked out here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bench.report import beside, environment, words
from bench.report.comparisons import Pairs, differences, left_out
from bench.report.entries import BASELINE, NOT_YET, Corpus, Row, Run, Setting
from bench.stats import holm, mean_interval

View = dict[str, Any]


def counts(runs: Sequence[Run]) -> str:
    """`34 of 36 recorded: 33 ok, 1 diverged; 2 not yet run`."""
    done = sorted((r.status for r in runs if r.status != NOT_YET), key=_by_status)
    text = f"{len(done)} of {len(runs)} recorded"
    text += f": {words.count(done)}" if done else ""
    missing = len(runs) - len(done)
    return text + (f"; {missing} {NOT_YET}" if missing else "")


def repetitions(corpora: Sequence[Corpus]) -> str:
    """What the planned repetitions are good for, in the words the whole page uses."""
    planned = [len(s.runs) for c in corpora for row in c.rows for s in row.settings]
    if not planned:
        return NOT_YET
    low, high = min(planned), max(planned)
    number = str(low) if low == high else f"{low} to {high}"
    return (
        f"{number} planned per entry, {words.standing(low)}. Fewer than three repetitions are too "
        "few to say anything, three are a look, five a result."
    )


def parameters(row: Row) -> str:
    """Trainable parameters of a row's models, as recorded."""
    found = {run.number("num_params") for s in row.settings for run in s.runs} - {None}
    return " / ".join(words.number(n) for n in sorted(n for n in found if n is not None))


def main_table(shown: Corpus, corpus: Corpus) -> list[View]:
    """Rows of the main table: one list of settings per regularizer name.

    `shown` are the first rows of `corpus`, the last of them perhaps cut. Which setting is the best
    of how many is asked of the row as it was before.
    """
    floors = {split: corpus.known(f"{split}_floor") is not None for split in ("valid", "test")}
    numbers = beside.notes(shown)
    table = []
    for row, whole in zip(shown.rows, corpus.rows, strict=False):
        columns = []
        for name in corpus.names:
            rivals = sum(s.name == name for s in whole.settings)
            mixed = any(s.name == name and s.mixed for s in whole.settings)
            same = [s for s in row.settings if s.name == name]
            best = "best on valid of those averaged" if mixed else "best on valid"
            entries = [_entry(s, floors, best if rivals > 1 else "") for s in same]
            for entry, setting in zip(entries, same, strict=True):
                fits = setting.chosen or rivals == 1  # beside the best of one name, once
                entry["published"] = beside.beside(row, setting, numbers) if fits else []
            columns.append(
                {"entries": entries, "none": "not shown" if rivals else "not in the grid"}
            )
        view: View = {"size": row.size, "details": row.details, "parameters": parameters(whole)}
        table.append(view | {"columns": columns})
    return table


def _entry(setting: Setting, floors: dict[str, bool], best: str) -> View:
    """`best`: what the chosen setting is among several of its name; empty where it is alone."""
    ok = sum(run.ok for run in setting.runs)
    others = [r.status for r in setting.runs if not r.ok and r.status != "diverged"]  # has a badge
    splits = [_split(setting, "valid", floors["valid"])]
    if setting.chosen:
        splits.append(_split(setting, "test", floors["test"]))
    return {
        "label": setting.label if best else "",
        "spelling": setting.spelling,
        "best": best if setting.chosen else "",
        "splits": splits if ok and not setting.mixed else [],
        "apart": not_averaged(setting),
        "n": f"n = {ok}" if ok == len(setting.runs) else f"{ok}/{len(setting.runs)} ok",
        "missing": words.count(sorted(others, key=_by_status)),
        "marks": marks(setting.runs),
    }


def not_averaged(setting: Setting) -> str:
    """`3 on NVIDIA A100, 2 on NVIDIA H200: not averaged`; empty where it is."""
    if not setting.mixed:
        return ""
    return f"{environment.told(list(setting.environments.values()))}: not averaged"


def _split(setting: Setting, split: str, floor: bool) -> View:
    values = list(setting.values(f"{split}_nll").values())
    if not values:
        return {"split": split, "ppl": words.NOTHING, "interval": "", "excess": "", "mc": ""}
    nll = mean_interval(values)
    view = {"split": split, "ppl": words.ppl(nll.mean), "interval": words.ppl_interval(nll)}
    view["nll"] = f"mean nll {words.nats(nll.mean)} nats"
    view["excess"] = _excess(setting, split) if floor else ""
    mc = list(setting.values(f"{split}_mc_nll").values())
    view["mc"] = words.ppl(sum(mc) / len(mc)) if mc else ""
    return view


def _excess(setting: Setting, split: str) -> str:
    """Mean excess over the source, with the sampling error of the split.

    All repetitions read the same text, so that error does not shrink with their number: it is
    their root mean square.
    """
    excess = list(setting.values(f"{split}_excess").values())
    errors = list(setting.values(f"{split}_excess_se").values())
    if not excess:
        return ""
    text = words.nats(sum(excess) / len(excess), True)
    if not errors:
        return text
    return f"{text} (se {words.nats(math.sqrt(sum(e * e for e in errors) / len(errors)))})"


def marks(runs: Sequence[Run]) -> list[View]:
    """Badges that must be seen beside a number: impossible, diverged, not learned."""
    found = []
    for kind, hits in (
        ("impossible", sum(run.reason == "impossible" for run in runs)),
        ("diverged", sum(run.status == "diverged" for run in runs)),
        ("not learned", sum(run.reason == "not_learned" for run in runs)),
    ):
        if hits:
            css = kind.replace(" ", "-")
            found.append({"kind": css, "text": f"{kind} {hits}/{len(runs)}"})
    return found


def paired_table(corpus: Corpus) -> list[View]:
    """Rows with their paired differences; Holm's correction runs over all rows of one split.

    Beside the words each has the numbers: `estimate`, and `adjusted`, its p after Holm, or None.
    """
    table: list[View] = []
    raw: dict[str, list[tuple[View, float]]] = {"valid": [], "test": []}
    for row in corpus.rows:
        lines: list[View] = []
        for split, family in raw.items():
            for setting, d, both in differences(row, split):
                view: View = {"row": row, "setting": setting, "split": split, "estimate": d}
                view |= dict.fromkeys(("difference", "interval", "p", "holm"), words.NOTHING)
                view |= {"n": d.n if d else 0, "verdict": _no_pair(row, both), "adjusted": None}
                view["apart"] = left_out(both)
                if d is not None:
                    view["difference"] = words.nats(d.mean, True)
                    view["interval"] = words.nats_interval(d)
                    view["verdict"] = words.verdict(d)
                # Of fewer than three pairs nothing is said, so they are no test of a family.
                if d is not None and d.p is not None and d.n >= 3:
                    view["p"] = words.p_value(d.p)
                    family.append((view, d.p))
                lines.append(view)
        order = [s.spelling for s in row.settings]
        lines.sort(key=lambda view: order.index(view["setting"].spelling))  # valid, then test
        table += spanned(lines)
    for family in raw.values():
        for (view, p), adjusted in zip(family, holm([p for _, p in family]), strict=True):
            view |= {"adjusted": adjusted, "holm": words.p_value(adjusted)}
            if p < 0.05 <= adjusted:
                view["verdict"] += ", not after Holm"
    return table


def spanned(lines: list[View]) -> list[View]:
    """Lines of one row: the first carries the row's label for all of them."""
    for i, view in enumerate(lines):
        view["span"] = 0 if i else len(lines)
    return lines


def _no_pair(row: Row, both: Pairs) -> str:
    if row.baseline is None:
        return f"no `{BASELINE}` in this row to compare with"
    if both.told:
        return "not averaged"
    return "no pair in one environment" if both.across else "no complete pair"


def _by_status(status: str) -> int:
    order = ("ok", "stopped", "diverged", "failed", "oom", "timeout", "lost", NOT_YET)
    return order.index(status) if status in order else len(order)
