"""What prune deletes beside orphans, and what it must not: other people's files, links, reruns."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench import report, store
from bench.errors import BadInput
from bench.store.care import merge, prune
from bench.store.compact import compact
from tests.records import epochs, record

ID = "a" * 12
NAME = "000001-0123456789abcdef.safetensors"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recorded trial that no grid wants, in which all files are old."""
    monkeypatch.setattr("bench.store.abandoned.ABANDONED_SECONDS", -1)
    store.prepare(tmp_path / "r")
    store.write_run(tmp_path / "r", record(ID), epochs(ID))
    return tmp_path / "r"


def checkpoint(results: Path, run_id: str = ID, name: str = NAME, seconds: float = 0) -> Path:
    """Makes a file so many seconds younger than the trial's record."""
    path = results / "checkpoints" / run_id / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    of_record = max(p.stat().st_mtime for p in (results / "runs").iterdir())
    os.utime(path, (of_record + seconds, of_record + seconds))
    return path


def test_only_files_with_our_names_go(results: Path) -> None:
    ours = [checkpoint(results, seconds=-1)]
    ours.append(checkpoint(results, name=f".{NAME}.0123.tmp", seconds=-1))
    theirs = [
        checkpoint(results, name=name, seconds=-1)
        for name in ("thesis.txt", "1-0123456789abcdef.safetensors", f"{NAME}.bak", ".bashrc")
    ]
    theirs += [checkpoint(results, name, NAME) for name in ("notes", "A" * 12, "b" * 13, ".ssh")]
    assert prune(results, []) == len(ours)
    assert not any(path.exists() for path in ours) and all(path.exists() for path in theirs)


def test_no_link_is_followed(results: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    theirs = home / ID / NAME
    theirs.parent.mkdir(parents=True)
    theirs.write_text("mine")
    (home / ".left.tmp").write_text("mine")
    (results / "checkpoints").mkdir()
    (results / "checkpoints" / ID).symlink_to(theirs.parent)
    assert prune(results, []) == 0
    for name in ("checkpoints", "weights", "reports"):
        path = results / name
        if path.is_dir():
            (path / ID).unlink()
            path.rmdir()
        path.symlink_to(home)
        with pytest.raises(BadInput, match=f"{name}: is a link"):
            prune(results, [])
        path.unlink()
    assert {p.name for p in home.rglob("*")} == {ID, NAME, ".left.tmp"}


@pytest.mark.parametrize("compacted", [False, True])
def test_a_checkpoint_of_an_interrupted_rerun_stays(results: Path, compacted: bool) -> None:
    if compacted:
        compact(results)
    of_the_rerun = checkpoint(results, name="000002-0123456789abcdef.safetensors", seconds=1)
    before = checkpoint(results, seconds=-1)
    assert prune(results, []) == 1
    assert of_the_rerun.exists() and not before.exists()
    assert store.load_runs(results)[0].run_id.tolist() == [ID]


@pytest.mark.parametrize("name", ["runs", "epochs", "grids", "weights", "checkpoints", "claims"])
def test_nothing_is_written_through_a_subfolder_that_is_a_link(
    results: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    if (results / name).exists():
        (results / name).rename(tmp_path / "moved")
    (results / name).symlink_to(tmp_path / "elsewhere")
    other = tmp_path / "other"
    store.prepare(other)
    for act in (
        lambda: store.prepare(results),
        lambda: compact(results),
        lambda: prune(results, []),
        lambda: merge(results, [other]),
    ):
        with pytest.raises(BadInput, match=f"{name}: is a link"):
            act()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_no_report_is_written_through_a_link(results: Path, tmp_path: Path) -> None:
    trial = {"corpus": "c", "cell": "lstm", "regularizer": "none", "nhid": 3, "rep": 0}
    head = {"name": "g", "command": "", "skipped": [], "merged": 0}
    store.save_grid(results, head | {"wanted": [{"run_id": ID, "trial": trial}]})
    (tmp_path / "elsewhere").mkdir()
    (results / "reports").symlink_to(tmp_path / "elsewhere")
    for act in (report.build, report.export):
        with pytest.raises(BadInput, match="reports: is a link"):
            act(results, "g")
    with pytest.raises(BadInput, match="reports: is a link"):
        report.build_all(results)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_results_folder_may_be_a_link_itself(results: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(results)
    store.prepare(link)
    checkpoint(link, seconds=-1)
    assert compact(link) == (1, []) and prune(link, []) == 1
