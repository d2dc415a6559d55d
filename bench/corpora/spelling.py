"""How a corpus is written: `synthetic:train=50000:seed=1`, `ptb`, `folder:path=/my/text`."""

from __future__ import annotations

import re
from pathlib import Path

from bench.corpora.sources import REMOTE
from bench.errors import BadInput, nearest, one_line
from bench.synthetic import MAX_SEED, MAX_TOKENS

SYNTHETIC, FOLDER = "synthetic", "folder"
DEFAULT_TRAIN = 200_000  # tokens
_SIZES = {"train": (1, MAX_TOKENS), "valid": (1, MAX_TOKENS), "test": (1, MAX_TOKENS)}
_RANGES = _SIZES | {"seed": (0, MAX_SEED)}


def names() -> tuple[str, ...]:
    """Returns the names that a spelling may begin with."""
    return (SYNTHETIC, *REMOTE, FOLDER)


def parse(spelling: str) -> tuple[str, dict[str, str]]:
    """Returns the corpus' name and its options, as written.

    Raises BadInput for an unknown corpus, and for options that are unknown, doubled or malformed.
    """
    name, _, rest = spelling.partition(":")
    shown = one_line(spelling, 80)
    if name not in names():
        raise BadInput(f"corpus {shown!r} is unknown. {nearest(name, names())}")
    if name == FOLDER:  # a path may hold colons: all that follows is the path
        key, _, path = rest.partition("=")
        if key != "path" or not path.strip() or "\0" in path:
            raise BadInput(f"corpus {shown!r}: write folder:path=DIR, a folder with three texts")
        return name, {"path": path}
    options: dict[str, str] = {}
    known = _RANGES if name == SYNTHETIC else {}
    for part in rest.split(":") if ":" in spelling else []:
        key, equals, value = part.partition("=")
        if not known:
            raise BadInput(f"corpus {shown!r}: {name} takes no options, write {name}")
        if key not in known or not equals:
            raise BadInput(
                f"corpus {shown!r}: option {one_line(key, 40)!r} is unknown or has no value. "
                f"{nearest(key, known)} Write key=value"
            )
        if key in options:
            raise BadInput(f"corpus {shown!r}: {key} is given twice, leave one out")
        options[key] = value
    return name, options


def synthetic_options(spelling: str) -> dict[str, int]:
    """Returns all options of a `synthetic` spelling, defaults filled in: tokens, and the seed."""
    _, written = parse(spelling)
    given = {key: _whole_number(spelling, key, value) for key, value in written.items()}
    train = given.get("train", DEFAULT_TRAIN)
    tenth = max(1, train // 10)
    return {"train": train, "valid": tenth, "test": tenth, "seed": 0} | given


def _whole_number(spelling: str, key: str, value: str) -> int:
    low, high = _RANGES[key]
    # No signs, underscores or foreign digits, and no 5,000-digit numbers for int() to choke on.
    number = int(value) if re.fullmatch(r"[0-9]{1,30}", value) else -1
    if not low <= number <= high:
        raise BadInput(
            f"corpus {one_line(spelling, 80)!r}: {key}={one_line(value, 40)} is not usable, "
            f"give a whole number from {low} to {high}"
        )
    return number


def canonical(spelling: str) -> str:
    """Returns the one spelling of a corpus: keys sorted, options equal to their default left out.

    The path of a folder becomes absolute. Nothing is opened. Raises BadInput.
    """
    name, options = parse(spelling)
    if name == FOLDER:
        return f"{FOLDER}:path={folder_path(spelling)}"
    if name != SYNTHETIC:
        return name
    values = synthetic_options(spelling)
    # The default of valid and test depends on train, hence a spelling that gives train alone.
    train = values["train"]
    defaults = synthetic_options(f"{SYNTHETIC}:train={train}") | {"train": DEFAULT_TRAIN}
    kept = sorted(key for key in options if values[key] != defaults[key])
    return ":".join([name, *(f"{key}={values[key]}" for key in kept)])


def identity(spelling: str) -> str:
    """Returns the canonical spelling, but `folder` for any folder: its path is no part of a trial.

    Raises BadInput like `canonical`.
    """
    name, _ = parse(spelling)
    return name if name == FOLDER else canonical(spelling)


def folder_path(spelling: str) -> Path:
    """Returns the absolute path of a `folder` spelling. Raises BadInput."""
    _, options = parse(spelling)
    try:
        return Path(options["path"]).expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, an unknown ~user
        raise BadInput(f"corpus {one_line(spelling, 80)!r}: {one_line(error, 120)}") from error
