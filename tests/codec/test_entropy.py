import math

import numpy as np
import pytest

from wavelldm.codec import container
from wavelldm.codec.container import Counts, learn
from wavelldm.light.packets import pack, packed_size, unpack


def test_three_digits_by_hand():
    """Digit 1 holds 1 count of 2 after a 0, 1 of 2 after the first 1, then 3 of 4.

    Last in, first out: 0 -> 1 -> 3 -> 7.
    """
    assert Counts([2]).encode([[1], [1], [1]]) == bytes([7])
    assert Counts([2]).decode(bytes([7]), 3) == [[1], [1], [1]]


@pytest.mark.parametrize("sizes", [[2], [8, 8, 8, 6, 5] * 4, [3, 255, 2]])
@pytest.mark.parametrize("frames", [1, 2, 40])
def test_any_digits_go_round_and_the_counts_go_on_from_block_to_block(sizes, frames):
    rng = np.random.default_rng(frames)
    coder, decoder = Counts(sizes), Counts(sizes)
    for _ in range(3):
        rows, other = (rng.integers(0, sizes, (frames, len(sizes))).tolist() for _ in range(2))
        assert decoder.decode(coder.encode(rows), frames) == rows
        assert decoder.decode(coder.encode(rows, other), frames, other) == rows
    assert coder.tables == decoder.tables


def test_a_chain_costs_its_entropy():
    """A digit that stays with probability 0.9 and else jumps anywhere in 8: 0.91 bits, where counting alone sees 3."""
    rng = np.random.default_rng(0)
    jump, new = rng.random(20_000) > 0.9, rng.integers(0, 8, 20_000)
    digits = [0]
    for j, n in zip(jump[1:], new[1:]):
        digits.append(int(n) if j else digits[-1])
    stay = 0.9 + 0.1 / 8
    rate = -stay * math.log2(stay) - 7 * (0.1 / 8) * math.log2(0.1 / 8)
    bits = 8 * len(Counts([8]).encode([[d] for d in digits]))
    assert rate < bits / 20_000 < 1.04 * rate


def test_the_channel_beside_is_a_context():
    rows = np.random.default_rng(0).integers(0, 8, (2_000, 4)).tolist()
    alone, beside = Counts([8] * 4), Counts([8] * 4)
    assert len(alone.encode(rows)) > 0.99 * 2_000 * 4 * 3 / 8
    assert len(beside.encode(rows, rows)) < 0.2 * len(alone.encode(rows))


def test_counts_forget():
    counts = [1, 1, 1]
    for _ in range(10 * container.MAX_COUNT):
        learn(counts, 0)
    assert container.MAX_COUNT / 2 <= counts[0] <= container.MAX_COUNT and counts[1:] == [1, 1]
    rows = [[0]] * (2 * container.MAX_COUNT) + [[1]] * 300
    coder = Counts([3])
    assert Counts([3]).decode(coder.encode(rows), len(rows)) == rows


def test_bytes_that_encode_never_made_are_refused():
    data = Counts([8] * 4).encode(np.random.default_rng(0).integers(0, 8, (9, 4)).tolist())
    with pytest.raises(ValueError):
        Counts([8] * 4).decode(data + b"\x01", 9)
    with pytest.raises(ValueError):
        unpack(b"\xff" * packed_size(3, 15_360), 3, 15_360)
    with pytest.raises(ValueError):
        unpack(pack([1, 2, 3], 15_360) + b"\0", 3, 15_360)


@pytest.mark.parametrize("base, count", [(2, 9), (15_360, 1), (15_360, 2_048), (2**31, 7), (15_360, 0)])
def test_packing_is_exact_to_the_byte(base, count):
    numbers = [int(n) for n in np.random.default_rng(count).integers(0, base, count)]
    for some in (numbers, [base - 1] * count, [0] * count):
        data = pack(some, base)
        assert unpack(data, count, base) == some
        assert len(data) == math.ceil(count * math.log2(base) / 8 - 1e-9)
    if count > 1:
        assert pack([1, 1] + [0] * (count - 2), base)[:5] == (1 + base).to_bytes(5, "little")[: len(data)]
