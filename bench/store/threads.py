"""Requests beside each other, on threads that a Ctrl-C leaves behind.

A request to a bucket that is mute stands still for up to 40 seconds inside a library, and nothing
ends it. The threads are daemons, so Python does not wait for them, but pyarrow would: its own end
waits for its requests. So after a Ctrl-C the process ends without that, as a kill would end it.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable
from threading import Thread
from typing import TypeVar

_T = TypeVar("_T")
_MOST = 32
_INTERRUPTED = 130
_at_work: set[object] = set()


def start(work: Callable[[], None], name: str) -> Thread:
    """Returns a thread that does this work, and does not hold up the end of the process."""

    def run() -> None:
        try:
            work()
        finally:
            _at_work.discard(run)

    thread = Thread(target=run, daemon=True, name=name)
    _at_work.add(run)  # a thread whose `join` a Ctrl-C interrupted is not alive for Python 3.11
    thread.start()
    return thread


def each(work: Callable[[_T], object], items: Iterable[_T]) -> None:
    """Does the work for each item, 32 at a time; raises the first error when all have ended.

    After an error nothing more is begun. A KeyboardInterrupt leaves at once.
    """
    waiting = deque(items)
    errors: list[BaseException] = []

    def run() -> None:
        while waiting and not errors:
            try:
                item = waiting.popleft()
            except IndexError:
                return
            try:
                work(item)
            except BaseException as error:
                errors.append(error)

    threads = [start(run, "requests") for _ in range(min(_MOST, len(waiting)))]
    try:
        for thread in threads:
            thread.join()
    except KeyboardInterrupt:
        waiting.clear()
        leave()
        raise
    if errors:
        raise errors[0]


def aside(work: Callable[[], _T]) -> _T:
    """Returns what the work returns. A KeyboardInterrupt leaves at once, as of `each`."""
    found: list[_T] = []
    each(lambda do: found.append(do()), [work])
    return found[0]


def leave() -> None:
    """After a Ctrl-C: lets the process end, with exit code 130, while requests stand still."""
    atexit.unregister(_end)
    atexit.register(_end)  # before pyarrow's own, since the last comes first


def _end() -> None:
    if _at_work:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_INTERRUPTED)
