"""A real S3 server for tests: that of the drills."""

from __future__ import annotations

import pytest

from benchmarks.drills.s3_server import Server, server

__all__ = ["Server", "reach", "server"]


def reach(running: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points all clients of this process, and of those it starts, to a server."""
    for name, value in running.environment().items():
        monkeypatch.setenv(name, value)
