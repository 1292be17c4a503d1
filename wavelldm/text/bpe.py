"""Byte-level byte-pair encoding, as GPT-2 does it: any text becomes tokens, and nothing is ever unknown to it.

Text is first split into words, numbers and signs, each with the space before it. The bytes of each are then joined pair
by pair, in the order in which the pairs were learnt (Sennrich et al., arXiv 1508.07909, section 3.2). The vocabulary
follows from the merges alone: 256 bytes, then one token for each merge, then the end of text. So GPT-2's published
`merges.txt` gives GPT-2's own numbers.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cached_property, lru_cache
from pathlib import Path

from ..errors import WavelldmError

# GPT-2 writes bytes as printable characters: those that are printable as themselves, the others from U+0100 on.
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTES = PRINTABLE + [b for b in range(256) if b not in PRINTABLE]  # byte of each of the first 256 tokens
SIGNS = {b: chr(b) if b in PRINTABLE else chr(256 + i) for i, b in enumerate(BYTES, -len(PRINTABLE))}
FROM_SIGNS = {sign: b for b, sign in SIGNS.items()}

SHORT = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d")
PIECE = re.compile(r" ?L+| ?N+| ?O+|[ s]+(?![^ s])|[ s]+")  # over the classes of characters, see `classes`


def classes(text: str) -> str:
    """One letter for each character: L letter, N number, s white space other than a blank, O anything else."""
    found = []
    for c in text:
        kind = unicodedata.category(c)[0]
        found.append(" " if c == " " else "s" if c.isspace() else kind if kind in "LN" else "O")
    return "".join(found)


def split(text: str) -> list[str]:
    """Words, numbers and signs, each with the one blank before it: "a bell, then" -> "a", " bell", ",", " then"."""
    pieces, kinds, at = [], classes(text), 0
    while at < len(text):
        end = (SHORT.match(text, at) or PIECE.match(kinds, at)).end()
        pieces.append(text[at:end])
        at = end
    return pieces


def join(parts: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    """Every place where the two of `pair` stand side by side becomes one part, from left to right."""
    out, i = [], 0
    while i < len(parts):
        both = tuple(parts[i : i + 2]) == pair
        out.append(parts[i] + parts[i + 1] if both else parts[i])
        i += 1 + both
    return out


def learn(texts: Iterable[str], merges: int) -> "Tokenizer":
    """Join the most frequent pair of neighbours, and again, `merges` times or until every piece is one token."""
    words = Counter(piece for text in texts for piece in split(text))
    parts = {word: [bytes([b]) for b in word.encode()] for word in words}
    pairs: list[tuple[bytes, bytes]] = []
    for _ in range(merges):
        counts: Counter = Counter()
        for word, times in words.items():
            for pair in zip(parts[word], parts[word][1:]):
                counts[pair] += times
        if not counts:
            break
        best = max(counts, key=lambda pair: (counts[pair], pair))
        pairs.append(best)
        parts = {word: join(row, best) for word, row in parts.items()}
    return Tokenizer(pairs)


class Tokenizer:
    """Text to numbers and back, by the merges (pairs of bytes) in their order."""

    def __init__(self, merges: list[tuple[bytes, bytes]]):
        self.merges = merges
        self.ranks = {pair: i for i, pair in enumerate(merges)}
        self.tokens = [bytes([b]) for b in BYTES] + [a + b for a, b in merges]
        self.numbers = {token: i for i, token in enumerate(self.tokens)}
        self.end = len(self.tokens)  # <|endoftext|>
        self.of_piece = lru_cache(4096)(self._of_piece)

    def __len__(self) -> int:
        return self.end + 1

    def _of_piece(self, piece: str) -> tuple[int, ...]:
        parts = [bytes([b]) for b in piece.encode("utf-8", "replace")]
        while len(parts) > 1:
            pair = min(zip(parts, parts[1:]), key=lambda p: self.ranks.get(p, len(self.ranks)))
            if pair not in self.ranks:
                break
            parts = join(parts, pair)
        return tuple(self.numbers[part] for part in parts)

    def encode(self, text: str) -> list[int]:
        return [number for piece in split(text) for number in self.of_piece(piece)]

    def decode(self, numbers: Iterable[int]) -> str:
        return b"".join(self.tokens[i] for i in numbers if i != self.end).decode("utf-8", "replace")

    @cached_property
    def text(self) -> str:
        """The merges as GPT-2's `merges.txt` writes them, without its first line."""
        return "\n".join(" ".join("".join(SIGNS[b] for b in part) for part in pair) for pair in self.merges)

    @classmethod
    def from_text(cls, text: str) -> "Tokenizer":
        """From the lines of a `merges.txt`, `vocab.bpe` or `text`."""
        lines = [line for line in text.split("\n") if line and not line.startswith("#version")]
        try:
            pairs = [tuple(bytes(FROM_SIGNS[c] for c in part) for part in line.split(" ")) for line in lines]
        except KeyError as error:
            raise WavelldmError(f"{error} is not a sign that stands for a byte; give GPT-2's merges.txt") from None
        wrong = next((line for line, pair in zip(lines, pairs) if len(pair) != 2), None)
        if wrong is not None:
            raise WavelldmError(f"'{wrong[:40]}' is not a pair of parts; give GPT-2's merges.txt or vocab.bpe")
        return cls(pairs)

    @classmethod
    def from_file(cls, path: str | Path) -> "Tokenizer":
        try:
            return cls.from_text(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise WavelldmError(f"{path} cannot be read as merges ({type(error).__name__}); check the path") from None
