"""A real S3 server: moto's, in a process of its own, on a port of its own choosing."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import urllib.request
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

_BEFORE_AUTH = "INITIAL_NO_AUTH_ACTION_COUNT"


@dataclass
class Server:
    """A running server; `kill` ends it as a power cut would."""

    process: subprocess.Popen[str]
    url: str

    def environment(self) -> dict[str, str]:
        """Returns the variables by which a client in any process finds this server."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def make_bucket(self, name: str) -> str:
        """Makes an empty bucket and returns its URL."""
        request = urllib.request.Request(f"{self.url}/{name}", method="PUT")
        urllib.request.urlopen(request, timeout=20).close()
        return f"s3://{name}"

    def check_keys(self) -> None:
        """From now on the server refuses keys that nobody gave out, as Amazon's does."""
        url, plain = f"{self.url}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        request = urllib.request.Request(url, b"0", plain, method="POST")
        urllib.request.urlopen(request, timeout=20).close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """Yields a server without buckets; they are in its memory and go with it."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    environment = os.environ | {_BEFORE_AUTH: "1000000000"}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        said = []
        try:
            for line in process.stderr:
                said.append(line)
                if found := re.search(r"Running on (http://127\.0\.0\.1:\d+)", line):
                    break
            else:
                raise RuntimeError(f"moto did not start: {''.join(said)}")
            # A pipe that nobody empties would stop the server at its first 64 KB of log.
            threading.Thread(target=deque, args=(process.stderr, 0), daemon=True).start()
            yield Server(process, found[1])
        finally:
            process.kill()
            process.wait()
