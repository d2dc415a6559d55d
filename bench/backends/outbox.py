"""Messages on their way from the thread that trains to the driver, several in one parcel."""

from __future__ import annotations

import threading
import time

from bench.job import Message

PERIOD = 1.0
"""Seconds between parcels, where nothing is urgent."""
LINGER = 0.05
"""Seconds that a parcel waits for company: what a short trial has to say goes in one."""


class Outbox:
    """Takes messages from one thread and gives them to another, in order, each once.

    Training never waits for the driver. What comes before and with the first epoch leaves after
    LINGER, and so does a record: only a crash within that time can cost it. Further epochs leave
    once in a PERIOD, or with a record.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._messages: list[Message] = []
        self._urgent = self._ended = False
        self._due = 0.0

    def put(self, message: Message) -> None:
        with self._changed:
            self._messages.append(message)
            self._urgent = self._urgent or "record" in message
            self._changed.notify_all()

    def end(self) -> None:
        """Says that no message will follow."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def take(self) -> tuple[list[Message], bool]:
        """Waits for a parcel and returns it, and whether it is the last one."""
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._ended)
            wait = max(0.0, self._due - time.monotonic())
            self._changed.wait_for(lambda: self._urgent or self._ended, wait)
            self._changed.wait_for(lambda: self._ended, LINGER)
            parcel, self._messages, self._urgent = self._messages, [], False
            if any("epoch" in message for message in parcel):
                self._due = time.monotonic() + PERIOD
            return parcel, self._ended
