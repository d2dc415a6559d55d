"""Corpora: found by their spelling, checked by hash, cut into words, memory-mapped.

Windows of text for the training loop are in `bench.corpora.windows`, which needs torch.
"""

from __future__ import annotations

from bench.corpora.corpus import Corpus, check_length, load
from bench.corpora.download import fetch
from bench.corpora.spelling import canonical, identity, names
from bench.corpora.texts import cache_dir, default_data_dir, text_hash

__all__ = [
    "Corpus",
    "cache_dir",
    "canonical",
    "check_length",
    "default_data_dir",
    "fetch",
    "identity",
    "load",
    "names",
    "text_hash",
]
