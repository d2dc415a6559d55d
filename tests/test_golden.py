"""Numbers move only with the protocol's number."""

from __future__ import annotations

import json

import pytest

from bench.config import PROTOCOL
from tests.golden import CASES, FILE, measure, trials

HELP = (
    "numbers moved: bump bench.config.PROTOCOL, run `make golden`, show before/after in CHANGELOG"
)


@pytest.mark.parametrize("name", sorted(CASES))
def test_numbers_have_not_moved(name: str) -> None:
    golden = json.loads(FILE.read_text())
    assert golden["protocol"] == PROTOCOL, "the protocol moved: run `make golden`"
    found = measure(dict(trials())[name])
    # Another processor may sum in another order; a change of ours is many orders larger.
    assert found == pytest.approx(golden["trials"][name], rel=1e-9), HELP
