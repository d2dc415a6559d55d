"""Cells and regularizers as files: found by listing, read without import, hashed, loaded late."""

from bench.plugins.facts import CLASS, FOLDER, Plugin, read
from bench.plugins.find import (
    Registry,
    Selected,
    find,
    select_cell,
    select_regularizers,
    spell_regularizers,
    tree,
)
from bench.plugins.installed import ship
from bench.plugins.load import build_regularizers, load_class
from bench.plugins.source_hash import source_hash

__all__ = [
    "CLASS",
    "FOLDER",
    "Plugin",
    "Registry",
    "Selected",
    "build_regularizers",
    "find",
    "load_class",
    "read",
    "select_cell",
    "select_regularizers",
    "ship",
    "source_hash",
    "spell_regularizers",
    "tree",
]
