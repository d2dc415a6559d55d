"""What a mirror knows of its files: lines that are none, and a file that two drivers share."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.storage import Found
from bench.store.index import Entry, Index

ENTRY = Entry(Found(12, 3.0), (12, 4), "ab")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        "[" * 100_000,
        "[]",
        "3",
        '["runs/x", [12, "x"], [12, 4], "ab"]',
        '["runs/x", [12], [12, 4], "ab"]',
        '["runs/x", 12, [12, 4], "ab"]',
        '["runs/x", null, null, "ab"]',
        '["runs/x", null, [12, "4"], "ab"]',
        '["runs/x", null, [12, 4], true]',
        '[["runs/x"], null, [12, 4], "ab"]',
        '["runs/x", null, [12, 4',
    ],
)
def test_a_line_that_is_none_counts_as_absent(tmp_path: Path, line: str) -> None:
    index = Index(tmp_path / "index.jsonl")
    index.note("runs/before", ENTRY)
    with (tmp_path / "index.jsonl").open("a") as file:
        file.write(line + "\n")
    index.note("runs/after", ENTRY._replace(remote=None))
    again = Index(tmp_path / "index.jsonl")
    again.load()
    assert again == {"runs/before": ENTRY, "runs/after": ENTRY._replace(remote=None)}


def test_what_another_driver_notes_meanwhile_is_kept(tmp_path: Path) -> None:
    first, second = (Index(tmp_path / "index.jsonl") for _ in range(2))
    first.load()
    second.note("runs/theirs", ENTRY)
    first.note("runs/gone", ENTRY)
    first.save(["runs/theirs", "runs/ours"])
    second.load()
    assert second == {"runs/theirs": ENTRY}
