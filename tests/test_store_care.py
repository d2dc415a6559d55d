"""check, merge, orphans and prune; the docs that are made from the schema."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench import store
from bench.errors import BadInput
from bench.plugins import find
from bench.store.care import check, merge, orphans, prune
from bench.store.document import as_markdown
from tests.records import epochs, record


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    one, two = tmp_path / "one", tmp_path / "two"
    store.prepare(one)
    store.prepare(two)
    return one, two


def test_merge_keeps_a_final_record_over_lost_else_the_first(folders: tuple[Path, Path]) -> None:
    ours, theirs = folders
    store.write_run(ours, record("aaaaaaaaaaaa", status="lost"))
    store.write_run(
        theirs, record("aaaaaaaaaaaa", status="ok", valid_nll=1.0), epochs("aaaaaaaaaaaa"), b"w"
    )
    store.write_run(ours, record("bbbbbbbbbbbb", valid_nll=2.0))
    store.write_run(theirs, record("bbbbbbbbbbbb", status="lost"))
    store.write_run(ours, record("cccccccccccc", valid_nll=3.0, host="here"))
    store.write_run(theirs, record("cccccccccccc", valid_nll=3.0, host="there"))
    store.write_run(ours, record("dddddddddddd", valid_nll=4.0))
    store.write_run(theirs, record("dddddddddddd", valid_nll=4.5))
    store.write_run(theirs, record("eeeeeeeeeeee", valid_nll=5.0))
    count, remarks = merge(ours, [theirs])
    assert count == 2
    assert len(remarks) == 1 and "dddddddddddd" in remarks[0] and "valid_nll" in remarks[0]
    runs = store.load_runs(ours)[0].set_index("run_id")
    assert runs.valid_nll.to_dict() == {
        "aaaaaaaaaaaa": 1.0,
        "bbbbbbbbbbbb": 2.0,
        "cccccccccccc": 3.0,
        "dddddddddddd": 4.0,
        "eeeeeeeeeeee": 5.0,
    }
    assert (ours / "weights" / "aaaaaaaaaaaa.safetensors").read_bytes() == b"w"
    assert merge(ours, [theirs])[0] == 0, "merging twice brings nothing new"


def test_merge_names_broken_files_and_refuses_what_is_no_folder(
    folders: tuple[Path, Path],
) -> None:
    ours, theirs = folders
    (theirs / "runs" / "aaaaaaaaaaaa.parquet").write_bytes(b"PAR1")
    count, remarks = merge(ours, [theirs])
    assert count == 0 and "not a whole Parquet file" in remarks[0]
    with pytest.raises(BadInput, match="no results folder"):
        merge(ours, [theirs / "nowhere"])
    with pytest.raises(BadInput, match="into itself"):
        merge(ours, [ours])


def test_nan_equals_nan_when_records_are_compared(folders: tuple[Path, Path]) -> None:
    ours, theirs = folders
    for folder in folders:
        store.write_run(folder, record("aaaaaaaaaaaa", valid_nll=float("nan")))
    assert merge(ours, [theirs]) == (0, [])


def test_orphans_are_records_of_a_plugin_that_changed_or_went(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    results, _ = folders
    registry = find()
    lstm, ar = registry["cell"]["lstm"].hash, registry["regularizer"]["ar"].hash
    tar, none = registry["regularizer"]["tar"].hash, registry["regularizer"]["none"].hash
    same = {"cell_source": lstm, "regularizer_source": none}
    store.write_run(results, record("aaaaaaaaaaaa", **same))
    store.write_run(results, record("bbbbbbbbbbbb", **same | {"cell_source": "0" * 16}))
    gone = {"regularizer": "old", "regularizer_hparams": '{"old": {}}'}
    store.write_run(results, record("cccccccccccc", **same | gone))
    both = {
        "regularizer": "ar:alpha=2+tar:beta=1",
        "regularizer_hparams": '{"ar": {}, "tar": {}}',
        "regularizer_source": f"{ar}+{tar}",
    }
    store.write_run(results, record("dddddddddddd", **same | both))
    found = dict(orphans(results, registry))
    assert sorted(found) == ["bbbbbbbbbbbb", "cccccccccccc"]
    assert "has changed" in found["bbbbbbbbbbbb"] and "is gone" in found["cccccccccccc"]
    left = results / "runs" / ".x.123.tmp"
    left.write_bytes(b"left by a killed writer")
    assert prune(results, list(found)) == 4  # two records, their two epochs
    monkeypatch.setattr("bench.store.abandoned.ABANDONED_SECONDS", -1)
    assert prune(results, []) == 1 and not left.exists()
    assert sorted(store.load_runs(results)[0].run_id) == ["aaaaaaaaaaaa", "dddddddddddd"]


def test_prune_takes_the_checkpoints_that_nobody_goes_on_from(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    results, _ = folders
    wanted = [{"run_id": name, "trial": {"cell": "lstm"}} for name in ("a" * 12, "b" * 12)]
    head = {"name": "tiny", "command": "", "skipped": [], "merged": 0}
    store.save_grid(results, head | {"wanted": wanted})
    store.write_run(results, record("b" * 12))
    store.write_run(results, record("c" * 12, status="lost"))
    paths = {}
    for letter in "abcd":
        folder = results / "checkpoints" / (12 * letter)
        folder.mkdir(parents=True)
        paths[letter] = folder / "000001-0123456789abcdef.safetensors"
        paths[letter].write_bytes(b"x")
        os.utime(paths[letter], (0, 0))  # before the records
    assert prune(results, []) == 0, "their trials may be under way"
    monkeypatch.setattr("bench.store.abandoned.ABANDONED_SECONDS", -1)
    (results / "grids" / "broken.json").write_text("{")
    assert prune(results, []) == 1 and not paths["b"].exists(), "a grid nobody can read wants any"
    (results / "grids" / "broken.json").unlink()
    assert prune(results, []) == 2
    assert [letter for letter, path in paths.items() if path.exists()] == ["a"]


def test_check_lists_every_problem_and_nothing_else(folders: tuple[Path, Path]) -> None:
    results, _ = folders
    store.write_run(results, record("aaaaaaaaaaaa"), epochs("aaaaaaaaaaaa"))
    assert check(results) == []
    (results / "runs" / "bbbbbbbbbbbb.parquet").write_bytes(b"")
    (results / "runs" / "aaaaaaaaaaaa.parquet").unlink()
    problems = check(results)
    assert len(problems) == 2
    assert "bbbbbbbbbbbb" in problems[0] and "has no record" in problems[1]


def test_docs_results_is_made_from_the_schema() -> None:
    page = Path(__file__).parent.parent / "docs" / "results.md"
    assert page.read_text() == as_markdown(), (
        "run: python -m bench.store document > docs/results.md"
    )
