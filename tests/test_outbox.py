"""Messages from the thread that trains: in order, each once, none late and none lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from bench.backends import outbox
from bench.backends.outbox import Outbox
from bench.job import Message


@pytest.fixture(autouse=True)
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second that lasts: what leaves in these tests does so for a reason."""
    monkeypatch.setattr(outbox, "PERIOD", 3600.0)


def parcels(box: Outbox) -> Iterator[list[Message]]:
    ended = False
    while not ended:
        parcel, ended = box.take()
        yield parcel


def test_all_that_a_short_trial_says_is_one_parcel() -> None:
    box = Outbox()
    said: list[Message] = [{"start": True}, {"epoch": 1}, {"record": {}}]
    for message in said:
        box.put(message)
    box.end()
    assert list(parcels(box)) == [said]


def test_the_first_epoch_waits_for_nobody() -> None:
    box = Outbox()
    box.put({"start": True})
    assert box.take() == ([{"start": True}], False)
    box.put({"epoch": 1})
    assert box.take() == ([{"epoch": 1}], False), "a start does not delay it"


def test_further_epochs_wait_and_a_record_takes_them_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    box = Outbox()
    box.put({"epoch": 1})
    assert box.take() == ([{"epoch": 1}], False)
    got: list[tuple[list[Message], bool]] = []
    taker = threading.Thread(target=lambda: got.append(box.take()), daemon=True)
    taker.start()
    box.put({"epoch": 2})
    taker.join(0.3)
    assert taker.is_alive() and got == []
    box.put({"epoch": 3})
    box.put({"record": {}})
    taker.join(10)
    assert got == [([{"epoch": 2}, {"epoch": 3}, {"record": {}}], False)]
    box.end()
    assert box.take() == ([], True)


def test_epochs_are_not_kept_longer_than_a_period(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "PERIOD", 0.05)
    box = Outbox()
    for number in (1, 2):
        box.put({"epoch": number})
        assert box.take() == ([{"epoch": number}], False)


def test_nothing_is_lost_or_doubled_between_two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "PERIOD", 0.0)
    monkeypatch.setattr(outbox, "LINGER", 0.0)
    box = Outbox()
    said: list[Message] = [{"epoch": n} for n in range(5000)]

    def say() -> None:
        for message in said:
            box.put(message)
        box.end()

    threading.Thread(target=say, daemon=True).start()
    assert [message for parcel in parcels(box) for message in parcel] == said
