"""The reader of grid files: YAML 1.2 scalars, and nothing that can surprise or hurt."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from bench.config.yaml12 import MAX_BYTES, parse, read
from bench.errors import BadInput


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(word, True) for word in ("true", "True", "TRUE")],
        *[(word, False) for word in ("false", "False", "FALSE")],
        # Booleans of YAML 1.1 are text.
        *[(word, word) for word in ("on", "off", "yes", "no", "y", "n", "On", "NO", "tRUE")],
        *[(word, None) for word in ("null", "~", "")],
        ("none", "none"),
        ("1", 1), ("-3", -3), ("+3", 3), ("0", 0), ("007", 7),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("1e-7", 1e-7), ("1E3", 1000.0), ("1e+3", 1000.0), ("2.", 2.0), (".5", 0.5), ("-.5", -0.5),
        ("0.65", 0.65), (".inf", float("inf")), ("-.Inf", float("-inf")),
        # Neither octal nor hexadecimal nor sexagesimal numbers, no underscores, no dates.
        *[(word, word) for word in ("0o17", "0x1F", "0b1", "1_000", "1:30", "12:30:45")],
        *[(word, word) for word in ("2024-01-01", "2024-01-01 10:00:00", "1e", "e5", "1.2.3", ".")],
        *[(word, word) for word in ("inf", "nan", "Infinity", "=", "<<")],
        ("'1'", "1"), ('"true"', "true"), ("!!str 1", "1"), ("!!int '1'", 1),
        ('"a\\tb\\u00e9"', "a\tbé"), ("a b", "a b"), ("ar:alpha=2+tar", "ar:alpha=2+tar"),
        ("[1, a]", [1, "a"]), ("{a: 1}", {"a": 1}), ("[]", []), ("{}", {}),
        ("&x [1]", [1]),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = parse(f"key: {text}\n", "grid")["key"]
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_a_number() -> None:
    for text in (".nan", ".NaN", ".NAN"):
        assert parse(f"key: {text}", "grid")["key"] != parse(f"key: {text}", "grid")["key"]


def test_keys_are_words_whatever_they_look_like() -> None:
    assert parse("1: a\ntrue: b\n~: c\n1e3: d\n'': e\n<<: {f: 1}\n", "grid") == {
        "1": "a", "true": "b", "~": "c", "1e3": "d", "": "e", "<<": {"f": 1},
    }  # fmt: skip


def test_an_anchor_may_be_used_again() -> None:
    text = "a: &size {nhid: 650}\nb: [*size, *size]\n"
    assert parse(text, "grid") == {"a": {"nhid": 650}, "b": [{"nhid": 650}, {"nhid": 650}]}


BILLION = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "grid: it is empty; write a mapping such as `axes: …`"),
        ("# a comment\n\n  # another\n", "grid: it is empty"),
        ("---\n", "must be a mapping (`axes: …`), not NoneType"),
        (
            "---\n...\n---\na: 1\n",
            "grid: line 3: expected a single document in the stream, but found another",
        ),
        ("- a\n- b\n", "grid: must be a mapping (`axes: …`), not list"),
        ("just text", "grid: must be a mapping (`axes: …`), not str"),
        ("12", "grid: must be a mapping (`axes: …`), not int"),
        ("a: 1\nb: 2\na: 3\n", "grid: line 3: the key 'a' is there twice"),
        ("a: {b: 1, 'b': 2}\n", "grid: line 1: the key 'b' is there twice"),
        ("[a]: 1\n", "grid: line 1: a key must be a word"),
        ("? {a: 1}\n: 2\n", "grid: line 1: a key must be a word"),
        ("a: &x [*x]\n", "grid: line 1: an alias that holds itself"),
        ("a: &x\n  b: {c: *x}\n", "an alias that holds itself"),
        ("a: *missing\n", "grid: line 1: found undefined alias 'missing'"),
        (
            "a: &x 1\nb: &x 2\n",
            "grid: line 2: found duplicate anchor 'x'; first occurrence, second",
        ),
        (BILLION, "grid: holds more than 100,000 values"),
        ("a: " + "[" * 60 + "]" * 60, "grid: line 1: nested too deeply"),
        ("a: " + "[" * 3000, "grid: nested too deeply"),
        ("a: " + "{a: " * 3000, "grid: nested too deeply"),
        (
            "\t- a",
            "grid: line 1: while scanning for the next token, found character '\\t' that cannot",
        ),
        (
            "a:\n\tb: 1\n",
            "grid: line 2: while scanning for the next token, found character '\\t' that cannot",
        ),
        ("a: [1, 2\n", "grid: line 2: while parsing a flow sequence, expected ',' or ']'"),
        ("a: 'open\n", "while scanning a quoted scalar, found unexpected end of stream"),
        ("a: b: c\n", "grid: line 1: mapping values are not allowed here"),
        (
            "a: @x\n",
            "line 1: while scanning for the next token, found character '@' that cannot start",
        ),
        ("%YAML 3.0\n---\na: 1\n", "grid: line 1: found incompatible YAML document"),
        ("a: \0\n", "grid: not valid YAML: unacceptable character"),
        ("a: \x1b[31m\n", "grid: not valid YAML: unacceptable character"),
        ("a: !!python/object:os.system x\n", "grid: line 1: tag:yaml.org,2002:python/object:os"),
        ("a: !!binary aGk=\n", "grid: line 1: tag:yaml.org,2002:binary is no type of a grid file"),
        ("a: !!timestamp nonsense\n", "tag:yaml.org,2002:timestamp is no type of a grid file"),
        ("a: !!set {b, c}\n", "tag:yaml.org,2002:set is no type of a grid file"),
        ("!!omap [a: 1]\n", "tag:yaml.org,2002:omap is no type of a grid file"),
        ("a: !mine x\n", "grid: line 1: !mine is no type of a grid file"),
        ("a: !!bool maybe\n", "grid: not valid YAML"),
        ("a: !!int x\n", "grid: not valid YAML: invalid literal for int()"),
        ("a: !!float x\n", "grid: not valid YAML: could not convert string to float"),
        ("a: !!int {b: 1}\n", "grid: "),
        ("a: !!map [b]\n", "grid: line 1: expected a mapping node, but found sequence"),
        ("a: !!str [b]\n", "grid: line 1: expected a scalar node, but found sequence"),
        ("a: " + "9" * 5000, "grid: not valid YAML: Exceeds the limit (4300 digits)"),
    ],
)
def test_what_cannot_be_read_is_one_line(text: str, line: str) -> None:
    with pytest.raises(BadInput) as error:
        parse(text, "grid")
    assert line in str(error.value)
    assert str(error.value).startswith("grid: ")
    assert "\n" not in str(error.value)


# --- files ----------------------------------------------------------------------------------------


def refused(path: Path) -> str:
    with pytest.raises(BadInput) as error:
        read(path, "grid.yaml")
    return str(error.value)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("name: é\r\nreps: 2\r\n", encoding=encoding)
    assert read(path, "grid.yaml") == {"name": "é", "reps": 2}


def test_what_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_bytes(b"name: caf\xe9\n")
    assert refused(path) == "grid.yaml: byte 9 is not UTF-8; a grid is a text file"
    path.write_text("name: x\n", encoding="utf-16")
    assert refused(path) == "grid.yaml: byte 0 is not UTF-8; a grid is a text file"
    path.write_bytes(bytes(range(256)))
    assert "is not UTF-8" in refused(path)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    started = time.perf_counter()
    assert refused(path) == (
        "grid.yaml: 100,000,000 bytes are too many for a grid file (at most 1,000,000)"
    )
    assert time.perf_counter() - started < 0.05
    with path.open("wb") as file:
        file.truncate(MAX_BYTES)
    assert "unacceptable character" in refused(path), "the largest allowed is read"


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    (tmp_path / "gone.yaml").symlink_to("nowhere.yaml")
    for name in ("absent.yaml", "pipe.yaml", "gone.yaml", ".", "x" * 300 + ".yaml"):
        assert refused(tmp_path / name).startswith("grid.yaml: ")
    assert refused(tmp_path / "pipe.yaml") == "grid.yaml: no such file"
    assert refused(tmp_path / "loop.yaml").startswith("grid.yaml: ")
    assert refused(Path("/dev/zero")) == "grid.yaml: no such file"


def test_a_file_that_may_not_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("name: x\n")

    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", denied)  # the tests may run as root
    assert refused(path) == "grid.yaml: Permission denied"
