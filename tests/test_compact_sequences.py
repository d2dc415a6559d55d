"""Any order of writing, compacting, merging and pruning, with kills: the last written is read."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench import store
from bench.store.care import check, merge, prune
from bench.store.compact import compact
from bench.store.files import own_files
from bench.store.parts import as_table, write_table
from tests.attempts import IDS, Killed, at_step, die, seen, whole, write
from tests.records import epochs

RUN = st.integers(0, len(IDS) - 1)
ACTS = st.one_of(
    st.tuples(st.just("write"), RUN),
    st.tuples(st.just("lost"), RUN),
    st.tuples(st.just("half"), RUN),
    st.tuples(st.just("compact"), st.just(0)),
    st.tuples(st.just("kill"), st.integers(1, 14)),
    st.tuples(st.just("overtake"), st.integers(1, 14)),
    st.tuples(st.just("merge"), RUN),
    st.tuples(st.just("copy"), RUN),
    st.tuples(st.just("prune"), RUN),
)


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(acts=st.lists(ACTS, min_size=3, max_size=9))
def test_any_sequence_leaves_what_was_written_last(
    monkeypatch: pytest.MonkeyPatch, acts: list[tuple[str, int]]
) -> None:
    with TemporaryDirectory() as folder:
        results = Path(folder) / "r"
        store.prepare(results)
        expected: dict[str, int] = {}
        final: set[str] = set()
        for attempt, (act, number) in enumerate(acts, start=1):
            run_id = IDS[number % len(IDS)]
            if act == "write":
                write(results, run_id, attempt)
            elif act == "lost":
                write(results, run_id, attempt, "lost")
            elif act == "half" and own_files(results, "runs").count(run_id) == 0:
                # A writer that was killed before its record: of no run that readers see.
                write_table(results, "epochs", run_id, as_table("epochs", epochs(run_id, 3)))
            elif act == "compact":
                compact(results)
            elif act == "kill":
                with contextlib.suppress(Killed), at_step(monkeypatch, number, die):
                    compact(results)
            elif act == "overtake":
                ran: list[bool] = []

                def rerun(i: str = run_id, n: int = attempt, ran: list[bool] = ran) -> None:
                    write(results, i, n)
                    ran.append(True)

                with at_step(monkeypatch, number, rerun):
                    compact(results)
                act = "write" if ran else act
            elif act == "merge":
                other = Path(folder) / f"other {attempt}"
                store.prepare(other)
                write(other, run_id, attempt)
                if attempt % 2:
                    compact(other)
                merge(results, [other])
                act = "write" if run_id not in final else act
            elif act == "copy":  # of a folder that is compacted, as `cp -r` does
                other = Path(folder) / f"copy {attempt}"
                store.prepare(other)
                write(other, run_id, attempt)
                compact(other)
                shutil.copytree(other, results, dirs_exist_ok=True)
                own = run_id in own_files(results, "runs")
                act = "copy" if own and run_id in final else "write"
            elif act == "prune":
                prune(results, [run_id])
                expected.pop(run_id, None)
                final.discard(run_id)
            if act == "write" or (act == "lost" and run_id not in final):
                expected[run_id] = attempt
                final |= {run_id} if act == "write" else set()
            assert seen(results) == whole(expected), (act, run_id)
        compact(results)
        assert seen(results) == whole(expected)
        assert own_files(results, "runs") == []
        halves = ("has no record", "left by a writer that was killed", "left by a compact")
        assert not [line for line in check(results) if not any(half in line for half in halves)]
