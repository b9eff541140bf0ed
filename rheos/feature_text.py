"""Text as numbers: words and their hashed n-grams of characters, or a language model's vectors."""

import re
import unicodedata
import zlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from rheos.state import Float32s

MOST_CHARACTERS = 1024
MOST_WORDS = 128
MOST_WORD = 32
"""What is read of a text: its beginning, so many words of it, so many characters of each."""
SHORTEST_GRAM, LONGEST_GRAM = 3, 5
MODEL_DIMENSIONS = 64
"""Of the model's 256 numbers: it was trained so that the first ones say the most."""

_WORD = re.compile(r"\w+")


def folded(text: str) -> str:
    """A text without differences that say nothing: Unicode forms, case, white space.

    A lone surrogate, which neither UTF-8 nor a manifest can hold, becomes a question mark.
    """
    whole = text[:MOST_CHARACTERS].encode(errors="replace").decode()
    normal = unicodedata.normalize("NFKC", whole)
    return " ".join(normal.casefold().split())


def words(text: str) -> list[str]:
    return [word[:MOST_WORD] for word in _WORD.findall(folded(text))[:MOST_WORDS]]


@lru_cache(1 << 16)
def grams(word: str, buckets: int) -> tuple[int, ...]:
    """The buckets of a folded word and of its n-grams, as Bojanowski et al. 2017 take them: <word>.

    CRC-32 gives the same numbers in every process and version, unlike Python's own hash.
    """
    padded = f"<{word}>"
    parts = {padded} | {
        padded[start : start + size]
        for size in range(SHORTEST_GRAM, LONGEST_GRAM + 1)
        for start in range(len(padded) - size + 1)
    }
    return tuple(bucket(part, buckets) for part in sorted(parts))


def bucket(text: str, buckets: int) -> int:
    return zlib.crc32(text.encode()) % buckets


class LanguageModel:
    """Static word piece vectors of the package ``wordllama`` (extra ``text``), English.

    Its files are read directly: its own loader wants a hub on the network.
    """

    def __init__(self) -> None:
        """Raises ValueError where the package is not installed."""
        found = find_spec("wordllama")
        if found is None or not found.submodule_search_locations:
            raise ValueError("vectors = 'wordllama' needs the extra rheos[text]")
        from tokenizers import Tokenizer

        folder = Path(found.submodule_search_locations[0])
        tokenizer_file = folder / "tokenizers" / "l2_supercat_tokenizer_config.json"
        self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self._tokenizer.no_padding()
        table = load_file(folder / "weights" / "l2_supercat_256.safetensors")["embedding.weight"]
        self._table = table[:, :MODEL_DIMENSIONS].astype(np.float32)

    def vector(self, text: str) -> Float32s:
        """A text's mean piece (MODEL_DIMENSIONS,), of length 1; zeros for a text of none."""
        encoded = self._tokenizer.encode(folded(text), add_special_tokens=False)
        if not encoded.ids:
            return np.zeros(MODEL_DIMENSIONS, np.float32)
        mean: Float32s = self._table[encoded.ids].mean(axis=0)
        return mean / max(float(np.linalg.norm(mean)), 1e-12)


@lru_cache(1)
def language_model() -> LanguageModel:
    """The one model of this process: it takes 8 MB."""
    return LanguageModel()
