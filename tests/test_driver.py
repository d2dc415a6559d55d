"""What the driver does with messages while trials run."""

from __future__ import annotations

import threading

import pytest

from bench import driver
from bench.driver import _in_background
from bench.worker import Message


def test_messages_are_taken_in_order_and_all_by_the_end() -> None:
    taken: list[Message] = []
    said: list[Message] = [{"run_id": str(n)} for n in range(200)]
    with _in_background(taken.append) as deliver:
        for message in said:
            deliver(message)
    assert taken == said


def test_nobody_waits_for_the_disk_until_too_much_does() -> None:
    disk, delivered = threading.Event(), threading.Event()

    def take(message: Message) -> None:
        disk.wait(60)

    def deliver_all() -> None:
        with _in_background(take) as deliver:
            for _ in range(driver._WAITING):
                deliver({})
            delivered.set()
            deliver({})
            assert disk.is_set()

    thread = threading.Thread(target=deliver_all, daemon=True)
    thread.start()
    assert delivered.wait(10)
    thread.join(0.2)
    assert thread.is_alive()
    disk.set()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize("further", [0, 50])
def test_what_a_full_disk_raises_is_raised(further: int) -> None:
    taken: list[Message] = []

    def take(message: Message) -> None:
        taken.append(message)
        if message.get("last"):
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"), _in_background(take) as deliver:
        deliver({"run_id": "a"})
        deliver({"run_id": "b", "last": True})
        for _ in range(further):
            deliver({"run_id": "c"})
    assert [m["run_id"] for m in taken[:2]] == ["a", "b"]
    assert len(taken) <= 2 + further


def test_ctrl_c_loses_nothing_that_was_handed_over() -> None:
    taken: list[Message] = []
    with pytest.raises(KeyboardInterrupt), _in_background(taken.append) as deliver:
        for _ in range(5):
            deliver({})
        raise KeyboardInterrupt
    assert len(taken) == 5
