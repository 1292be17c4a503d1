import pytest
import reference  # noqa: F401  (first: diffusers imports transformers, and that torchaudio)
import torch
from diffusers import AutoencoderKL

from wavelldm.config import override
from wavelldm.errors import WavelldmError
from wavelldm.mel import vae
from wavelldm.training.presets import PRESETS, preset

FULL = {"block_out_channels": (128, 256, 512), "layers_per_block": 2, "norm_num_groups": 32, "scaling_factor": 0.4109}


def theirs(**changes) -> AutoencoderKL:
    shape = {"block_out_channels": (8, 16, 32), "layers_per_block": 2, "norm_num_groups": 4} | changes
    levels = len(shape["block_out_channels"])
    torch.manual_seed(0)
    return AutoencoderKL(
        in_channels=1, out_channels=1, latent_channels=8, down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels, **shape,
    ).eval()  # fmt: skip


@pytest.mark.parametrize("layers", [1, 2])
@torch.no_grad()
def test_equals_diffusers(layers):
    wanted_model = theirs(layers_per_block=layers)
    ours = vae.from_diffusers(wanted_model.config, wanted_model.state_dict())
    mel = torch.randn(2, 64, 24)
    mean, logvar = ours.encode(mel)
    wanted = wanted_model.encode(mel.transpose(1, 2)[:, None]).latent_dist
    assert mean.shape == (2, 8, 6, 16)  # 24 frames and 64 bands, both by 4
    assert (mean - wanted.mean).abs().max() < 1e-5 and (logvar - wanted.logvar).abs().max() < 1e-5
    assert abs(float(vae.kl(mean, logvar)) - float(wanted.kl().mean()) / mean[0].numel()) < 1e-4
    decoded = wanted_model.decode(wanted.mean).sample[:, 0].transpose(1, 2)
    assert decoded.std() > 1e-3 and (ours.decode(mean) - decoded).abs().max() < 1e-5


def test_the_full_shapes_keys_map_one_to_one():
    with torch.device("meta"):
        wanted_model = theirs(**FULL)
        model = vae.MelVAE(override(PRESETS["ladder"].vae, ["widths=128,256,512", "depth=2", "groups=32"]))
    mapped = {vae.our_key(name): value.shape for name, value in wanted_model.state_dict().items()}
    assert len(mapped) == len(wanted_model.state_dict()) == 204
    assert mapped == {name: value.shape for name, value in model.state_dict().items()}


@pytest.mark.parametrize("inside", ["", "vae"])
def test_a_published_folder_is_loaded(tmp_path, inside):
    wanted_model = theirs()
    wanted_model.save_pretrained(tmp_path / inside)
    ours = vae.load_published(str(tmp_path))
    mel = torch.randn(1, 64, 8)
    with torch.no_grad():
        assert (
            ours.encode(mel)[0] - wanted_model.encode(mel.transpose(1, 2)[:, None]).latent_dist.mean
        ).abs().max() < 1e-5
    with pytest.raises(WavelldmError, match="AutoencoderKL"):
        vae.load_published(str(tmp_path / "nothing"))


def test_kl_and_reparameterisation_by_hand():
    mean, logvar = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.6931472]])  # N(1, 1) and N(0, 2)
    assert float(vae.kl(mean, logvar)) == pytest.approx((0.5 + 0.5 * (2 - 1 - 0.6931472)) / 2)
    assert float(vae.kl(torch.zeros(3), torch.zeros(3))) == 0
    many = vae.reparameterise(
        torch.full((100_000,), 3.0), torch.full((100_000,), 1.3862944), torch.Generator().manual_seed(0)
    )
    assert float(many.mean()) == pytest.approx(3, abs=0.03) and float(many.std()) == pytest.approx(2, abs=0.03)
    spread = torch.tensor([0.5], requires_grad=True)
    vae.reparameterise(torch.zeros(1), spread, torch.Generator().manual_seed(1)).backward()
    assert spread.grad.abs() > 0


@pytest.mark.parametrize("name", ["ladder", "ladder-wide", "ladder-words", "tiny"])
def test_shapes_of_our_presets(name):
    model = vae.MelVAE(preset(name).vae)
    m, c = model.config.mel, model.config
    mel = torch.randn(2, m.n_mels, 21) - 5
    mean, logvar = model.encode(mel)
    assert mean.shape == logvar.shape == (2, c.latent, 6, m.n_mels // 4)
    assert model(mel).shape == mel.shape
    per_second = mean.shape[1] * mean.shape[3] * m.sr / m.hop / 4
    assert model.floats_per_second == per_second
    loss = model(mel).square().mean() + vae.kl(mean, logvar)
    loss.backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if not n.startswith("words"))


def test_shortcuts_pass_numbers_on():
    p = override(preset("ladder-wide"), ["vae.attention=true"])
    down, up = vae.Down(8, True), vae.Up(8, True)
    for layer in (down, up):
        torch.nn.init.zeros_(layer.conv.weight)
        torch.nn.init.zeros_(layer.conv.bias)
    x = torch.randn(1, 8, 4, 6)
    assert torch.allclose(down(x)[0, 3, 1, 2], x[0, 3, 2:4, 4:6].mean())
    assert torch.equal(up(x)[0, 0, 2:4, 4:6].flatten(), x[0, :4, 1, 2]) and torch.equal(up(x)[0, 0], up(x)[0, 3])
    model = vae.MelVAE(p.vae)
    assert p.vae.latent == 16 and "attention" in model.encoder.levels[1] and "attention" in model.decoder.levels[1]
    assert model(torch.randn(1, 64, 9)).shape == (1, 64, 9)


def test_words_are_side_information():
    model = vae.MelVAE(preset("ladder-words").vae).eval()
    z = torch.randn(3, 1, 2, 16)
    with torch.no_grad():
        assert torch.equal(model.decode(z), model.decode(z, texts=["a man", "speech", ""]))  # the table begins at zero
        torch.nn.init.normal_(model.words.weight)
        silent, told = model.decode(z), model.decode(z, texts=["Low voice, male", "rain", ""])
        again = model.decode(z, texts=["male low voice", "rain", ""])
    assert (told - silent)[:2].abs().amax((1, 2)).min() > 1e-3
    assert torch.allclose(told[2], silent[2], atol=1e-6)  # nothing said, nothing added
    assert torch.allclose(told, again, atol=1e-5)  # a bag: the order of the words does not count
    entries, starts = vae.words_to_entries(["low male", "", "male"], 1024)
    assert starts.tolist() == [0, 2, 2] and entries[1] == entries[2] and len(entries) == 3
    with pytest.raises(WavelldmError, match="words=1024"):
        vae.MelVAE(preset("tiny").vae).decode(torch.randn(1, 8, 1, 25), texts=["x"])


def test_numbers_that_do_not_fit_are_named():
    with pytest.raises(WavelldmError, match="change mel.n_mels, widths or groups"):
        vae.MelVAE(override(preset("tiny"), ["vae.groups=5"]).vae)
    with pytest.raises(WavelldmError, match="multiple of 4"):
        vae.MelVAE(override(preset("tiny"), ["vae.mel.n_mels=66"]).vae)
