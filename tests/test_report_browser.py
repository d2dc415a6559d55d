"""The report in a real browser from file://: figures, sorting, and no hostile script."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.report_grids import HOSTILE, Grid, hostile, simulate

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--virtual-time-budget=8000",
)  # fmt: skip

pytestmark = pytest.mark.browser


@pytest.fixture(autouse=True)
def _chromium() -> None:
    if not CHROMIUM.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{CHROMIUM} is absent; on CI the report must be seen in a browser")
        pytest.skip(f"{CHROMIUM} is absent: apt-get install chromium")


def browse(folder: Path, page: Path, *flags: str) -> str:
    """Opens the page in a fresh profile without network and returns what is on stdout."""
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags]
    # Every host name leads nowhere, so a page that loads anything would show it.
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", page.as_uri()]
    environment = os.environ | {"HOME": str(folder)}
    done = subprocess.run(command, capture_output=True, timeout=60, env=environment, check=True)
    return done.stdout.decode()


def dom_of(folder: Path, grid: Grid) -> str:
    page = folder / "page.html"
    page.write_text(grid.html(), encoding="utf-8")
    return browse(folder, page, "--dump-dom")


def test_figures_are_drawn_and_nothing_breaks_the_policy(tmp_path: Path) -> None:
    dom = dom_of(tmp_path, simulate())
    head = re.search(r"<html[^>]*>", dom)
    assert head is not None
    assert 'data-ready="1"' in head[0] and 'data-csp="0"' in head[0], head[0]
    assert dom.count('class="main-svg"') >= 4  # plotly draws each figure in layers
    assert dom.count('class="trace scatter') > 12
    page = re.sub(r"<script\b.*?</script>", "", dom, flags=re.S)
    assert "Download plot" in page and "Share chart" not in page  # plotly's upload to its maker
    assert re.search(r'<table class="sortable" data-ready="1">', dom)


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    dom = dom_of(tmp_path, hostile())
    assert "<title>quick · grid report</title>" in dom
    assert 'data-csp="0"' in dom[:400] and 'data-ready="1"' in dom[:400]
    plain = re.sub(r"<script\b.*?</script>", "", dom, flags=re.S)
    assert not re.search(r"<img|<b>\s*<|<[^>\"]*\sonerror", re.sub(r'"[^"]*"', '""', plain))
    labels = " ".join(re.findall(r"<text\b[^>]*>(.*?)</text>", plain, flags=re.S))
    assert HOSTILE[0].replace("<", "&lt;").replace(">", "&gt;") in labels  # shown as it is


def test_a_click_sorts(tmp_path: Path) -> None:
    # The page's own policy would stop a script of ours, so it is widened by exactly that one.
    click = "document.querySelectorAll('.sortable th button')[7].click()"
    digest = base64.b64encode(hashlib.sha256(click.encode()).digest()).decode()
    html = simulate().html().replace("script-src ", f"script-src &#39;sha256-{digest}&#39; ", 1)
    page = tmp_path / "page.html"
    page.write_text(html.replace("</body>", f"<script>{click}</script></body>"), encoding="utf-8")
    dom = browse(tmp_path, page, "--dump-dom")
    table = dom[dom.index('<table class="sortable"') :]
    assert 'aria-sort="ascending"' in table
    rows = re.findall(r"<tr>(.*?)</tr>", table[: table.index("</table>")], flags=re.S)[1:]
    keys = [re.findall(r'data-key="([^"]*)"', row)[0] for row in rows]
    numbers = [float(k) for k in keys if k]
    assert len(keys) == 36 and len(numbers) == 33
    assert numbers == sorted(numbers) and keys[-3:] == ["", "", ""]  # missing ones stay last
