"""Where nodes can share files: a folder that all of them mount, a bucket, or another URL.

`s3://` and `gs://` go by the native clients of pyarrow, which is here anyway: s3fs would be a
further package, and pins a botocore of its own. All other schemes go by fsspec and its drivers.
"""

from bench.storage.atomic import publish, write_atomically
from bench.storage.contract import Found, Storage
from bench.storage.location import is_remote, local_path, open_storage
from bench.storage.probe import check_answers, identity, is_it, probe, probe_from_node

__all__ = [
    "Found",
    "Storage",
    "check_answers",
    "identity",
    "is_it",
    "is_remote",
    "local_path",
    "open_storage",
    "probe",
    "probe_from_node",
    "publish",
    "write_atomically",
]
