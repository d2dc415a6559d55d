"""The report in a real browser from file://: figures, sorting, and no hostile script."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.report_grids import HOSTILE, Grid, figures_of, hostile, simulate
from tests.test_report_environments import grid_of
from tests.test_report_pages import store_grid

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--virtual-time-budget=8000",
    "--enable-logging=stderr",
)  # fmt: skip

pytestmark = pytest.mark.browser


@pytest.fixture(autouse=True)
def _chromium() -> None:
    if not CHROMIUM.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{CHROMIUM} is absent; on CI the report must be seen in a browser")
        pytest.skip(f"{CHROMIUM} is absent: apt-get install chromium")


def browse(folder: Path, page: Path, console: tuple[str, ...] = ()) -> str:
    """Opens the page in a fresh profile without network and returns what became of it.

    `console`: patterns of all that the browser's console says, and nothing else.
    """
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    # Every host name leads nowhere, so a page that loads anything would show it.
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", page.as_uri()]
    environment = os.environ | {"HOME": str(folder)}
    done = subprocess.run(command, capture_output=True, timeout=180, env=environment, check=True)
    said = [line for line in done.stderr.decode().splitlines() if "CONSOLE" in line]
    assert not [line for line in said if not any(re.search(word, line) for word in console)], said
    for word in console:
        assert any(re.search(word, line) for line in said), (word, said)
    return done.stdout.decode()


def dom_of(folder: Path, html: str, console: tuple[str, ...] = ()) -> str:
    page = folder / "page.html"
    page.write_text(html, encoding="utf-8")
    return browse(folder, page, console)


def widened(html: str, script: str) -> str:
    """The page with one more script: its own policy would stop it, so it is widened by that one."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    html = html.replace("script-src ", f"script-src &#39;sha256-{digest}&#39; ", 1)
    return html.replace("</body>", f"<script>{script}</script></body>")


def test_figures_are_drawn_and_nothing_breaks_the_policy(tmp_path: Path) -> None:
    dom = dom_of(tmp_path, simulate().html())
    head = re.search(r"<html[^>]*>", dom)
    assert head is not None
    assert 'data-ready="1"' in head[0] and 'data-csp="0"' in head[0], head[0]
    assert dom.count('class="main-svg"') >= 4  # plotly draws each figure in layers
    assert dom.count('class="trace scatter') > 12
    page = re.sub(r"<script\b.*?</script>", "", dom, flags=re.S)
    assert "Download plot" in page and "Share chart" not in page  # plotly's upload to its maker
    assert re.search(r'<table class="sortable" data-ready="1">', dom)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    html = hostile().html([f"{bad}: broken" for bad in HOSTILE])
    dom = dom_of(tmp_path, html)
    assert "<title>quick · grid report</title>" in dom
    assert 'data-csp="0"' in dom[:400] and 'data-ready="1"' in dom[:400]
    plain = re.sub(r"<script\b.*?</script>", "", dom, flags=re.S)
    assert not re.search(r"<img|<b>\s*<|<[^>\"]*\sonerror", re.sub(r'"[^"]*"', '""', plain))
    labels = " ".join(re.findall(r"<text\b[^>]*>(.*?)</text>", plain, flags=re.S))
    for shown in (
        HOSTILE[0],
        HOSTILE[5][:19],
        "<b>bold</b>&lt;i&gt;",
        "a\\u202egnp.exe\\u2066\\u200b",
    ):
        escaped = shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        assert escaped in labels, shown  # as it is
    assert plain.count('class="main-svg"') >= 2 * len(figures_of(html))


def test_a_click_sorts(tmp_path: Path) -> None:
    click = "document.querySelectorAll('.sortable th button')[7].click()"
    dom = dom_of(tmp_path, widened(simulate().html(), click))
    table = dom[dom.index('<table class="sortable"') :]
    assert 'aria-sort="ascending"' in table
    rows = re.findall(r"<tr>(.*?)</tr>", table[: table.index("</table>")], flags=re.S)[1:]
    keys = [re.findall(r'data-key="([^"]*)"', row)[0] for row in rows]
    numbers = [float(k) for k in keys if k]
    assert len(keys) == 36 and len(numbers) == 33
    assert numbers == sorted(numbers) and keys[-3:] == ["", "", ""]  # missing ones stay last


def test_a_page_of_several_environments_is_drawn(tmp_path: Path) -> None:
    dom = dom_of(tmp_path, grid_of(none="AAAAA", ar="AAAHH", tar="AAAAA").html())
    assert 'data-ready="1"' in dom[:400] and 'data-csp="0"' in dom[:400]
    # Two entries as a band and a line, one as five runs; and two differences, twice.
    assert dom.count('class="trace scatter') == 2 * 2 + 5 + 2 * 2


def test_an_image_of_a_figure_can_be_saved(tmp_path: Path) -> None:
    save = (
        "Plotly.toImage(document.querySelector('.plot'), {format: 'svg'}).then((found) => "
        "{ document.documentElement.dataset.saved = found.slice(0, 18); })"
    )
    dom = dom_of(tmp_path, widened(simulate().html(), save))
    assert 'data-saved="data:image/svg+xml"' in dom[:600] and 'data-csp="0"' in dom[:600]


RAW = (
    "<img src=x onerror=document.title='owned'>",
    "<img src='data:,' onerror=document.title='owned'>",
    "<script>document.title='owned'</script>",
    "<style>h1{display:none}</style>",
    "<base href='https://example.com/'>",
    "<iframe src='https://example.com/'></iframe>",
    "<a id=raw href=\"javascript:document.title='owned'\">x</a>",
)
STOPPED = (
    "Loading the image .* violates .* \"img-src ", "inline event handler .* 'script-src-attr ",
    "inline script .* 'script-src ", "inline style .* 'style-src-elem ", "base URI .* \"base-uri ",
    "Framing .* \"default-src ", "JavaScript URL .* 'script-src ",
)  # fmt: skip


def test_what_got_past_the_escaping_would_be_stopped_by_the_policy(tmp_path: Path) -> None:
    html = simulate().html().replace("<h2>Failures</h2>", f"<h2>Failures</h2>{''.join(RAW)}")
    dom = dom_of(tmp_path, widened(html, "raw.click()"), STOPPED)
    assert "<title>quick" in dom and 'data-ready="1"' in dom[:600]


def test_the_list_of_all_grids(tmp_path: Path) -> None:
    from bench import report

    grid = Grid("b")
    grid.spec["created_utc"] = HOSTILE[0]
    store_grid(tmp_path, grid)
    for i, bad in enumerate(HOSTILE):
        text = json.dumps({"name": bad, "wanted": bad, "command": bad, "created_utc": bad})
        (tmp_path / "grids" / f"broken-{i}.json").write_text(text)
    (tmp_path / "grids" / "<img src=x onerror=alert(1)>.json").write_text("{")
    dom = browse(tmp_path, report.build_all(tmp_path))
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;" in dom and "<img" not in dom
    assert dom.count("unreadable") == len(HOSTILE) + 1 and 'href="b.html"' in dom
