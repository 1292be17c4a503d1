"""`wavelldm train`: from folders to a cleaned file; options that a network does not use are refused."""

import json
from dataclasses import fields

import pytest
import torch

from wavelldm import weights
from wavelldm.audio import files
from wavelldm.codec.model import Codec
from wavelldm.denoise.mask import MaskNet
from wavelldm.diffusion.latent import LatentDiffusion
from wavelldm.training import NETWORKS, task_of
from wavelldm.training.presets import PRESETS, preset
from wavelldm.training.recipes import RECIPES

SR = 16_000


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project's folder with clean/ and noisy/ recordings, where runs/ is made."""
    monkeypatch.setenv("WAVELLDM_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    t = torch.arange(24_000) / SR
    for i in range(12):
        clean = 0.1 * sum(torch.sin(2 * torch.pi * k * (100 + 9 * i) * t) / k for k in range(1, 8))[None]
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(i))
        files.save(tmp_path / "clean" / f"{i}.wav", clean, SR)
        files.save(tmp_path / "noisy" / f"{i}.wav", clean + 0.02 * noise, SR)
    return tmp_path


PAIRS = "--clean_data_path clean --noisy_data_path noisy".split()
FEW = "--batch_size 4 --lr 2e-5 --use_scheduler --num_workers 0 --steps 2".split()


def test_the_way_that_the_manual_recommends_ends_in_a_cleaned_file(project, cli):
    """Codec, diffusion over its latents, a mask network that the diffusion guides; each cleans a file by its path
    alone."""
    for network, more in (
        ("codec", "--preset tiny --seconds 0.5 --add_random_cutting"),
        ("diffusion", "--preset tiny --codec runs/codec/tiny --hours 0.01 --add_random_cutting"),
        ("mask", "--preset tiny --seconds 0.5 --diffusion runs/diffusion/tiny-diffusion"),
    ):
        code, out, err = cli("train", network, *PAIRS, *FEW, *more.split(), "--json")
        assert code == 0, err
        assert json.loads(out)["step"] == 2
    assert weights.load("runs/diffusion/tiny-diffusion", LatentDiffusion).deviation.min() > 0
    assert weights.load("runs/mask/tiny-mask", MaskNet).config.latent_dim == preset("tiny").codec.latent_dim
    needs = weights.about("runs/mask/tiny-mask")["needs"]
    assert {role: need["name"] for role, need in needs.items()} == {"codec": "tiny", "diffusion": "tiny-diffusion"}
    for k, model in enumerate(("runs/diffusion/tiny-diffusion", "runs/mask/tiny-mask.safetensors")):
        code, _, err = cli("denoise", "noisy/1.wav", "--model", model, "-o", f"cleaned{k}.wav")
        assert code == 0, err
        assert files.info(project / f"cleaned{k}.wav") == files.info(project / "noisy/1.wav")
    wrong = "--preset tiny --start runs/mask/tiny-mask -o runs/other"
    code, _, err = cli("train", "mask", *PAIRS, *FEW, *wrong.split())
    assert code == 1 and "guided by a latent" in err


def test_sizes_follow_the_latent_without_a_preset(project, cli):
    """A codec of 48 channels and no --preset: networks of the default preset, for 48 channels."""
    torch.manual_seed(0)
    codec = weights.load(weights.save("small", Codec(preset("tiny").codec)), Codec)
    small = ["--set", "unet.dims=16", "unet.heads=1", "unet.embedding=16", "unet.cond_dim=8"]
    code, _, err = cli("train", "diffusion", *PAIRS, *FEW, "--codec", "small", "--hours", "0.01", *small)
    assert code == 0, err
    diffusion = weights.load("runs/diffusion/voice16k-diffusion", LatentDiffusion)
    assert diffusion.config.latent_dim == codec.config.latent_dim == 48
    guided = ["--diffusion", "runs/diffusion/voice16k-diffusion", "--codec", "small", "--seconds", "0.5"]
    code, _, err = cli("train", "mask", *PAIRS, *FEW, *guided, "--set", "width=16", "blocks=1")
    assert code == 0, err
    code, _, err = cli("train", "diffusion", *PAIRS, *FEW, "--codec", "small", "--set", "latent_dim=8")
    assert code == 1 and "48 channels and the diffusion is set to 8" in err
    code, _, err = cli("train", "mask", *PAIRS, *FEW, "--codec", "small")
    assert code == 1 and "give --diffusion too" in err


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_has_its_manual_and_its_sizes(network, cli):
    code, page, _ = cli("train", network, "--help")
    assert code == 0 and all(len(line) < 115 for line in page.splitlines())
    task = task_of(network)
    assert task.network == network and task.preset in PRESETS and "shipped" in RECIPES[network]
    assert all(f"--{field.name}" in page for field in fields(task.Options))
    assert isinstance(getattr(preset("tiny"), network), task.Network.Config)
    mission = (
        "--clean_data_path --batch_size --lr --use_scheduler --epochs --steps --num_workers --preset --set --manifest"
    )
    assert all(word in page for word in mission.split())
    assert ("--noisy_data_path" in page) == task.uses_noise


