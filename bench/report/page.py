"""Assembles the page and writes it. Self-contained: plotly inside, nothing loaded from anywhere."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from bench import store
from bench.errors import BadInput, one_line
from bench.report import beside, cost, figures, limits, overview, tables, words
from bench.report import runs as single
from bench.report.entries import COLUMNS, NOT_YET, Corpus, Run, join

HERE = Path(__file__).parent
INDEX = "index"


def write_grid(results: Path, grid: str) -> Path:
    """Writes reports/<grid>.html; BadInput if the grid is unknown or writing fails."""
    return _write_grid(results, grid)[0]


def write_all(results: Path) -> Path:
    """Writes every grid's page, then reports/index.html; a broken grid file is listed as such."""
    if not results.is_dir():
        raise BadInput(f"{results}: no such folder. Give the one that holds runs/ with --results.")
    listing = []
    for name in store.grid_names(results):
        entry: dict[str, Any] = {"name": name, "href": "", "problem": ""}
        try:
            path, corpora, spec = _write_grid(results, name)
        except BadInput as error:
            entry["problem"] = str(error)
        else:
            runs = [run for corpus in corpora for run in corpus.runs]
            failed = sum(run.status in ("failed", "oom", "timeout") for run in runs)
            done = sum(run.status in ("ok", "diverged", "stopped") for run in runs)
            entry |= {"href": path.name, "created": spec.get("created_utc", "")}
            entry |= {"wanted": len(runs), "done": done, "failed": failed}
            entry["counts"] = tables.counts(runs)
        listing.append(entry)
    html = _environment().get_template("index.html.j2").render(grids=listing, csp=_csp([]))
    return _write(results / "reports", INDEX, html)


def _write_grid(results: Path, grid: str) -> tuple[Path, list[Corpus], Mapping[str, Any]]:
    # The name becomes a file name: nothing may lead out of the folder, nor onto the index.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", grid):
        raise BadInput(f"{one_line(grid, 60)!r} cannot name a grid: use letters, digits, . _ -")
    spec: dict[str, Any] = (
        {"created_utc": "", "merged": 0} | store.load_grid(results, grid) | {"name": grid}
    )
    ids = [str(wanted["run_id"]) for wanted in spec["wanted"]]
    records, run_problems = store.load_runs(results, ids, COLUMNS)
    corpora = join(spec, records)
    # A curve is forty rows of each run: only those that are drawn.
    drawn = [run.run_id for c in corpora for run in limits.first(c, limits.DRAWN).runs]
    epochs, epoch_problems = store.load_epochs(results, drawn, ("run_id", "epoch", "valid_nll"))
    curves = figures.curves_of(epochs)
    html = render(spec, corpora, curves, list(dict.fromkeys(run_problems + epoch_problems)))
    name = f"_{grid}" if grid.lower() == INDEX else grid
    return _write(results / "reports", name, html), corpora, spec


def render(
    spec: Mapping[str, Any],
    corpora: Sequence[Corpus],
    curves: figures.Curves,
    problems: Sequence[str],
) -> str:
    """Returns the page; the same input gives the same bytes, so it carries no time of its own."""
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
    script = (HERE / "page.js").read_text(encoding="utf-8")
    failures = single.failures(corpora)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            grid=spec,
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
            total=len(runs),
            lines=limits.LINES,
            not_yet=NOT_YET,
            figures=drawn,
            plotly=plotly,
            script=script,
            csp=_csp([plotly, script]),
        )
    )


def _facts(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Hardware, versions and commits met in the records, each with its number of runs."""

    def met(line: Any) -> list[str]:
        found = Counter(line(run.record) for run in runs if run.record)
        lines = sorted(text for text in found if text)
        return [f"{text} ({found[text]} runs)" if len(lines) > 1 else text for text in lines]

    def versions(r: Mapping[str, Any]) -> str:
        names = ("torch", "cuda", "cudnn", "python")
        return ", ".join(f"{n} {r[n]}" for n in names if r.get(n))

    def hardware(r: Mapping[str, Any]) -> str:
        threads = f"{r['threads']} threads" if r.get("threads") != 1 else "1 thread"
        return ", ".join(str(v) for v in (r.get("host"), r.get("device"), threads) if v)

    def commit(r: Mapping[str, Any]) -> str:
        if not r.get("git_commit"):
            return "not from a repository"
        return f"{r['git_commit']}{' with uncommitted changes' if r.get('git_dirty') else ''}"

    def protocol(r: Mapping[str, Any]) -> str:
        return str(r.get("protocol") or "")

    facts = {"Hardware": hardware, "Versions": versions, "Commit": commit, "Protocol": protocol}
    return [(name, met(line)) for name, line in facts.items()]


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
    )
    env.globals["css"] = (HERE / "page.css").read_text(encoding="utf-8")
    return env


def _csp(scripts: Sequence[str]) -> str:
    """A policy that runs exactly these scripts, draws inline styles and loads nothing."""
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'"
        for s in scripts
        if s
    ]
    return (
        f"default-src 'none'; script-src {' '.join(hashes) or chr(39) + 'none' + chr(39)}; "
        "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _write(folder: Path, name: str, html: str) -> Path:
    path = folder / f"{name}.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        store.write_atomically(path, html.encode())
    except OSError as error:
        raise store.StoreError(
            f"{path}: the report cannot be written: {error.strerror or error}; "
            "make room or choose another folder with --results"
        ) from None
    return path
