import math
from dataclasses import replace

import pytest
import torch

from wavelldm.codec import container
from wavelldm.codec.container import Header
from wavelldm.errors import WavelldmError

LEVELS = (8, 8, 8, 6, 5)


def header(frames, channels=1, codebooks=4, **more):
    known = dict(model="tiny", weights="0123456789abcdef", sr=16_000, hop=256, original_sr=16_000, samples=256 * frames)
    return Header(**{**known, **more}, channels=channels, codebooks=codebooks, levels=LEVELS)


def noise(h, seed=0):
    """Codes (C, K, T) without any pattern."""
    shape = h.channels, h.codebooks, h.frames
    return torch.randint(0, 15_360, shape, generator=torch.Generator().manual_seed(seed))


def calm(h, hold=20):
    """Codes that stay for a while, as those of speech do."""
    return noise(h).repeat_interleave(hold, dim=-1)[..., : h.frames]


def write(path, h, codes, force=False):
    return container.write(path, h, codes.split(container.BLOCK_FRAMES, dim=-1), lambda: h.samples, force)


def joined(path):
    h, blocks = container.read(path)
    return h, torch.cat(list(blocks), dim=-1)


@pytest.mark.parametrize("frames", [1, 2, 511, 512, 513, 1_100])
@pytest.mark.parametrize("channels, codebooks", [(1, 4), (1, 1), (2, 3)])
@pytest.mark.parametrize("make", [noise, calm])
def test_codes_go_round_exactly(tmp_path, frames, channels, codebooks, make):
    h = header(frames, channels, codebooks)
    written = write(tmp_path / "a.wll", h, make(h))
    back, codes = joined(tmp_path / "a.wll")
    assert torch.equal(codes, make(h))
    assert back == written == replace(h, size=(tmp_path / "a.wll").stat().st_size)


def test_other_levels_and_rates_go_round(tmp_path):
    h = header(0, original_sr=44_100, samples=100_000, sr=22_050, hop=500, model="größer")
    h = replace(h, levels=(300, 2, 7))
    assert h.frames == 100 and h.length == 50_000 and h.seconds == pytest.approx(100_000 / 44_100)
    codes = torch.arange(400).view(1, 4, 100) * 10
    write(tmp_path / "a.wll", h, codes)
    back, got = joined(tmp_path / "a.wll")
    assert torch.equal(got, codes) and replace(back, size=0) == h


def test_codes_without_a_pattern_cost_what_they_must(tmp_path):
    """log2(15360) = 13.907 bits each; header, block heads and checksums add less than half a percent."""
    h = header(8_192)
    back = write(tmp_path / "a.wll", h, noise(h))
    ideal = 4 * math.log2(15_360) * 62.5
    assert back.plain_bits_per_second == pytest.approx(ideal) == pytest.approx(3_476.7, abs=0.1)
    assert ideal < back.bits_per_second < 1.005 * ideal
    assert back.bits_per_second == 8 * (tmp_path / "a.wll").stat().st_size / (8_192 / 62.5)


def test_codes_with_a_pattern_cost_less_also_after_noise(tmp_path):
    h = header(2_048)
    assert write(tmp_path / "a.wll", h, calm(h)).bits_per_second < 0.5 * h.plain_bits_per_second
    mixed = torch.cat([part for pair in zip(noise(h).split(512, 2), calm(h).split(512, 2)) for part in pair], dim=-1)
    write(tmp_path / "b.wll", header(4_096), mixed)
    assert torch.equal(joined(tmp_path / "b.wll")[1], mixed)


def test_equal_channels_cost_little_more_than_one(tmp_path):
    h = header(1_024)
    one = write(tmp_path / "a.wll", h, calm(h)).size
    two = write(tmp_path / "b.wll", header(1_024, channels=2), calm(h).expand(2, -1, -1)).size
    assert two < 1.5 * one


