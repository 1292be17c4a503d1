"""HTS-AT: windows there and back, shifted windows, lengths, times of the head, keys and shapes of checkpoints."""

import math
from dataclasses import replace

import pytest
import torch

from wavelldm.errors import WavelldmError
from wavelldm.nn.layers import count_parameters
from wavelldm.text import htsat
from wavelldm.text.htsat import HTSAT, PUBLISHED, HTSATConfig, back, differences, from_published, our_key, windows

SMALL = HTSATConfig(width=16, heads=(2, 4))
SHAPED = replace(PUBLISHED, width=8, heads=(1, 2, 4, 8))  # of the published shape, narrower


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return HTSAT(SMALL).eval()


def test_windows_go_there_and_back():
    x = torch.arange(2 * 8 * 16 * 3.0).reshape(2, 8, 16, 3)
    y = windows(x, 4)
    assert y.shape == (2 * 8, 16, 3)
    assert torch.equal(y[1, 5], x[0, 1, 5]), "the second window is to the right of the first"
    assert torch.equal(back(y, 4, 8, 16), x)


def test_equal_distances_share_a_bias():
    rows = differences(3)
    assert rows.shape == (9, 9) and rows.min() == 0 and rows.max() == 24
    assert rows[0, 1] == rows[4, 5] == rows[7, 8] and rows[0, 1] != rows[1, 0]


def test_a_token_is_seen_within_its_window_only_until_windows_shift():
    """One block: only the window changes. The next one, shifted, carries it on, but not around the edge."""
    torch.manual_seed(1)
    blocks = [htsat.SwinBlock(8, 2, 16, 8, shift).eval() for shift in (0, 4)]
    x = noise(1, 256, 8)
    changed = x.clone()
    changed[0, 0] = noise(8, seed=3)  # the corner at the top left
    moved = [(block(changed) - block(x)).abs().sum(-1).reshape(16, 16) > 1e-6 for block in blocks]
    assert moved[0][:8, :8].all() and not moved[0][8:].any() and not moved[0][:, 8:].any()
    assert moved[1][:4, :4].all() and not moved[1][4:].any() and not moved[1][:, 4:].any()


@pytest.mark.parametrize("frames", (1, 37, 400, 513, 1100))
def test_sounds_of_any_length(net, frames):
    embedding, curves = net(noise(2, 64, frames) - 5)
    looks = math.ceil(math.ceil(frames / 2) / 256)
    assert embedding.shape == (2, 32) and curves.shape == (2, 17, looks * net.last * net.pieces)


def test_the_picture_lays_piece_under_piece(net):
    x = noise(1, 64, 256)
    picture = net.square(x)
    assert picture.shape == (1, 1, 128, 128)
    plain = net.bn0((htsat.DB * x)[..., None])[..., 0]
    assert torch.equal(picture[0, 0, :64], plain[0, :, :128]) and torch.equal(picture[0, 0, 64:], plain[0, :, 128:])


def test_the_curves_know_when(net):
    """A change in the last eighth of the sound moves the curves there most."""
    x = noise(1, 64, 512) - 5
    changed = x.clone()
    changed[..., 448:] += 4
    moved = (net(changed)[1] - net(x)[1]).abs().mean((0, 1))
    assert moved.argmax() >= len(moved) * 3 // 4


@pytest.mark.parametrize("prefix", ("", "module.audio_branch.", "audio_encoder.base.htsat.", "sed_model."))
def test_published_checkpoints_map_key_by_key(prefix):
    """Synthetic checkpoints with the names that HTS-AT, LAION-CLAP and MS-CLAP 2023 use."""
    torch.manual_seed(2)
    reference = HTSAT(SHAPED).eval()
    tensors = {prefix + k: v for k, v in reference.state_dict().items()}
    tensors[prefix + "spectrogram_extractor.stft.conv_real.weight"] = torch.zeros(3)
    tensors[prefix + "logmel_extractor.melW"] = torch.zeros(3)
    tensors[prefix + "layers.0.blocks.1.attn_mask"] = torch.zeros(3)
    tensors[prefix + "layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(3)
    tensors["caption_encoder.base.wte.weight"] = torch.zeros(3)
    ours = from_published(tensors, SHAPED)
    x = noise(1, 64, 1024)
    with torch.no_grad():
        assert torch.equal(ours(x)[0], reference(x)[0]) and ours(x)[0].shape == (1, 64)


def test_the_published_size():
    """768 numbers, 1024 frames at once, 30 M; the paper counts 31 M, with the filters of its STFT."""
    with torch.device("meta"):
        net = HTSAT(PUBLISHED)
    assert net.width == 768 and net.frames == 1024 and net.rows == 2
    assert net.tscam_conv.weight.shape == (527, 768, 2, 3)
    assert 29.5e6 < count_parameters(net) < 30.5e6


def test_a_checkpoint_of_something_else_is_refused():
    with pytest.raises(WavelldmError, match="has no"):
        from_published({"x": torch.zeros(1)}, SMALL)
    tensors = HTSAT(SMALL).state_dict()
    with pytest.raises(WavelldmError, match="another size"):
        from_published({**tensors, "norm.weight": torch.zeros(5)}, SMALL)
    assert our_key("head.weight") is None and our_key("module.norm.bias") == "norm.bias"


def test_a_picture_that_windows_do_not_divide_is_refused():
    with pytest.raises(WavelldmError, match="change side"):
        HTSAT(replace(SMALL, side=160))
