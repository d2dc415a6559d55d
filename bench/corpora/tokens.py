"""From text to arrays of word ids: one id per word, and one `<eos>` per line, blank ones included.

Words are split on white space and lines on `\\n` alone; a last line needs no end. The text passes
in blocks, so memory holds the vocabulary and one block, whatever its size.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from bench import synthetic
from bench.corpora.sources import SPLITS
from bench.corpora.spelling import SYNTHETIC, parse, synthetic_options
from bench.corpora.texts import BLOCK, combined, text_paths, unreadable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EOS, UNK = "<eos>", "<unk>"
EVALUATED = ("valid", "test")
FORMAT = 1  # of the folder that `build` fills; another number makes older ones invisible
_CHUNK = 2**22  # ids counted at a time

Ids = defaultdict[str, int]  # gives a word it has not seen the next number


def build(spelling: str, data_dir: Path, folder: Path) -> str:
    """Fills `folder` with the arrays of a corpus; returns the hash of the text that was read.

    `train.npy`, `valid.npy`, `test.npy`: int32 [N]. `vocab.txt`: the word of each id, a line each.
    `valid-nll.npy`, `test-nll.npy`: float64 [N], of a corpus whose source is known. `meta.json`,
    written last: lengths, unigram nll, words that train lacks. Raises BadInput, OSError.
    """
    import numpy as np

    ids: Ids = defaultdict(count().__next__)
    hashes: dict[str, str] = {}
    oov: dict[str, tuple[int, int]] = {}
    for split, file, nll in _open_texts(spelling, data_dir):
        if split not in EVALUATED:
            hashes[split], _ = _encode(file, folder / f"{split}.npy", ids)
            continue
        known = len(ids)
        seen: Ids = defaultdict(count(known).__next__, ids)
        unk = ids.get(UNK, known)
        hashes[split], replaced = _encode(file, folder / f"{split}.npy", seen, known, unk)
        oov[split] = len(seen) - known, replaced
        if nll is not None:
            np.save(folder / f"{split}-nll.npy", nll)
    if any(tokens for _, tokens in oov.values()):
        ids[UNK]  # gets the next number, unless it has one
    (folder / "vocab.txt").write_bytes("".join(f"{word}\n" for word in ids).encode())
    arrays = {file.stem: np.load(file, mmap_mode="r") for file in sorted(folder.glob("*.npy"))}
    meta = {
        "vocab": len(ids),
        "lengths": {name: len(array) for name, array in arrays.items()},
        "unigram_nll": _unigram_nll(arrays, len(ids)),
        "oov": oov,
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
    return combined(hashes)


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
    file: BinaryIO, out: Path, ids: Ids, known: int | None = None, unk: int = 0
) -> tuple[str, int]:
    """Writes the ids of a text to an .npy file and returns its SHA-256.

    Words that are new get the next number in `ids`; numbers from `known` on are written as `unk`,
    and how many tokens those were is returned as well.
    """
    import numpy as np

    digest = hashlib.sha256()
    length = replaced = 0
    with out.open("wb") as array:
        _write_header(array, 0)  # room for the length, which is known at the end
        start = array.tell()
        for text in _blocks(file, digest):
            words = text.replace("\n", f" {EOS} ").split()
            block = np.fromiter(map(ids.__getitem__, words), np.dtype("<i4"), len(words))
            if known is not None:
                new = block >= known
                replaced += int(new.sum())
                block[new] = unk
            length += len(block)
            array.write(block.tobytes())
        array.seek(0)
        _write_header(array, length)
        assert array.tell() == start, "numpy changed the padding of .npy headers"
    return digest.hexdigest(), replaced


def _write_header(file: BinaryIO, length: int) -> None:
    import numpy as np

    header = {"descr": "<i4", "fortran_order": False, "shape": (length,)}
    np.lib.format.write_array_header_1_0(file, header)


def _blocks(file: BinaryIO, digest: Any) -> Iterator[str]:
    """Yields the text in pieces that end between words; the last one ends a line."""
    rest = block = b""
    while more := file.read(BLOCK):
        digest.update(more)
        block = rest + more
        cut = max(block.rfind(b"\n"), block.rfind(b" ")) + 1
        # The text was checked to be UTF-8; if it changed since, its hash tells.
        yield block[:cut].decode(errors="replace")
        rest = block[cut:]
    if not block.endswith(b"\n"):
        yield rest.decode(errors="replace") + "\n"


def _unigram_nll(arrays: dict[str, NDArray[Any]], size: int) -> dict[str, float]:
    """Returns nats per token over tokens 1..N-1 of valid and test, by word frequency in train."""
    import numpy as np

    counts = _counts(arrays["train"], size)
    if not counts.all():
        counts += 1
    log_p = np.log(counts) - math.log(counts.sum())
    return {
        split: float(-(_counts(arrays[split][1:], size) @ log_p) / (len(arrays[split]) - 1))
        for split in EVALUATED
    }


def _counts(ids: NDArray[np.int32], size: int) -> NDArray[np.int64]:
    """Returns how often each of `size` ids occurs; in chunks, since bincount makes a wider copy."""
    import numpy as np

    total = np.zeros(size, dtype=np.int64)
    for start in range(0, len(ids), _CHUNK):
        total += np.bincount(ids[start : start + _CHUNK], minlength=size)
    return total
