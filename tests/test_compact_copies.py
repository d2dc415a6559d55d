"""Compacted folders that are copied together, and two compacts at once: no record is lost."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from bench import store
from bench.errors import BadInput
from bench.store import compact as module
from bench.store.care import check, merge, prune
from bench.store.compact import compact
from bench.store.files import compacted_names, own_files, part_path
from bench.store.folded import answering
from tests.attempts import (
    IDS,
    PAIR,
    Killed,
    at_step,
    compacted,
    die,
    files,
    filled,
    seen,
    whole,
    write,
)
from tests.records import record

ALL = dict(zip(IDS, range(5), strict=True))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = filled(tmp_path / "r")
    compact(folder)
    return folder


def another(path: Path, attempts: dict[str, int], status: str = "ok") -> Path:
    store.prepare(path)
    for run_id, attempt in attempts.items():
        write(path, run_id, attempt, status)
    compact(path)
    return path


def copy(source: Path, results: Path) -> None:
    shutil.copytree(source, results, dirs_exist_ok=True)


def test_folders_that_are_copied_together_hold_the_runs_of_both(
    results: Path, tmp_path: Path
) -> None:
    other = another(tmp_path / "b", {"a" * 12: 2, "b" * 12: 3})
    copy(other, results)
    both = whole(ALL | {"a" * 12: 2, "b" * 12: 3})
    assert seen(results) == both and len(compacted_names(results)) == 2 and check(results) == []
    assert store.statuses(results, ["b" * 12]) == {"b" * 12: "ok"}
    assert compact(results) == (0, [])
    assert seen(results) == both and files(results) == PAIR
    copy(other, results)  # again, after the fold
    assert seen(results) == both
    compact(results)
    assert seen(results) == both and files(results) == PAIR


def test_of_a_run_in_both_the_one_started_last_is_read_with_its_own_epochs(
    results: Path, tmp_path: Path
) -> None:
    copy(another(tmp_path / "b", {IDS[1]: 7, IDS[4]: 1}), results)
    expected = whole(ALL | {IDS[1]: 7})
    assert seen(results) == expected
    some, _ = store.load_epochs(results, IDS[1:2], ["epoch", "step"])
    assert some.columns.tolist() == ["epoch", "step"] and some.step.tolist() == [7] * 3
    compact(results)
    assert seen(results) == expected


def test_lost_never_hides_a_final_record_wherever_it_comes_from(
    results: Path, tmp_path: Path
) -> None:
    copy(another(tmp_path / "b", {IDS[1]: 7}, "lost"), results)
    assert seen(results) == whole(ALL)
    part = tmp_path / "c"
    store.prepare(part)
    write(part, IDS[2], 9, "lost")
    copy(part, results)
    assert seen(results) == whole(ALL)
    compact(results)
    assert seen(results) == whole(ALL) and files(results) == PAIR


def test_a_file_wins_over_the_one_it_was_made_from_whatever_the_clocks_say(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = tmp_path / "older"
    shutil.copytree(results, older)
    store.write_run(results, record(IDS[2]) | {"seed": 8, "started_utc": "1999"})
    compact(results)
    copy(older, results)  # as after a kill: its successor is there, it is not gone yet
    assert len(compacted_names(results)) == 2
    assert seen(results) == whole(ALL | {IDS[2]: 8})
    compact(results)
    assert seen(results) == whole(ALL | {IDS[2]: 8})


def test_a_copy_over_a_compact_that_was_killed_mixes_no_halves(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(results, IDS[1], 6)
    other = another(tmp_path / "b", {IDS[1]: 7})
    for number in range(1, 12):
        folder = tmp_path / f"kill {number}"
        shutil.copytree(results, folder)
        with contextlib.suppress(Killed), at_step(monkeypatch, number, die):
            compact(folder)
        copy(other, folder)
        # The run's own file, as long as it is there; else the newest.
        own = IDS[1] in own_files(folder, "runs")
        expected = whole(ALL | {IDS[1]: 6 if own else 7})
        assert seen(folder) == expected, number
        compact(folder)
        assert seen(folder) == expected and len(compacted_names(folder)) == 1


def test_two_compacts_that_do_not_see_each_others_lock_lose_nothing(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "alone", lambda _: contextlib.nullcontext())
    write(results, IDS[1], 6)
    write(results, "a" * 12, 3)
    after = whole(ALL | {IDS[1]: 9, "a" * 12: 3, "b" * 12: 2})
    steps = 0
    for number in range(1, 30):
        folder = tmp_path / f"two {number}"
        shutil.copytree(results, folder)
        done: list[bool] = []

        def other(folder: Path = folder, done: list[bool] = done) -> None:
            compact(folder)
            write(folder, "b" * 12, 2)
            write(folder, IDS[1], 9)
            compact(folder)
            assert seen(folder) == after
            done.append(True)

        with contextlib.suppress(BadInput), at_step(monkeypatch, number, other):
            compact(folder)
        if not done:
            break
        steps += 1
        assert seen(folder) == after, number
        compact(folder)
        assert seen(folder) == after and len(compacted_names(folder)) == 1, number
    assert steps > 5


def test_nothing_is_removed_that_was_not_seen_in_the_successor(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of ours, or of the file system: a run is not taken up."""
    before = compacted(results)

    def forgets(folder: Path, names: list[str]) -> tuple[dict[str, list[str]], list[str]]:
        found, problems = answering(folder, names)
        return {name: [r for r in ids if r != IDS[3]] for name, ids in found.items()}, problems

    write(results, IDS[0], 5)
    with monkeypatch.context() as patch:
        patch.setattr(module, "answering", forgets)
        folded, problems = compact(results)
    assert folded == 1 and len(problems) == 1
    assert str(before) in problems[0] and "not all of it was seen" in problems[0]
    assert before.exists() and seen(results) == whole(ALL | {IDS[0]: 5})


