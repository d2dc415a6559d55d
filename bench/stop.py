"""Ctrl-C and SIGTERM while trials run: the first asks them to stop, a second ends all at once."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator

_ONE = 0.5
"""Seconds within which two signals are one: what starts us may pass on a Ctrl-C that we heard."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Says, when called, whether somebody asked to stop."""

    asked = False

    def __call__(self) -> bool:
        return self.asked

    def ask(self, *_: object) -> None:
        """Asks; may stand as a signal's handler."""
        self.asked = True


@contextlib.contextmanager
def on_signals(tell: Callable[[], None]) -> Iterator[Stop]:
    """In this context a first signal sets what is yielded; a second raises KeyboardInterrupt.

    `tell` is called on the first, from the signal handler. On another thread than the main one
    there are no signals: then nothing is ever asked.
    """
    stop = Stop()

    first = math.inf

    def heard(*_: object) -> None:
        nonlocal first
        if stop.asked:
            if time.monotonic() - first < _ONE:
                return
            raise KeyboardInterrupt
        first = time.monotonic()
        stop.ask()
        tell()

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, heard) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """In this context SIGTERM is a KeyboardInterrupt, for what runs before and after trials."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """In this context others may set handlers of their own; at its end ours are back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
