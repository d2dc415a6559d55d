"""One spelling of a selection everywhere: `name[:key=value]...`, summed with `+`.

It is the same in YAML, on the command line, in records and in legends, and safe in every shell.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from bench.errors import BadInput, nearest, one_line

Value = int | float | bool | str
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TEXT = re.compile(r"[A-Za-z0-9._/-]+")


@dataclass(frozen=True)
class Param:
    """One hyper-parameter: its annotated type, its default, and the values of a Literal."""

    name: str
    type: str  # "int", "float", "bool", "str" or "choice"
    default: Value
    choices: tuple[Value, ...] = ()

    def coerce(self, value: object, where: str) -> Value:
        """Returns `value` as this parameter's type; raises BadInput, naming `where`."""
        if self.type == "choice":
            for choice in self.choices:
                if spell(choice) == spell(value):
                    return choice
            known = ", ".join(spell(c) for c in self.choices)
            raise BadInput(f"{where}: {self.name}={one_line(value, 60)} must be one of {known}")
        converted = _CONVERT[self.type](value)
        if converted is None:
            kind = {"int": "a whole number", "float": "a finite number", "bool": "true or false"}
            expected = kind.get(self.type, "text of letters, digits, and . _ / -")
            raise BadInput(f"{where}: {self.name}={one_line(value, 60)} must be {expected}")
        return converted

    @property
    def text(self) -> str:
        """`zc: float = 0.05`, as it would be written in the signature."""
        kind = self.type
        if kind == "choice":
            kind = "|".join(spell(c) for c in self.choices)
        return f"{self.name}: {kind} = {spell(self.default)}"


def _int(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return int(value) if isinstance(value, str) and re.fullmatch(r"-?\d{1,18}", value) else None


def _float(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and not re.fullmatch(r"-?(\d+\.?\d*|\.\d+)([eE]-?\d+)?", value):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number + 0.0 if math.isfinite(number) else None  # -0 is 0


def _bool(value: object) -> bool | None:
    if isinstance(value, bool):
        return value
    return {"true": True, "false": False}.get(value.lower()) if isinstance(value, str) else None


def _str(value: object) -> str | None:
    return value if isinstance(value, str) and _TEXT.fullmatch(value) else None


_CONVERT = {"int": _int, "float": _float, "bool": _bool, "str": _str}


def spell(value: object) -> str:
    """Returns a value as it is written in a selection: 2.0 -> 2, 1e+20 -> 1e20, True -> true."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        text = repr(value)
        mantissa, _, exponent = text.partition("e")
        mantissa = mantissa.removesuffix(".0")
        return f"{mantissa}e{int(exponent)}" if exponent else mantissa
    return str(value)


def split(selection: str, where: str) -> tuple[str, dict[str, str]]:
    """Splits `name:key=value` into its name and its values, still text; raises BadInput."""
    name, *options = selection.split(":")
    if not NAME.fullmatch(name):
        raise BadInput(
            f"{where}: {one_line(selection, 60)!r} is no selection; write name:key=value, "
            "a name of letters, digits, and . _ -"
        )
    values: dict[str, str] = {}
    for option in options:
        key, sign, value = option.partition("=")
        if not (key and sign and value):
            raise BadInput(f"{where}: {one_line(option, 60)!r} in {name} must be key=value")
        if key in values:
            raise BadInput(f"{where}: {key} is given twice in {one_line(selection, 80)}")
        values[key] = value
    return name, values


def complete(
    name: str, given: dict[str, str], params: tuple[Param, ...], where: str
) -> dict[str, Value]:
    """Returns every hyper-parameter, the given ones coerced to their type; raises BadInput."""
    known = {p.name: p for p in params}
    for key in given:
        if key not in known:
            raise BadInput(
                f"{where}: {name} has no hyper-parameter {one_line(key, 60)!r}. "
                f"{nearest(key, known)}"
            )
    return {
        p.name: p.coerce(given[p.name], f"{where}: {name}") if p.name in given else p.default
        for p in params
    }


def join(
    name: str, values: dict[str, Value], params: tuple[Param, ...], always: str | None = None
) -> str:
    """Returns the canonical spelling: values equal to their default left out, but for `always`."""
    shown = [p for p in params if p.name == always or values[p.name] != p.default]
    shown.sort(key=lambda p: (p.name != always, p.name))
    return ":".join([name, *(f"{p.name}={spell(values[p.name])}" for p in shown)])