def test_runs_whose_epochs_were_not_copied_stay_as_they_are(results: Path, tmp_path: Path) -> None:
    other = another(tmp_path / "b", {"a" * 12: 2})
    epochs = compacted(other, "epochs")
    copy(other, results)
    (results / "epochs" / epochs.name).unlink()
    write(results, IDS[0], 5)
    _, problems = store.load_epochs(results)
    assert len(problems) == 1 and epochs.name in problems[0]
    folded, problems = compact(results)
    assert folded == 1 and len(problems) == 1 and epochs.name in problems[0]
    shutil.copy(epochs, results / "epochs")
    assert seen(results) == whole(ALL | {IDS[0]: 5, "a" * 12: 2})


def test_merge_and_prune_take_every_compacted_file(results: Path, tmp_path: Path) -> None:
    copy(another(tmp_path / "b", {IDS[1]: 7, "a" * 12: 2}), results)
    target = tmp_path / "t"
    assert merge(target, [results]) == (6, [])
    assert seen(target) == whole(ALL | {IDS[1]: 7, "a" * 12: 2})
    prune(results, [IDS[1], "a" * 12])
    rest = {run_id: n for run_id, n in ALL.items() if run_id != IDS[1]}
    assert seen(results) == whole(rest) and files(results) == PAIR


def test_a_listing_that_misses_a_file_is_made_again(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is listed while a file takes another's place may show neither."""
    from bench.store import files as files_of
    from bench.store import folded

    torn: list[list[str]] = [[]]
    original = files_of.compacted_names
    monkeypatch.setattr(folded, "compacted_names", lambda *a: torn.pop() if torn else original(*a))
    assert list(store.statuses(results, IDS)) == IDS and not torn


def test_the_recipes_of_the_docs_read_one_row_a_run(results: Path, tmp_path: Path) -> None:
    write(results, IDS[3], 7)
    copy(another(tmp_path / "b", {IDS[1]: 9, "a" * 12: 2}), results)
    folder = str(results)
    page = (Path(__file__).parent.parent / "docs" / "results.md").read_text()
    code = page.split("```python\n")[1].split("```")[0].replace("results/", f"{folder}/")
    names: dict[str, pd.DataFrame] = {}
    exec(code, {"pandas": pd}, names)
    expected = store.load_runs(results)[0]
    assert names["runs"].sort_values("run_id").seed.tolist() == expected.seed.tolist()
    query = page.split("```sql\n")[1].split("```")[0].replace("results/", f"{folder}/")
    rows = duckdb.sql(query)
    assert rows is not None
    assert rows.df().sort_values("run_id").seed.tolist() == expected.seed.tolist()
    assert len(pd.read_parquet(results / "runs")) > len(expected)


def test_prune_and_check_know_epochs_whose_runs_were_never_published(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = part_path(results, "epochs", "compacted-0123456789abcdef")
    shutil.copy(compacted(results, "epochs"), path)
    (line,) = check(results)
    assert str(path) in line and "without their runs" in line
    assert prune(results, []) == 0 and path.exists(), "it may be a copy that is under way"
    monkeypatch.setattr("bench.store.abandoned.ABANDONED_SECONDS", -1)
    assert prune(results, []) == 1 and not path.exists()
    assert seen(results) == whole(ALL) and check(results) == []
