"""A bucket of S3 or GCS, by pyarrow's native clients.

Credentials come from the usual places (environment, ~/.aws, the machine's role), never from the
URL, since that is shown and recorded. A server other than Amazon's is named by
$AWS_ENDPOINT_URL_S3, $AWS_ENDPOINT_URL or `?endpoint_override=`; pyarrow by itself does not read
the variables (https://github.com/apache/arrow/issues/49643).
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

from bench.errors import BadInput, nearest, one_line
from bench.storage.contract import Found, checked, folder_of, hidden, told

SECONDS = 4
"""For a connection, and without a byte on it. Three attempts of S3 to read end within 15 s; to
write within 40 s, since curl takes eight seconds more to notice that an upload stands still."""
_ATTEMPTS = 5
_PARQUET = b"PAR1"
_OPTIONS = {"s3": ("endpoint_override", "region", "scheme"), "gs": ("endpoint_override", "scheme")}


def open_bucket(location: str, scheme: str, rest: str) -> Bucket:
    """Returns the folder of a bucket at `rest` of a URL, `BUCKET/FOLDER?option=…`; BadInput.

    Reaches for nothing, but that S3 is asked for the bucket's region if nothing names it: OSError.
    """
    path, _, query = rest.partition("?")
    bucket, _, prefix = path.strip("/").partition("/")
    form = f"{scheme}://BUCKET/FOLDER"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", bucket):
        raise BadInput(f"{location}: names no bucket; write {form}")
    options = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    known = _OPTIONS[scheme]
    for name in options:
        if name not in known:
            raise BadInput(f"{location}: no option {one_line(name, 40)!r}. {nearest(name, known)}")
    try:
        folder_of(prefix)
    except ValueError:
        raise BadInput(f"{location}: not a folder of a bucket; write {form}") from None
    try:
        with told(location):
            system = (_s3 if scheme == "s3" else _gs)(options, bucket)
    except ValueError as error:
        raise BadInput(f"{location}: {one_line(error, 200)}") from None
    return Bucket(location, system, bucket, prefix)


def server_of(location: str) -> str:
    """Returns the server that the environment names for a URL of S3, "" where that has no say."""
    scheme, _, rest = location.partition("://")
    if scheme.lower() not in ("s3", "s3a"):
        return ""
    options = dict(urllib.parse.parse_qsl(rest.partition("?")[2]))
    return (_endpoint(options) or "").rstrip("/")


def _endpoint(options: Mapping[str, str]) -> str | None:
    found = options.get("endpoint_override") or os.environ.get("AWS_ENDPOINT_URL_S3")
    return found or os.environ.get("AWS_ENDPOINT_URL")


def _s3(options: Mapping[str, str], bucket: str) -> Any:
    from pyarrow import fs

    settings = os.environ
    endpoint = _endpoint(options)
    region = options.get("region") or settings.get("AWS_REGION")
    region = region or settings.get("AWS_DEFAULT_REGION")
    if not region:
        region = "us-east-1" if endpoint else fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(
        endpoint_override=endpoint,
        region=region,
        scheme=options.get("scheme"),
        connect_timeout=SECONDS,
        request_timeout=SECONDS,  # of silence: a slow transfer may take as long as it takes
        allow_delayed_open=True,  # a small file is one request instead of three
    )


def _gs(options: Mapping[str, str], bucket: str) -> Any:
    from pyarrow import fs

    return fs.GcsFileSystem(
        endpoint_override=options.get("endpoint_override"),
        scheme=options.get("scheme"),
        retry_time_limit=datetime.timedelta(seconds=SECONDS),
    )


class Bucket:
    """A Storage in a bucket. An object is there when its last byte has come, and not before."""

    def __init__(self, location: str, system: Any, bucket: str, prefix: str) -> None:
        self.location = location
        self._system = system
        self._bucket = bucket
        self._base = f"{bucket}/{prefix}/" if prefix else f"{bucket}/"

    def put(self, name: str, content: bytes) -> None:
        path = self._base + checked(name)
        with told(self.location):
            stream = self._system.open_output_stream(path)
            stream.write(content)
            stream.close()  # and no `with`: what could not be written must not be completed

    def get(self, name: str) -> bytes | None:
        path = self._base + checked(name)
        with told(self.location):
            try:
                for _ in range(_ATTEMPTS):
                    with self._system.open_input_file(path) as file:
                        content = bytes(file.read())
                    # As many bytes as it had when it was opened: of one that has come in between,
                    # perhaps only the beginning. A Parquet file that has its end is whole.
                    if content.endswith(_PARQUET) or self._size(path) == len(content):
                        return content
            except FileNotFoundError:
                self._need_bucket()
                return None
            raise OSError(f"{name} changes faster than it can be read")

    def listing(self, prefix: str = "") -> dict[str, Found]:
        from pyarrow import fs

        folder = (self._base + folder_of(prefix)).removesuffix("/")
        with told(self.location):
            selector = fs.FileSelector(folder, recursive=True, allow_not_found=True)
            entries = self._system.get_file_info(selector)
            if not entries:
                self._need_bucket()
        found = {}
        for entry in entries:
            name = entry.path.removeprefix(self._base)
            if entry.type == fs.FileType.File and not hidden(name):
                when = entry.mtime_ns
                found[name] = Found(entry.size, None if when is None else when / 1e9)
        return dict(sorted(found.items()))

    def _size(self, path: str) -> int | None:
        size: int | None = self._system.get_file_info(path).size
        return size

    def _need_bucket(self) -> None:
        from pyarrow import fs

        # Of a bucket that is not there, pyarrow says that it holds nothing.
        if self._system.get_file_info(self._bucket).type == fs.FileType.NotFound:
            raise OSError(f"there is no bucket {self._bucket}")

    def names(self, prefix: str = "") -> list[str]:
        return list(self.listing(prefix))

    def delete(self, name: str) -> None:
        path = self._base + checked(name)
        with told(self.location), contextlib.suppress(FileNotFoundError):
            self._system.delete_file(path)

    def clear(self, prefix: str) -> None:
        for name in self.names(prefix):
            self.delete(name)
