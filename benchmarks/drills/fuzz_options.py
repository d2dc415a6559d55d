"""What is written after `--storage`, `--results`, `--checkpoint-every`, `--address` and `--pack`.

Up to the clients: none is made, and nobody is called, so a location that is well spelled ends
where its server would be asked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

from bench.backends.ray_cluster import check_address
from bench.checkpoint import Rhythm, parse_every
from bench.options import Options, check, checkpoints_at, how
from bench.storage import is_remote, local_path, open_storage
from bench.storage.bucket import Bucket
from bench.store.mirror import results_folder
from benchmarks.drills.fuzz_watch import Target


def read_option(data: bytes, here: Path) -> None:
    """A letter for the option, then its value, in bytes as a shell hands it over."""
    kind = data[:1]
    text = data[1:].decode("utf-8", "surrogateescape").replace("\0", "")  # no argument has one
    with _nobody():
        if kind == b"a":
            check(Options("results", address=text))
            if text != "auto":  # which looks for processes of Ray's
                check_address(text)
        elif kind == b"c":
            check(Options("results", checkpoint_every=text))
            assert parse_every(text) in ((None, None), *_halves(Rhythm(text)))
        elif kind == b"p":
            check(Options("results", pack=text))
            assert 0 <= how(Options("results", pack=text), "cpu", False, None).pack <= 1024
        elif kind == b"r":
            with results_folder(text, write=False, may_be_empty=True) as results:
                assert is_remote(text) or results.folder == local_path(text)
        else:
            options = Options("results", storage=text)
            check(options)
            assert checkpoints_at(options, here / "results", None)
            _confined(text)


def _halves(rhythm: Rhythm) -> list[tuple[float | None, int | None]]:
    """Returns the one answer, if it is of seconds or of epochs and can be waited for."""
    seconds, epochs = rhythm.seconds, rhythm.epochs
    possible = (seconds is None) != (epochs is None) and 0 <= (seconds or epochs or 0) < 1e9
    return [(seconds, epochs)] if possible else []


def _confined(text: str) -> None:
    """Asserts that what is written to a bucket lies in the folder that the URL names."""
    storage = open_storage(text)
    assert storage.location == text
    if isinstance(storage, Bucket):
        bucket, *folders, last = storage._base.split("/")
        assert bucket and last == "" and not {"", ".", ".."} & {*folders}, storage._base


class _Nobody:
    """A file system of a server that nobody reaches."""

    def __init__(self, *args: Any, **options: Any) -> None:
        for value in options.values():
            str(value).encode()  # as a client does

    def __getattr__(self, name: str) -> Any:
        return _unreached


def _unreached(*args: Any, **options: Any) -> NoReturn:
    raise OSError("nobody is there")


@contextlib.contextmanager
def _nobody() -> Iterator[None]:
    with (
        patch("pyarrow.fs.S3FileSystem", _Nobody),
        patch("pyarrow.fs.GcsFileSystem", _Nobody),
        patch("pyarrow.fs.resolve_s3_region", _unreached),
        patch("fsspec.core.filesystem", _Nobody),
        patch("socket.create_connection", _unreached),
    ):
        yield


_VALUES = (
    "sresults", "s~/shared", "s~nemo/x", "sfile:///tmp/a%20b", "sfile://localhost/x", "sfile:x",
    "ss3://bucket/folder?region=eu-west-1", "ss3://bucket", "ss3a://b/f?endpoint_override=[::1]:9",
    "sgs://bucket/a/b?scheme=http", "sgcs://bucket/", "ss3://user:secret@bucket/x",
    "smemory://a/b", "shttp://[::1", "szip://a::s3://b/c", "ssftp://host:22/x", "swebhdfs://h:99/x",
    "rresults", "r~nemo", "rs3://bucket/results?region=x", "rmemory://results", "rhttps://h/x",
    "c60s", "c0.5s", "c2e", "coff", "c1e9s", "a127.0.0.1:6379", "a[::1]:6379", "alocal",
    "ahost:65536", "aray://host:10001", "p1", "pauto", "p64",
)  # fmt: skip
_TOKENS = ("://", "::", "s3", "gs", "file", "memory", "zip", "?", "&", "=", "%", "%2e%2e", "..",
           "//", "@", ":", "[", "]", "~", "~nemo", "region=x", "endpoint_override=", "scheme=",
           "\\", "²", "٣", "\u2028", "９", "e", "s", "0", "nan", "inf", "localhost")  # fmt: skip
TARGETS = {
    "options": Target(
        read_option,
        ("--storage ", "--results ", "--checkpoint-every ", "--address ", "--pack "),
        lambda: [value.encode() for value in _VALUES],
        tuple(token.encode() for token in _TOKENS),
    )
}
