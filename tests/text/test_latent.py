"""The latent of sounds: lengths, the range of what is decoded, normalisation there and back."""

import pytest
import torch

from wavelldm.text.latent import SoundVAE, SoundVAEConfig


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)
    return SoundVAE(SoundVAEConfig(size=6, width=32, encoder_depth=1, depth=1)).eval()


@pytest.mark.parametrize("frames", (1, 4, 41, 400))
def test_any_length_goes_in_and_comes_out_in_whole_places(vae, frames):
    mean, spread = vae.encode(torch.randn(2, 64, frames) - 6)
    assert mean.shape == spread.shape == (2, 6, -(-frames // 4))
    log_mel = vae.decode(mean)
    assert log_mel.shape == (2, 64, 4 * mean.shape[-1]) and log_mel.min() >= -11.6


def test_frames_and_bands_keep_their_places():
    """With the networks replaced by nothing, folding and unfolding give back what went in."""
    vae = SoundVAE(SoundVAEConfig(size=256, width=32, encoder_depth=1, depth=1))
    vae.encoder = torch.nn.Conv1d(256, 512, 1)
    vae.decoder = torch.nn.Identity()
    with torch.no_grad():
        vae.encoder.weight.zero_(), vae.encoder.bias.zero_()
        vae.encoder.weight[:256, :, 0] = torch.eye(256)
    x = torch.randn(1, 64, 40).clamp(-1, 1) - 6
    assert torch.allclose(vae.decode(vae.encode(x)[0]), x, atol=1e-5)


def test_normalising_there_and_back(vae):
    vae.middle.copy_(torch.randn(6, 1)), vae.spread.copy_(torch.rand(6, 1) + 0.5)
    z = torch.randn(2, 6, 9)
    assert torch.allclose(vae.denormalise(vae.normalise(z)), z, atol=1e-5)
    assert vae.rate == 25.0