@pytest.mark.parametrize(
    "argv, word",
    [
        ("autoencoder --half", "--half"),
        ("mask --add_random_cutting", "--add_random_cutting"),
        ("prior --noisy_data_path noisy", "--noisy_data_path"),
        ("vocoder --half", "--half"),
        ("autoencoder --codec voice16k", "--codec"),
        ("codec --snr 0 5", "--snr"),
        ("codec --rooms rooms", "--rooms"),
        ("segan --hours 3", "--hours"),
        ("codec --steps 0", "1 or more"),
        ("codec --batch_size 0", "1 or more"),
        ("codec --seconds 0", "greater than 0"),
        ("codec --epochs 0", "greater than 0"),
        ("codec --epochs 1 --steps 1", "not allowed with"),
        ("codec --num_workers -1", "0 or more"),
        ("codec --recipe magic", "shipped"),
        ("nothing", "codec"),
    ],
)
def test_what_a_network_does_not_use_is_refused_by_the_parser(argv, word, cli):
    code, _, err = cli("train", *argv.split())
    assert code == 2 and word in err


@pytest.mark.parametrize(
    "argv, words",
    [
        ("codec --set name.base=3", "not a setting of CodecConfig"),
        ("codec --set decoder_dim=many", "does not fit decoder_dim"),
        ("codec --preset huge", "there is no preset 'huge'"),
        ("codec --device tpu", "device"),
        ("codec --device cuda:31", "cuda:31"),
        ("codec --recipe shipped --steps 3", "the recipe decides --steps"),
        ("mask --recipe shipped --diffusion voice16k-diffusion", "the recipe decides --diffusion"),
        ("mask --rooms clean", "leave --rooms out"),
        ("segan --snr 0 5", "leave --snr out"),
        ("refinement --clean_data_path clean", "--vae"),
    ],
)
def test_mistakes_get_one_sentence(argv, words, project, cli):
    pairs = PAIRS if "--clean_data_path" not in argv else []
    code, _, err = cli("train", *argv.split(), *pairs)
    assert code == 1 and words in err and err.count("\n") == 1, err


@pytest.mark.parametrize("network", ["codec", "mask", "prior", "segan", "waveform", "vocoder"])
def test_sounds_are_decoded_by_one_process_first(network, project, cli, monkeypatch):
    """The other processes wait until what they would decode lies on disk."""
    from wavelldm.data.clips import Clips
    from wavelldm.training import loop, parallel

    turns, decoded, build = [], [], Clips._build

    def in_turn(make):
        turns.append(1)
        try:
            return make()
        finally:
            turns.pop()

    monkeypatch.setattr(parallel, "in_turn", in_turn)
    monkeypatch.setattr(Clips, "_build", lambda self, index: decoded.append(bool(turns)) or build(self, index))
    monkeypatch.setattr(loop, "fit", lambda *_: {"step": 0, "steps": 1, "stopped": True, "best": None})
    pairs = PAIRS if task_of(network).uses_noise else PAIRS[:2]
    code, _, err = cli("train", network, *pairs, "--preset", "tiny", "--seconds", "0.1", "--batch_size", "1")
    assert code == 0, err
    assert len(decoded) == 2 and all(decoded)


def test_measured_rooms_are_heard(project, cli, monkeypatch):
    """A folder of room responses reaches the loader of networks whose recipe has rooms."""
    from wavelldm.training import mixtures

    heard = []
    monkeypatch.setattr(
        mixtures, "batches", lambda *args: heard.extend(a for a in args if torch.is_tensor(a)) or iter([])
    )
    files.save(project / "rooms" / "hall.wav", torch.tensor([[0.0, 1.0, 0.0, 0.5]]), SR)
    monkeypatch.setattr("wavelldm.data.voices.build_corpus", embedded(project))
    few = "--preset tiny --steps 1 --batch_size 1 --seconds 0.5 --clean_data_path clean --rooms rooms"
    assert cli("train", "mask", *few.split())[0] == 0
    assert heard[0].shape == (1, SR) and heard[0][0, :4].tolist() == pytest.approx([0.0, 1.0, 0.0, 0.5], abs=1e-3)


def embedded(project):
    """In place of the embedded corpus: a manifest of two noises."""
    lines = ["path\tkind\tlabel\tsplit", "noisy/0.wav\tnoise\ta\ttrain", "noisy/1.wav\tnoise\tb\tvalid"]
    (project / "manifest.tsv").write_text("\n".join(lines) + "\n")
    return lambda *_, **__: project / "manifest.tsv"
