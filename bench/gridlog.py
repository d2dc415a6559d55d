"""grids/<grid>.log: what the harness says while a grid runs, tracebacks among it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from bench.errors import BadInput


class _LogFile(logging.FileHandler):
    """A log file that a full disk silences: the records hold all that it does."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Sends what the harness logs to this file, at its end; BadInput if it cannot be written."""
    if path.is_symlink():  # a results folder of somebody else may hold one, to any file of ours
        raise BadInput(f"{path}: a link; remove it, and the log is a file")
    try:
        handler = _LogFile(path, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    root = logging.getLogger("bench")
    root.setLevel(logging.INFO)
    root.propagate = False
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()
