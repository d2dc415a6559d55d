"""A safe YAML reader: 1.2 booleans and floats, no duplicate keys, no alias that holds itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from bench.errors import BadInput, one_line

MAX_BYTES = 1_000_000
MAX_NODES = 100_000
_TAGS = {
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq")
}


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2: `on` is text, 1e-7 is a number, no dates."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}",
        re.compile(f"^(?:{_pattern})$"),
        [ch if ch != "\0" else "" for ch in _first],
    )


def _int(loader: _Loader, node: yaml.Node) -> int:
    return int(loader.construct_scalar(node))  # type: ignore[arg-type]


def _float(loader: _Loader, node: yaml.Node) -> float:
    text = loader.construct_scalar(node)  # type: ignore[arg-type]
    return float(re.sub(r"^([-+]?)\.(inf|nan)", r"\1\2", text.lower()))


_Loader.add_constructor("tag:yaml.org,2002:int", _int)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


def read(path: Path, where: str) -> dict[str, Any]:
    """Returns the mapping in a YAML file; raises BadInput, one line that starts with `where`."""
    try:
        if not path.is_file():
            raise BadInput(f"{where}: no such file")
        if path.stat().st_size > MAX_BYTES:
            raise BadInput(
                f"{where}: {path.stat().st_size:,} bytes are too many for a grid file "
                f"(at most {MAX_BYTES:,})"
            )
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise BadInput(f"{where}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{where}: byte {error.start} is not UTF-8; a grid is a text file") from None
    return parse(text, where)


def parse(text: str, where: str) -> dict[str, Any]:
    """Returns the mapping that `text` holds; raises BadInput."""
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                raise BadInput(f"{where}: it is empty; write a mapping such as `axes: …`")
            _check(node, where, [], [0])
            value = loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f" line {mark.line + 1}:" if mark else ""
        said = ", ".join(text for text in (error.context, error.problem) if text)
        raise BadInput(f"{where}:{line} {said}") from None
    except RecursionError:
        raise BadInput(f"{where}: nested too deeply") from None
    except (yaml.YAMLError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise BadInput(f"{where}: not valid YAML: {one_line(error, 200)}") from None
    if not isinstance(value, dict):
        raise BadInput(f"{where}: must be a mapping (`axes: …`), not {type(value).__name__}")
    return value


def _check(node: yaml.Node, where: str, above: list[yaml.Node], count: list[int]) -> None:
    count[0] += 1
    # Aliases are walked each time they occur, so a bomb of nested aliases is counted in full.
    if count[0] > MAX_NODES:
        raise BadInput(f"{where}: holds more than {MAX_NODES:,} values")
    line = node.start_mark.line + 1
    if node.tag not in _TAGS:
        raise BadInput(f"{where}: line {line}: {one_line(node.tag, 60)} is no type of a grid file")
    if any(node is other for other in above):
        raise BadInput(f"{where}: line {line}: an alias that holds itself")
    if len(above) > 50:
        raise BadInput(f"{where}: line {line}: nested too deeply")
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            at = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise BadInput(f"{where}: line {at}: a key must be a word")
            if key.value in seen:
                raise BadInput(f"{where}: line {at}: the key {key.value!r} is there twice")
            seen.add(key.value)
            key.tag = "tag:yaml.org,2002:str"  # `1:` and `true:` are names here, too
            _check(value, where, [*above, node], count)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check(item, where, [*above, node], count)
