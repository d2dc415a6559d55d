"""The one exception for what a user can mend: a single clear line, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BadInput(Exception):
    """Input that cannot be used. Its text is one line that names the file, the value and the fix.

    Whoever raises it has started and written nothing; the command line prints it and exits with 2.
    `detail` (a plugin's traceback) is printed below the line.
    """

    def __init__(self, line: str, detail: str = "") -> None:
        super().__init__(one_line(line, 1000))
        self.detail = detail


def one_line(text: object, limit: int = 400) -> str:
    """Returns `text` as one printable line of at most `limit` characters, cut in the middle."""
    line = " ".join(str(text).split())
    line = "".join(ch if ch.isprintable() else "?" for ch in line)
    if len(line) <= limit:
        return line
    end = limit // 3  # a message's end says what to do about it
    return f"{line[: limit - 1 - end]}…{line[-end:]}"


def nearest(name: object, known: Iterable[str]) -> str:
    """Returns `Did you mean a or b? Known: a, b, c.` for a name that is not in `known`."""
    names = sorted(known)
    close = difflib.get_close_matches(one_line(name, 80), names, n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(close)}? " if close else ""
    listing = ", ".join(names[:40]) + (", …" if len(names) > 40 else "")
    return f"{hint}Known: {listing or 'none'}."
