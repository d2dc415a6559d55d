"""From text to arrays of word ids: one id per word, and one `<eos>` per line, blank ones included.

Words are split on white space and lines on `\\n` alone; a last line needs no end. The text passes
in blocks that end at ASCII white space, so memory holds the vocabulary and one block, whatever the
size of the text; a longer stretch without any, which is one word as a rule, is held whole. In a
block each word is looked up once, however often it stands there: which words are equal is found by
pyarrow, in C++.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator
from itertools import count, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from bench import synthetic
from bench.corpora.sources import SPLITS
from bench.corpora.spelling import SYNTHETIC, parse, synthetic_options
from bench.corpora.texts import combined, text_paths, unreadable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EOS, UNK = "<eos>", "<unk>"
EVALUATED = ("valid", "test")
FORMAT = 1  # of the folder that `build` fills; another number makes older ones invisible
BLOCK = 2**24  # bytes cut into words at a time: the longer, the fewer words are looked up again
_CHUNK = 2**22  # ids counted at a time

# The white space of `str.split`: in ASCII as a table for `bytes.translate`, beyond it a pattern.
_TO_SPACE = bytes(ord(" ") if chr(code).isspace() else code for code in range(128)) + bytes(
    range(128, 256)
)
_IN_WORDS = bytes(code for code in range(256) if _TO_SPACE[code] != ord(" "))
_WIDE_SPACE = re.compile("[\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")

Ids = defaultdict[str, int]  # gives a word it has not seen the next number


def build(spelling: str, data_dir: Path, folder: Path) -> str:
    """Fills `folder` with the arrays of a corpus; returns the hash of the text that was read.

    `train.npy`, `valid.npy`, `test.npy`: int32 [N]. `vocab.txt`: the word of each id, a line each.
    `valid-nll.npy`, `test-nll.npy`: float64 [N], of a corpus whose source is known. `meta.json`,
    written last: lengths, unigram nll, words that train lacks, and the SHA-256 of all of them and
    of its own. Raises BadInput, OSError.
    """
    import numpy as np

    ids: Ids = defaultdict(count().__next__)
    hashes: dict[str, str] = {}
    oov: dict[str, tuple[int, int]] = {}
    for split, file, nll in _open_texts(spelling, data_dir):
        array = folder / f"{split}.npy"
        if split not in EVALUATED:
            hashes[split], _ = _encode(file, array, ids)
            continue
        unknown: set[str] = set()
        hashes[split], replaced = _encode(file, array, ids, unknown)
        oov[split] = len(unknown), replaced
        if nll is not None:
            np.save(folder / f"{split}-nll.npy", nll)
    if any(tokens for _, tokens in oov.values()):
        ids[UNK]  # gets the next number, unless it has one
    size = len(ids)
    with (folder / "vocab.txt").open("wb") as vocab:
        vocab.writelines(f"{word}\n".encode() for word in ids)
    ids.clear()  # of many words it is large
    meta = {
        "vocab": size,
        "lengths": {
            file.stem: len(np.load(file, mmap_mode="r")) for file in sorted(folder.glob("*.npy"))
        },
        "unigram_nll": _unigram_nll(folder, size),
        "oov": oov,
        "files": digests(folder),
    }
    meta["sha256"] = digest_of(meta)
    (folder / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
    return combined(hashes)


def digests(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of each file that `build` fills, but for meta.json. OSError.

    Takes half a second for a gigabyte, on a processor that has instructions for it.
    """
    found = {}
    for path in sorted((*folder.glob("*.npy"), folder / "vocab.txt")):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def digest_of(meta: dict[str, Any]) -> str:
    """Returns the SHA-256 of what meta.json says beside it."""
    said = {key: value for key, value in meta.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _open_texts(
    spelling: str, data_dir: Path
) -> Iterator[tuple[str, BinaryIO, NDArray[np.float64] | None]]:
    """Yields split, text and, if its source is known, the nll of each token; train comes first."""
    name, _ = parse(spelling)
    if name == SYNTHETIC:
        options = synthetic_options(spelling)
        for split in SPLITS:
            sample = synthetic.generate(split, options[split], options["seed"])
            yield split, io.BytesIO(sample.text), sample.nll
        return
    for split, path in text_paths(spelling, data_dir).items():
        try:
            file = path.open("rb")
        except OSError as error:
            raise unreadable(name, path, error) from error
        with file:
            yield split, file, None


def _encode(
    file: BinaryIO, out: Path, ids: Ids, unknown: set[str] | None = None
) -> tuple[str, int]:
    """Writes the ids of a text to an .npy file and returns its SHA-256.

    Words that are new get the next number in `ids`. With a set `unknown` they do not: they enter
    the set and are written as `<unk>`, and how many tokens those were is returned as well.
    """
    import numpy as np

    digest = hashlib.sha256()
    length = replaced = 0
    unk = ids.get(UNK, len(ids))  # `build` adds it there, if it is needed
    with out.open("wb") as array:
        _write_header(array, 0)  # room for the length, which is known at the end
        start = array.tell()
        for text in _blocks(file, digest):
            words, places = distinct(text)
            if unknown is None:
                numbers = map(ids.__getitem__, words)
            else:
                numbers = map(ids.get, words, repeat(-1))
            of_word = np.fromiter(numbers, np.dtype("<i4"), len(words))
            block = of_word[places]
            if unknown is not None:
                unknown.update(words[i] for i in np.flatnonzero(of_word < 0))
                new = block < 0
                replaced += int(new.sum())
                block[new] = unk
            length += len(block)
            array.write(block.data)
        array.seek(0)
        _write_header(array, length)
        assert array.tell() == start, "numpy changed the padding of .npy headers"
    return digest.hexdigest(), replaced


def distinct(block: bytes) -> tuple[list[str], NDArray[np.int32]]:
    """Returns the words of a block in order of first appearance, and which of them each token is.

    The tokens are those of `block.decode().replace("\\n", " <eos> ").split()`, in their order. The
    block ends in ASCII white space.
    """
    import numpy as np
    import pyarrow as pa

    text = block.replace(b"\n", f" {EOS} ".encode()).translate(_TO_SPACE)
    text = b" %b|" % text  # a space before the first word, and a last word that marks the end
    space = np.frombuffer(text, np.uint8) == ord(" ")
    starts = np.flatnonzero(space[:-1] > space[1:])
    # An item is a space, a word and further space, so no byte is moved. Spaces of several lengths
    # make several items of one word; that is no harm, they get one id.
    items = pa.Array.from_buffers(
        pa.large_binary(), len(starts) - 1, [None, pa.py_buffer(starts), pa.py_buffer(text)]
    ).dictionary_encode()
    # If the text was changed since it was found to be UTF-8, its hash tells.
    joined = items.dictionary.buffers()[2].to_pybytes().decode(errors="replace")
    if not joined.isascii() and _WIDE_SPACE.search(joined):
        return distinct(_WIDE_SPACE.sub(" ", block.decode(errors="replace")).encode())
    words = joined.split()
    assert len(words) == len(items.dictionary), "pyarrow keeps more than its items in the buffer"
    return words, items.indices.to_numpy()


def _write_header(file: BinaryIO, length: int) -> None:
    import numpy as np

    header = {"descr": "<i4", "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, header)


def _blocks(file: BinaryIO, digest: Any) -> Iterator[bytes]:
    """Yields the text in pieces that end after ASCII white space; the last one ends a line."""
    since: list[bytes] = []  # the last white space; joined once, however long it gets
    last = b""
    while more := file.read(BLOCK):
        digest.update(more)
        head = more.rstrip(_IN_WORDS)
        if head:
            yield b"".join([*since, head])
            since.clear()
        since.append(more[len(head) :])
        last = more[-1:]
    if last != b"\n":
        yield b"".join([*since, b"\n"])


def _unigram_nll(folder: Path, size: int) -> dict[str, float]:
    """Returns nats per token over tokens 1..N-1 of valid and test, by word frequency in train."""
    import numpy as np

    counts = _counts(folder / "train.npy", size)
    if not counts.all():
        counts += 1
    log_p = np.log(counts) - math.log(counts.sum())
    found = {}
    for split in EVALUATED:
        predicted = _counts(folder / f"{split}.npy", size, skip=1)
        found[split] = float(-(predicted @ log_p) / predicted.sum())
    return found


def _counts(array: Path, size: int, skip: int = 0) -> NDArray[np.int64]:
    """Returns how often each of `size` ids occurs, but for the first `skip` ids of the file.

    In chunks, since bincount makes a wider copy; and read, since mapped pages count as memory.
    """
    import numpy as np

    total = np.zeros(size, dtype=np.int64)
    with array.open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        np.fromfile(file, "<i4", skip)
        while len(ids := np.fromfile(file, "<i4", _CHUNK)):
            total += np.bincount(ids, minlength=size)
    return total
