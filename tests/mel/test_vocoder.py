import pytest
import torch
from reference import torchaudio  # noqa: F401  (transformers imports it)
from signals import speechlike
from torch.nn.utils.parametrizations import weight_norm
from transformers import SpeechT5FeatureExtractor, SpeechT5HifiGan, SpeechT5HifiGanConfig

from wavelldm.audio.mel import MELS, LogMel, griffin_lim, mel_to_magnitude
from wavelldm.errors import WavelldmError
from wavelldm.mel import vocoder
from wavelldm.training.presets import preset

SHAPE = {"model_in_dim": 64, "upsample_rates": [5, 4, 2, 2, 2], "upsample_kernel_sizes": [16, 16, 8, 4, 4]}


def theirs(initial=64, seed=0, **changes):
    torch.manual_seed(seed)
    model = SpeechT5HifiGan(
        SpeechT5HifiGanConfig(**{**SHAPE, "upsample_initial_channel": initial, "initializer_range": 0.1, **changes})
    )
    with torch.no_grad():
        model.mean.normal_()
        model.scale.uniform_(0.5, 2.0)
    return model.eval()


@pytest.mark.parametrize("normalise", [False, True])
@torch.no_grad()
def test_equals_transformers(normalise):
    reference = theirs(normalize_before=normalise, leaky_relu_slope=0.2)
    ours = vocoder.from_transformers(reference.config, reference.state_dict())
    mel = torch.randn(2, 64, 13)
    wav, wanted = ours(mel), reference(mel.transpose(1, 2))[:, None]
    assert wav.shape == wanted.shape and wav.shape[-1] == 13 * 160 + 32  # the sample too many, times the rates after it
    assert wanted.std() > 1e-3 and (wav - wanted).abs().max() < 1e-6


@pytest.mark.parametrize("shape", [SHAPE | {"upsample_initial_channel": 1024}, {}])
def test_every_key_has_one_of_ours(shape):
    with torch.device("meta"):
        reference = SpeechT5HifiGan(SpeechT5HifiGanConfig(**shape))
        c = reference.config
        args = c.model_in_dim, c.upsample_initial_channel, c.upsample_rates, c.upsample_kernel_sizes
        ours = vocoder.HiFiGANVocoder(*args).state_dict()
    mapped = {vocoder.our_key(name, 3): value.shape for name, value in reference.state_dict().items()}
    assert len(mapped) == len(reference.state_dict())
    assert mapped == {name: value.shape for name, value in ours.items()}


@torch.no_grad()
def test_weight_norm_folds():
    reference = theirs(32)
    mel = torch.randn(1, 64, 5)
    wanted = vocoder.from_transformers(reference.config, reference.state_dict())(mel)
    reference.apply_weight_norm()
    normed = reference.state_dict()
    assert any("original0" in name for name in normed)
    old = {
        n.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): v
        for n, v in normed.items()
    }
    for weights in (normed, old):
        assert (vocoder.from_transformers(reference.config, weights)(mel) - wanted).abs().max() < 1e-5
    layer = weight_norm(torch.nn.ConvTranspose1d(3, 5, 4))
    layer.parametrizations.weight.original0.mul_(1.7)
    assert (vocoder.folded(layer.state_dict())["weight"] - layer.weight).abs().max() < 1e-6


@pytest.mark.parametrize("inside", ["", "vocoder"])
def test_a_published_folder_is_loaded(tmp_path, inside):
    reference = theirs(32)
    reference.save_pretrained(tmp_path / inside)
    ours, config = vocoder.load_hifigan(str(tmp_path))
    assert config == MELS["audioldm2"]
    mel = torch.randn(1, 64, 6)
    with torch.no_grad():
        assert (ours(mel) - reference(mel.transpose(1, 2))[:, None]).abs().max() < 1e-6
    assert vocoder.speak(ours, mel, config, 801).shape == (1, 1, 801)
    with pytest.raises(WavelldmError, match="SpeechT5HifiGan"):
        vocoder.load_hifigan(str(tmp_path / "nothing"))
    theirs(32, model_in_dim=20).save_pretrained(tmp_path / "odd")
    with pytest.raises(WavelldmError, match="20 bands"):
        vocoder.load_hifigan(str(tmp_path / "odd"))


def test_speecht5s_front_end_is_known():
    wav = torch.from_numpy(speechlike(1.0)).float()
    wanted = torch.as_tensor(
        SpeechT5FeatureExtractor()(audio_target=wav.numpy(), sampling_rate=16_000, return_tensors="pt")["input_values"]
    )
    ours = LogMel(MELS["speecht5"])(wav[None, None], 16_000) / torch.log(torch.tensor(10.0))  # (1, 80, F)
    loud = wanted.transpose(1, 2) > -4
    assert ours.shape == wanted.transpose(1, 2).shape and loud.float().mean() > 0.5
    assert (ours - wanted.transpose(1, 2))[loud].abs().max() < 2e-2
    heard = []
    vocoder.speak(
        lambda mel: heard.append(mel) or torch.zeros(1, 1, 9), torch.full((1, 80, 2), 2.302585), MELS["speecht5"], 9
    )
    assert heard[0][0, 0, 0].item() == pytest.approx(1.0)


def test_our_vocoder_begins_as_griffin_lim_and_learns():
    p = preset("tiny")
    torch.manual_seed(0)
    net = vocoder.Vocoder(p.vocoder)
    wav = torch.stack([torch.from_numpy(speechlike(0.6, seed=s)).float()[None] for s in range(2)])
    mel = net.mel(wav, 16_000)
    with torch.no_grad():
        start = mel_to_magnitude(mel, p.codec.mel, vocoder.START)
        assert (net(mel, 9_599) - griffin_lim(start, p.codec.mel, p.vocoder.rounds, length=9_599)).abs().max() < 1e-3
    before = {k: float(v.detach()) for k, v in net.distances(wav).items()}
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        net.distances(wav)["bins"].backward()
        optimiser.step()
    after = {k: float(v.detach()) for k, v in net.distances(wav).items()}
    assert after["bins"] < 0.9 * before["bins"] and after["bands"] < 0.3, (before, after)
    with torch.no_grad():
        assert net(mel, 9_599).shape == (2, 1, 9_599)
