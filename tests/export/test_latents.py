"""Latent diffusion, filler and latent as graphs: what they give equals what the networks give."""

import json

import numpy as np
import pytest
import torch
from signals import speechlike

from wavelldm import weights
from wavelldm.cli.main import main
from wavelldm.codec.model import Codec, CodecConfig
from wavelldm.diffusion.latent import DiffusionConfig, LatentDiffusion
from wavelldm.diffusion.samplers import FrameNoise
from wavelldm.diffusion.unet import UNetConfig
from wavelldm.errors import WavelldmError
from wavelldm.export import write
from wavelldm.export.latents import DiffusionGraph, FillerGraph
from wavelldm.light.run import run_by_onnx
from wavelldm.restore.filler import Filler, FillerConfig, tell
from wavelldm.restore.gaps import brought_to_length, known_share, straight
from wavelldm.restore.latent import UNIT, SpeechLatent, SpeechLatentConfig, heard_pitch, level, seen


def shaken(net: torch.nn.Module) -> torch.nn.Module:
    """With weights that are not zero anywhere, so that every layer has a say."""
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return net.eval()


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """A codec and its diffusion, a latent and its filler: small ones of one's own, as files."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    small = {"depths": (1,), "dims": (32,), "latent_dim": 32, "expansion": 2, "decoder_dim": 32, "decoder_depth": 1}
    codec = Codec(CodecConfig(**small, pitch_input=True, decoder="pulse"))
    weights.save(folder / "codec", codec, licence="CC0")
    codec = weights.load(folder / "codec.safetensors", Codec)
    unet = UNetConfig(dims=(16, 16), embedding=16, cond_dim=8, heads=2, window=8)
    diffusion = shaken(LatentDiffusion(DiffusionConfig(latent_dim=32, unet=unet)))
    weights.save(folder / "diffusion", diffusion, needs={"codec": codec}, licence="CC0")
    latent = shaken(SpeechLatent(SpeechLatentConfig(size=8, encoder_width=16, width=16, depth=1)))
    weights.save(folder / "latent", latent, licence="CC0")
    latent = weights.load(folder / "latent.safetensors", SpeechLatent)
    filler = shaken(Filler(FillerConfig(size=8, width=16, dilations=(1, 0), heads=2)))
    filler.out.bias.data[-1] = -9  # no voice: near harmonics, rounding of the pitch counts for much
    weights.save(folder / "filler", filler, needs={"latent": latent}, licence="CC0")
    return folder


def sound(n: int) -> torch.Tensor:
    return torch.from_numpy(speechlike(2.0)[:n]).float()[None]


@torch.no_grad()
@pytest.mark.parametrize("n", [600, 10_000, 10_240])
@pytest.mark.parametrize("path", ["noise", "bridge"])
def test_one_step_of_a_diffusion_is_that_of_its_sampler(networks, n, path):
    codec = weights.load(networks / "codec.safetensors", Codec)
    unet = UNetConfig(dims=(16, 16), embedding=16, cond_dim=8, heads=2, window=8)
    net, wav = shaken(LatentDiffusion(DiffusionConfig(latent_dim=32, unet=unet, path=path))), sound(n)
    noisy = codec.encode(wav[None], 16_000)
    z = net.sample(noisy, noise=FrameNoise())
    cleaned, mine = DiffusionGraph(codec, net)(wav, FrameNoise()(noisy))
    assert mine.shape == z.shape and (mine - z).abs().max() < 1e-4
    theirs = codec.decode(z, n)[0]
    assert cleaned.shape == wav.shape and (cleaned - theirs).square().sum() < 1e-4 * theirs.square().sum()


@torch.no_grad()
def test_what_fills_a_gap_is_what_the_filler_expects(networks):
    latent = weights.load(networks / "latent.safetensors", SpeechLatent)
    filler = weights.load(networks / "filler.safetensors", Filler)
    wav = sound(20_000)
    gaps = torch.zeros_like(wav, dtype=torch.bool)
    gaps[:, 8_000:11_000] = True
    wav = torch.where(gaps, 0.0, wav) * level(wav, ~gaps)
    told, share = tell(latent, wav, gaps, heard_pitch(wav)), known_share(gaps)
    theirs = latent.decode(*filler.sample(told, noise=FrameNoise()))
    lines, heard = straight(wav, gaps) / UNIT, brought_to_length(seen(wav), share)
    mine = FillerGraph(latent, filler)(heard, lines, share, told.line, FrameNoise()(told.z))[0]
    assert (mine - theirs).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("name", "more", "form"),
    [
        ("diffusion", [], "diffusion"),
        ("filler", [], "filler"),
        ("latent", ["--part", "decoder"], "latent decoder"),
    ],
)
def test_files_are_checked_and_say_what_they_are(networks, tmp_path, name, more, form, capsys, monkeypatch):
    monkeypatch.setattr(write, "NEAR", -30.0)  # an untrained decoder turns rounding into other pitches: -36 to -43 dB
    path, target = networks / f"{name}.safetensors", tmp_path / "a.onnx"
    assert main(["export", str(path), "-o", str(target), "--json", *more]) == 0
    assert json.loads(capsys.readouterr().out)["difference"] < 1e-4
    session = run_by_onnx(target)
    facts = json.loads(session.get_modelmeta().custom_metadata_map["wavelldm"])
    assert (facts["name"], facts["form"], facts["sr"], facts["hop"]) == (name, form, 16_000, 256)
    assert facts["licence"] == "CC0" and facts["hash"] == weights.about(path)["hash"]
    shapes = {put.name: put.shape for put in session.get_inputs()}
    for frames in (5, 40):  # any length
        inputs = {k: [frames if isinstance(n, str) else n for n in shape] for k, shape in shapes.items()}
        if "wav" in inputs:
            inputs["wav"] = [1, 256 * frames - 7]
        found = session.run(None, {k: np.full(shape, 0.5, np.float32) for k, shape in inputs.items()})
        assert all(np.isfinite(x).all() for x in found) and found[-1].shape[-1] == frames


def test_a_graph_that_differs_is_not_written(networks, tmp_path, monkeypatch):
    def spoil(model):
        from onnx import numpy_helper

        tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.5, tensor.name))

    monkeypatch.setattr(write, "compact", spoil)
    with pytest.raises(WavelldmError, match="differs from the latent encoder by"):
        write.export_latents(networks / "latent.safetensors", tmp_path / "a.onnx", "encoder")
    assert list(tmp_path.iterdir()) == []


def test_words_that_do_not_fit_get_a_sentence(capsys):
    for words, message in (
        (["voice16k-diffusion", "--streaming"], "leave --streaming out"),
        (["restore16k-filler", "--int8"], "leave --int8 out"),
        (["restore16k-latent"], "--part encoder or --part decoder"),
        (["restore16k-filler", "--part", "encoder"], "leave it out for restore16k-filler"),
    ):
        assert main(["export", *words]) == 1 and message in capsys.readouterr().err
