"""Fixtures of the whole suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests share one cache of tokenised corpora, apart from the user's."""
    os.environ["BENCH_CACHE"] = str(tmp_path_factory.getbasetemp().parent / "bench-cache")


@pytest.fixture
def real_data() -> Path:
    """The folder of PTB and WikiText-2; CI must have it, elsewhere the test says it is absent."""
    folder = os.environ.get("BENCH_DATA")
    if folder and (Path(folder) / "ptb").is_dir():
        return Path(folder)
    if os.environ.get("CI"):
        pytest.fail("BENCH_DATA holds no corpora, and CI must not skip the tests that need them")
    pytest.skip("needs the real corpora: set BENCH_DATA to a folder that holds ptb/")
