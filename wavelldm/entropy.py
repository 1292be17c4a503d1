"""Entropy coding of FSQ digits: what often follows gets fewer bits. Exact integers throughout, so every machine agrees.

The model counts, while it goes, which digit followed which: a digit's context is the same digit one frame earlier and,
from the second channel on, the same digit of the channel before. Nothing has to be shipped: the decoder counts alike.
The coder is an asymmetric numeral system (Duda, arXiv 1311.2540, section 3) whose state is one Python integer: with
equal counts it is the mixed radix `state * L + digit`, and with unequal ones digit s takes log2(total / count[s]) bits.
"""

STEP = 2  # what one occurrence adds; every digit starts at 1 (the estimator of Krichevsky and Trofimov, 1981)
LIMIT = 1 << 10  # a context's counts are halved when one passes this, so that old habits fade


class Counts:
    """The adaptive model of one channel: `sizes` are the levels of its digits, one for each place in a frame."""

    def __init__(self, sizes):
        self.sizes = list(sizes)
        self.tables = {}  # (place, digit before, digit beside) -> counts
        self.before = self.alone = [0] * len(self.sizes)

    def _row(self, beside):
        """The counts for every place of the next frame."""
        keys = zip(range(len(self.sizes)), self.before, beside)
        return [self.tables.get(k) or self.tables.setdefault(k, [1] * self.sizes[k[0]]) for k in keys]

    def encode(self, rows: list, beside: list | None = None) -> bytes:
        """Frames of digits -> bytes. `beside`: the frames of the channel before, if there is one."""
        steps = []
        for row, other in zip(rows, beside or [self.alone] * len(rows)):
            for counts, digit in zip(self._row(other), row):
                steps.append((sum(counts[:digit]), counts[digit], sum(counts)))
                learn(counts, digit)
            self.before = row
        state = 0
        for start, count, total in reversed(steps):  # last in, first out
            whole, rest = divmod(state, count)
            state = whole * total + start + rest
        return state.to_bytes((state.bit_length() + 7) // 8, "little")

    def decode(self, data: bytes, frames: int, beside: list | None = None) -> list:
        """The inverse: `frames` rows of digits. Raises ValueError if the bytes cannot be what `encode` made."""
        state, rows = int.from_bytes(data, "little"), []
        for other in beside or [self.alone] * frames:
            row = []
            for counts in self._row(other):
                state, rest = divmod(state, sum(counts))
                digit = 0
                while rest >= counts[digit]:
                    rest -= counts[digit]
                    digit += 1
                state = state * counts[digit] + rest
                learn(counts, digit)
                row.append(digit)
            self.before = row
            rows.append(row)
        if state:
            raise ValueError("bits are left over")
        return rows


def learn(counts: list, digit: int) -> None:
    counts[digit] += STEP
    if counts[digit] > LIMIT:
        counts[:] = [(c + 1) // 2 for c in counts]


def pack(numbers: list, base: int) -> bytes:
    """Whole numbers below `base` -> bytes, as the digits of one large number: log2(base) bits each, rounded up."""
    state = 0
    for number in reversed(numbers):
        state = state * base + number
    return state.to_bytes(packed_size(len(numbers), base), "little")


def unpack(data: bytes, count: int, base: int) -> list:
    """The inverse of `pack`. Raises ValueError if the bytes hold anything else."""
    state, numbers = int.from_bytes(data, "little"), []
    for _ in range(count):
        state, number = divmod(state, base)
        numbers.append(number)
    if state or len(data) != packed_size(count, base):
        raise ValueError("bits are left over")
    return numbers


def packed_size(count: int, base: int) -> int:
    return ((base**count - 1).bit_length() + 7) // 8  # bytes