@pytest.mark.parametrize("make, channels", [(noise, 1), (calm, 1), (calm, 2)])
def test_no_flipped_bit_goes_unseen(tmp_path, make, channels):
    path, h = tmp_path / "a.wll", header(12, channels, 2)
    write(path, h, make(h))
    whole = path.read_bytes()
    for at in range(len(whole)):
        for bit in (0, 7):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            with pytest.raises(WavelldmError):
                joined(path)


def test_a_damaged_block_is_named_and_the_ones_before_are_given(tmp_path):
    path, h = tmp_path / "a.wll", header(1_200)
    size = write(path, h, noise(h)).size
    data = bytearray(path.read_bytes())
    data[size // 2] ^= 1
    path.write_bytes(data)
    _, blocks = container.read(path)
    assert torch.equal(next(blocks), noise(h)[..., :512])
    with pytest.raises(WavelldmError, match=r"block 2 of 3 .* is damaged \(from 8.2 s on\)"):
        next(blocks)


def test_blocks_do_not_change_places(tmp_path):
    path, h = tmp_path / "a.wll", header(1_024)
    size = write(path, h, noise(h)).size
    data, start = path.read_bytes(), len(container.header_bytes(h))
    half = (size - start) // 2
    path.write_bytes(data[:start] + data[start + half :] + data[start : start + half])
    with pytest.raises(WavelldmError, match="block 1 of 2"):
        joined(path)


def test_of_a_truncated_file_the_whole_blocks_are_there(tmp_path):
    path, h = tmp_path / "a.wll", header(1_200, codebooks=1)
    size = write(path, h, noise(h)).size
    whole, start = path.read_bytes(), len(container.header_bytes(h))
    seen = set()
    for cut in [*range(start), *range(start, size, 41), size - 1]:
        path.write_bytes(whole[:cut])
        if cut < start:
            with pytest.raises(WavelldmError, match="not a .wll file" if cut == 0 else "cut short within its header"):
                container.read(path)
            continue
        back, blocks = container.read(path)
        codes = torch.cat([noise(h)[..., :0], *blocks], dim=-1)
        assert torch.equal(codes, noise(h)[..., : codes.shape[-1]]) and codes.shape[-1] < back.frames
        seen.add(codes.shape[-1])
    assert seen == {0, 512, 1_024}


@pytest.mark.parametrize("data", [b"RIFF" + bytes(100), b"x", b"text that goes on for longer than any header does" * 9])
def test_other_files_are_refused(tmp_path, data):
    (tmp_path / "a.wll").write_bytes(data)
    with pytest.raises(WavelldmError, match="not a .wll file"):
        container.read(tmp_path / "a.wll")


def test_missing_folders_newer_versions_and_overwriting(tmp_path):
    with pytest.raises(WavelldmError, match="check the path"):
        container.read(tmp_path / "none.wll")
    with pytest.raises(WavelldmError, match="check the path"):
        container.read(tmp_path)
    path, h = tmp_path / "a.wll", header(3)
    write(path, h, noise(h))
    with pytest.raises(WavelldmError, match="--force"):
        write(path, h, noise(h))
    write(path, h, noise(h, seed=1), force=True)
    assert torch.equal(joined(path)[1], noise(h, seed=1))
    path.write_bytes(path.read_bytes()[:4] + b"\x02" + path.read_bytes()[5:])
    with pytest.raises(WavelldmError, match="update wavelldm"):
        container.read(path)


@pytest.mark.parametrize(
    "codes, words",
    [
        (torch.full((1, 4, 9), -1), "outside 0 to 15359"),
        (torch.full((1, 4, 9), 15_360), "outside 0 to 15359"),
        (torch.zeros(1, 3, 9).long(), "4 codebooks"),
        (torch.zeros(1, 4, 8).long(), "take 9 frames"),
    ],
)
def test_wrong_codes_are_not_written(tmp_path, codes, words):
    with pytest.raises(WavelldmError, match=words):
        write(tmp_path / "a.wll", header(9), codes)
    assert list(tmp_path.iterdir()) == []
