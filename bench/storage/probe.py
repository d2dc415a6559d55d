"""Do all nodes see one storage? Each reads a file of the driver's and writes one of its own."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Mapping

from bench.errors import BadInput
from bench.storage.contract import Storage
from bench.storage.location import open_storage

_FOLDER = "probe"
_IDENTITY = "checkpoints/storage-id-"


def probe(storage: Storage) -> str:
    """Writes a file and reads it again; returns the token for the nodes to find it by. BadInput."""
    token = secrets.token_hex(8)
    name = f"{_FOLDER}/{token}"
    try:
        storage.get(name)  # a bucket out of reach is told soonest by reading
        storage.put(name, token.encode())
        back = storage.get(name)
    except OSError as error:
        raise BadInput(f"--storage {_said(storage.location, error)}; it must be writable") from None
    if back != token.encode():
        raise BadInput(f"--storage {storage.location}: what was written cannot be read again")
    return token


def probe_from_node(location: str, token: str, node: str) -> str:
    """Runs on a node, of which `node` is any name: returns what is wrong there, "" if nothing."""
    try:
        storage = open_storage(location)
        if storage.get(f"{_FOLDER}/{token}") != token.encode():
            return "does not see what the driver wrote"
        storage.put(f"{_FOLDER}/{_own(token, node)}", token.encode())
    except (BadInput, OSError) as error:
        return _said(location, error)
    return ""


def check_answers(storage: Storage, token: str, answers: Mapping[str, str]) -> None:
    """Reads what each node wrote, and deletes all of it; BadInput names the nodes that cannot.

    `answers`: what `probe_from_node` returned, by the name of the node.
    """
    wrong = {node: said for node, said in answers.items() if said}
    try:
        for node in answers:
            if node not in wrong and storage.get(f"{_FOLDER}/{_own(token, node)}") is None:
                wrong[node] = "writes what the driver does not see"
    except OSError as error:
        raise BadInput(f"--storage {_said(storage.location, error)}") from None
    finally:
        for name in (token, *(_own(token, node) for node in answers)):
            with contextlib.suppress(OSError):
                storage.delete(f"{_FOLDER}/{name}")
    if wrong:
        node, said = next(iter(wrong.items()))
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise BadInput(
            f"--storage {storage.location}: node {node}{more}: {said}; "
            "it must be one folder or bucket that every node can read and write"
        )


def identity(storage: Storage) -> str:
    """Returns what tells this storage from every other; written there by the first who asks.

    Two who ask at once may both be first. Each has written a file with a name of its own, so what
    either is told stays true. A node that joins later, without the folder that the others share,
    has a folder of that name of its own disk, and finds nothing there. Raises BadInput.
    """
    try:
        there = [name for name in storage.names("checkpoints") if name.startswith(_IDENTITY)]
        if not there:
            there = [_IDENTITY + secrets.token_hex(8)]
            storage.put(there[0], b"")
    except OSError as error:
        raise BadInput(f"--storage {_said(storage.location, error)}") from None
    return there[0].removeprefix(_IDENTITY)


def is_it(storage: Storage, expected: str) -> bool:
    """Whether what is seen here is the storage that the driver named. OSError."""
    return storage.get(_IDENTITY + expected) is not None


def _own(token: str, node: str) -> str:
    return f"{token}-{re.sub(r'[^A-Za-z0-9._-]', '_', node)}"


def _said(location: str, error: Exception) -> str:
    said = str(error.strerror) if isinstance(error, OSError) and error.strerror else str(error)
    return said if said.startswith(location) else f"{location}: {said}"
