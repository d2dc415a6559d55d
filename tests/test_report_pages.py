"""The report as a file: what it loads, hostile names, the same bytes, and bad input."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench import report
from bench.errors import BadInput
from tests.report_grids import HOSTILE, Grid, figures_of, hostile, simulate, text_of


def test_nothing_is_loaded_and_only_two_scripts_run() -> None:
    html = simulate().html()
    outside = re.sub(r"<script\b.*?</script>", "", html, flags=re.S)
    assert not re.search(r"https?://|\bsrc\s*=|url\(|@import|<link|<iframe|<img", outside)
    csp = re.search(r'Content-Security-Policy" content="([^"]+)"', html)
    assert csp is not None and "default-src &#39;none&#39;" in csp[1]
    policy = {d.split()[0]: d.split()[1:] for d in csp[1].replace("&#39;", "'").split("; ")}
    assert len(policy["script-src"]) == 2 and len(policy["style-src-elem"]) == 3
    hashed = policy.pop("script-src") + policy.pop("style-src-elem")
    assert all(source.startswith("'sha256-") for source in hashed)
    assert policy == {
        "default-src": ["'none'"], "script-src-attr": ["'none'"], "base-uri": ["'none'"],
        "style-src-attr": ["'unsafe-inline'"], "img-src": ["data:"], "form-action": ["'none'"],
    }  # fmt: skip
    assert html.count("<script>") == 2
    assert not re.search(r"\son\w+\s*=", re.sub(r"<script\b.*?</script>", "", html, flags=re.S))


def test_a_run_that_was_resumed_is_marked() -> None:
    grid = simulate()
    for times, record in enumerate(grid.records[:3]):
        record["resumed"] = times
    page = text_of(grid.html())
    assert re.findall(r"resumed \d+×", page) == ["resumed 1×", "resumed 2×"]


def test_hostile_names_are_text_everywhere() -> None:
    html = hostile().html([f"{bad}: truncated" for bad in HOSTILE])
    drawn = json.dumps(figures_of(html), ensure_ascii=False)
    for bad in HOSTILE:
        if "<" in bad:
            assert bad not in html and bad not in drawn
    # What cannot be seen, or turns the text around it, is written out.
    unseen = re.compile(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
    )
    outside = re.sub(r"<script\b.*?</script>", "", html, flags=re.S)
    assert not unseen.search(outside) and not unseen.search(drawn)
    assert (
        "a\\u202egnp.exe\\u2066\\u200b" in outside and "\\u0007\\u001b[31m\\u0000\\u0085" in outside
    )
    assert "&lt;/script&gt;&lt;img" in html and "{{7*7}}" in html and "49" not in html[:800]
    assert html.count("<script") - html.count("\\u003cscript") >= 2
    assert len(re.findall(r"</script>", html)) == 2 + len(figures_of(html))
    assert len(figures_of(html)) == 2 * len(HOSTILE) - 1  # on the last one there is no pair
    # plotly reads tags in labels, so there they arrive as entities
    labels = json.dumps([f["layout"]["annotations"] for f in figures_of(html)])
    assert "&lt;" in labels and "<img" not in labels


def store_grid(results: Path, grid: Grid) -> None:
    from bench import store

    store.prepare(results)
    for record in grid.records:
        whole = {k: v for k, v in record.items() if k != "schema"}
        mine = [e for e in grid.epochs if e["run_id"] == record["run_id"]]
        store.write_run(results, whole | {"started_utc": "2026-01-02T03:04:05Z"}, mine)
    store.save_grid(results, grid.spec)


def test_end_to_end_same_input_same_bytes(tmp_path: Path) -> None:
    store_grid(tmp_path, simulate())
    path = report.build(tmp_path, "quick")
    assert path == tmp_path / "reports" / "quick.html"
    first = path.read_bytes()
    assert report.build(tmp_path, "quick").read_bytes() == first
    assert [p.name for p in path.parent.iterdir()] == ["quick.html"]  # no temporary file stays
    assert text_of(first.decode()) == text_of(simulate().html())
    (tmp_path / "runs" / "000000000000.parquet").write_bytes(b"PAR1")
    text = text_of(report.build(tmp_path, "quick").read_text())
    assert "000000000000.parquet" in text and "34 of 36 recorded" in text


def test_all_grids_and_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        report.build_all(tmp_path / "nowhere")
    assert "No grid" in report.build_all(tmp_path).read_text()
    for name in ("index", "b"):
        store_grid(tmp_path, Grid(name))
    (tmp_path / "grids" / "broken.json").write_text("{")
    index = report.build_all(tmp_path)
    text = index.read_text()
    assert index.name == "index.html" and 'href="_index.html"' in text and 'href="b.html"' in text
    assert "unreadable" in text
    for name in ("nope", "../b", "a/b", "", "x" * 300):
        with pytest.raises(BadInput):
            report.build(tmp_path, name)
    (tmp_path / "reports" / "b.html").unlink()
    (tmp_path / "reports" / "b.html").mkdir()
    with pytest.raises(BadInput, match=r"b\.html"):
        report.build(tmp_path, "b")


def test_command_line(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from bench.report.__main__ import app

    store_grid(tmp_path, Grid("b"))
    done = CliRunner().invoke(app, ["b", "--results", str(tmp_path)])
    assert (done.exit_code, done.stdout.strip()) == (0, str(tmp_path / "reports" / "b.html"))
    done = CliRunner().invoke(app, ["--results", str(tmp_path)])
    assert done.stdout.strip() == str(tmp_path / "reports" / "index.html")
    seen = "import sys, bench.report.__main__; print({'torch', 'ray', 'pandas'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", seen], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
