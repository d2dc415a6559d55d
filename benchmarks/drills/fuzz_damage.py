"""Recipes of damage: a few bytes of input that change, cut, or replace a whole file."""

from __future__ import annotations


def damaged(content: bytes, recipe: bytes) -> bytes:
    """Returns a file's content after a recipe.

    `w`: what follows is the whole content. `t`: cut at the place in the next two bytes. `z`: a page
    of zeros there, as a file system leaves it after a power cut. Else, after the first byte: four
    bytes each, a place and what to write or xor there; places count in 65,536ths of the length.
    """
    kind, rest = recipe[:1], recipe[1:]
    if kind == b"w":
        return rest
    at = _place(rest, len(content))
    if kind == b"t":
        return content[:at]
    if kind == b"z":
        return content[:at] + bytes(len(content[at : at + 512])) + content[at + 512 :]
    changed = bytearray(content)
    for start in range(0, len(rest) - 3, 4):
        at = _place(rest[start:], len(content))
        if at < len(changed):
            writes = rest[start + 2] % 2 == 0
            changed[at] = rest[start + 3] if writes else changed[at] ^ rest[start + 3]
    return bytes(changed)


def _place(number: bytes, length: int) -> int:
    return int.from_bytes(number[:2].ljust(2, b"\0")) * length // 65536
