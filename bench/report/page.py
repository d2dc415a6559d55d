"""Assembles the page. Self-contained: plotly inside, nothing loaded from anywhere."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from bench.report import beside, cost, figures, limits, mixing, overview, tables, words
from bench.report import runs as single
from bench.report.entries import NOT_YET, Corpus, Run

HERE = Path(__file__).parent


def render(
    spec: Mapping[str, Any],
    corpora: Sequence[Corpus],
    curves: figures.Curves,
    problems: Sequence[str],
    mix: bool = False,
) -> str:
    """Returns the page; the same input gives the same bytes, so it carries no time of its own.

    `mix`: the corpora were joined so; a note says it where it makes a difference.
    """
    runs = [run for corpus in corpora for run in corpus.runs]
    parts: list[dict[str, Any]] = []
    drawn: list[dict[str, str]] = []

    def draw(kind: str, json: str | None) -> str:
        if json is None:
            return ""
        drawn.append({"id": f"figure-{len(drawn) + 1}", "json": json, "file": f"{kind}"})
        return drawn[-1]["id"]

    for corpus in corpora:
        # Holm's correction and the summary take all comparisons, also those that are not shown.
        paired = tables.paired_table(corpus)
        shown, few = limits.first(corpus, limits.SETTINGS), limits.first(corpus, limits.DRAWN)
        parts.append(
            {
                "name": corpus.name,
                "names": corpus.names,
                "cut": limits.cut(shown, corpus),
                "cut_drawn": limits.cut(few, corpus),
                "summary": [] if few is corpus else limits.summary(corpus, paired),
                "overview": draw("overview", overview.overview(few)),
                "no_overview": limits.no_overview(few, corpus),
                "main": tables.main_table(shown, corpus),
                "published": beside.sources(beside.notes(shown)),
                "mc": any(run.number("valid_mc_nll") is not None for run in corpus.runs),
                "floor": words.ppl(corpus.known("valid_floor")),
                "unigram": words.ppl(corpus.known("unigram_nll")),
                "known_floor": corpus.known("valid_floor") is not None,
                "paired": paired if shown is corpus else limits.lines(paired, shown),
                "forest": draw("differences", figures.forest(few)),
                "curves": draw("curves", figures.learning_curves(few, curves)),
                "cost": cost.cost_table(shown),
            }
        )
    plotly = get_plotlyjs() if drawn else ""
    note = mixing.note(corpora)
    script = (HERE / "page.js").read_text(encoding="utf-8")
    failures = single.failures(corpora)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            grid=spec,
            mixing=note,
            mix=mix,
            counts=tables.counts(runs),
            repetitions=tables.repetitions(corpora),
            corpora=parts,
            spellings=_spellings(corpora),
            facts=_facts(runs),
            dirty=any(run.record.get("git_dirty") for run in runs),
            problems=problems,
            impossible=single.impossible(corpora),
            failures=failures,
            failure_counts=words.count(f"{f['status']}: {f['error']}" for f in failures),
            runs=single.all_runs(corpora, limits.RUNS),
            where=mixing.where(corpora) if note else {},
            total=len(runs),
            lines=limits.LINES,
            not_yet=NOT_YET,
            figures=drawn,
            plotly=plotly,
            script=script,
            csp=_csp([plotly, script], [*_styles(plotly)]),
        )
    )


def render_index(grids: Sequence[Mapping[str, Any]]) -> str:
    """Returns the page that lists all grids."""
    return _environment().get_template("index.html.j2").render(grids=grids, csp=_csp([], []))


def _facts(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Hardware, versions and commits met in the records, each with its number of runs."""

    def met(line: Any, *columns: str) -> list[str]:
        alike = Counter(tuple(map(run.record.get, columns)) for run in runs if run.record)
        found: Counter[str] = Counter()
        for values, n in alike.items():
            found[line(*values)] += n
        lines = sorted(text for text in found if text)
        return [f"{text} ({found[text]} runs)" if len(lines) > 1 else text for text in lines]

    names = ("torch", "cuda", "cudnn", "driver", "python")

    def versions(*values: Any) -> str:
        return ", ".join(f"{n} {v}" for n, v in zip(names, values, strict=True) if v)

    def hardware(host: Any, device: Any, threads: Any) -> str:
        count = f"{threads} thread{'s' if threads != 1 else ''}" if threads else ""
        return ", ".join(str(v) for v in (host, device, count) if v)

    def commit(commit: Any, dirty: Any) -> str:
        if not commit:
            return "not from a repository"
        return f"{commit}{' with uncommitted changes' if dirty else ''}"

    def plain(value: Any) -> str:
        return str(value or "")

    return [
        ("Hardware", met(hardware, "host", "device", "threads")),
        ("Versions", met(versions, *names)),
        ("Switches", met(plain, "determinism")),
        ("Commit", met(commit, "git_commit", "git_dirty")),
        ("Protocol", met(plain, "protocol")),
    ]


def _spellings(corpora: Sequence[Corpus]) -> list[tuple[str, str]]:
    """Short names of regularizers and cells with what they stand for, where they differ."""
    settings = {s.label: s.spelling for c in corpora for row in c.rows for s in row.settings}
    cells = {str(run.trial["cell"]): "" for c in corpora for run in c.runs}
    found = [(label, full) for label, full in settings.items() if label != full]
    return found + [(full.split(":")[0], full) for full in cells if ":" in full]


def _environment() -> Environment:
    env = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda found: words.visible(found) if type(found) is str else found,
    )
    env.filters["visible"] = words.visible
    env.globals["css"] = _css()
    return env


def _css() -> str:
    return (HERE / "page.css").read_text(encoding="utf-8")


def _styles(plotly: str) -> Iterator[str]:
    """Style sheets that plotly adds: an empty one that it fills, and that of its maps."""
    if plotly:
        yield ""
        _, start, rest = plotly.partition(".textContent='.maplibregl")
        yield f".maplibregl{rest.partition(chr(39))[0]}" if start else ""


def _csp(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """A policy that runs these scripts and style sheets, to the byte, and loads nothing.

    Plotly sets style attributes, so those are free: they can neither load nor run anything here.
    """
    script = " ".join(_hash(text) for text in scripts if text) or "'none'"
    style = " ".join(dict.fromkeys(_hash(text) for text in (_css(), *styles)))
    return (
        f"default-src 'none'; script-src {script}; script-src-attr 'none'; style-src-elem {style}; "
        "style-src-attr 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
