import csv
import json
import math

import pytest
import reference  # noqa: F401  (first: transformers imports torchaudio)
import torch
from signals import speechlike

from wavelldm import weights
from wavelldm.audio import files
from wavelldm.audio.mel import MELS
from wavelldm.cli import main
from wavelldm.codec.model import Codec
from wavelldm.config import override
from wavelldm.data.corpora import Item
from wavelldm.errors import DataError, WavelldmError
from wavelldm.ladder import report, rungs
from wavelldm.training.presets import preset

SR = 16_000


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "f3" / "one.wav"
    files.save(path, torch.from_numpy(speechlike(1.2))[None].float(), SR)
    return path


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Random weights of every network, all of the tiny preset."""
    folder, out = tmp_path_factory.mktemp("weights"), []
    torch.manual_seed(0)
    for role, kind in rungs.ROLES.items():
        settings = {"wide": ["vae.shortcut=true", "vae.latent=16"], "words": ["vae.words=64"]}.get(role, [])
        p = override(preset("tiny"), settings)
        name = {"wide": "vae", "words": "vae"}.get(role, role)
        out.append(weights.save(folder / role, kind(getattr(p, name)), steps=0))
    return out


@pytest.fixture
def quick(monkeypatch, tmp_path):
    monkeypatch.setattr(rungs, "ITERATIONS", 4)
    monkeypatch.setattr(rungs, "KBITS", (4,))
    monkeypatch.setattr(weights, "SHIPPED", tmp_path)


def test_every_rung_runs_and_says_what_it_keeps(quick, clip, paths, tmp_path):
    families = [f for f in rungs.FAMILIES if f != "grid"]
    facts = report.run([clip], out=tmp_path / "out", rungs=families, weights=paths, progress=False)
    lines = {line["rung"]: line for line in facts["rungs"]}
    assert {line["family"] for line in facts["rungs"]} == set(families) and not facts["skipped"]
    m = preset("tiny").codec.mel
    assert (
        lines["true mel, Griffin-Lim"]["floats"] == m.n_mels * 62.5
        and lines["true mel, Griffin-Lim"]["parameters"] == 0
    )
    assert (
        lines["VAE's mel, Griffin-Lim"]["floats"]
        == 8 * 25 * 62.5 / 4
        == lines["VAE's mel, refined, our vocoder"]["floats"]
    )
    assert lines["wide VAE's mel, our vocoder"]["floats"] == 2 * lines["VAE's mel, our vocoder"]["floats"]
    assert lines["codec, 2 of 4 codebooks"]["bits"] == pytest.approx(2 * math.log2(15_360) * 62.5)
    assert lines["the lowest 80 of 320 MDCT numbers"]["floats"] == 4_000
    assert lines["autoencoder at 4 kbit/s"]["bits"] == pytest.approx(4_000, rel=0.1)
    assert lines["log, 3 bits a number"]["bits"] == pytest.approx(3 * 64 * 100 + 64 / 1.2)
    assert lines["VAE's mel, refined, our vocoder"]["parameters"] > lines["VAE's mel, our vocoder"]["parameters"] > 0
    for score in (
        "mel_distance",
        "stoi",
    ):  # an untrained refinement changes nothing of the VAE's mel, and of no other's
        assert lines["VAE's mel, refined, our vocoder"][score] == pytest.approx(lines["VAE's mel, our vocoder"][score])
    # as physics demands: a true mel is no worse than one through a (random) VAE, and only what keeps phase has a
    # positive SNR
    for score, sign in (("stoi", 1), ("mel_distance", -1), ("lsd", -1)):
        assert sign * lines["true mel, Griffin-Lim"][score] > sign * lines["VAE's mel, Griffin-Lim"][score], score
    assert lines["transform coder at 4 kbit/s"]["snr"] > 3 > 0 > lines["true mel, Griffin-Lim"]["snr"]
    assert all(line["rtf"] > 0 and line["clips"] == 1 for line in facts["rungs"])
    with open(tmp_path / "out" / "ladder.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(lines) and float(rows[0]["snr"]) == facts["rungs"][0]["snr"]
    sounds = list((tmp_path / "out" / "audio").glob("*.wav"))
    assert len(sounds) == len(lines) + 1 and all(files.info(s).frames == 19_200 for s in sounds)
    assert all((tmp_path / "out" / name).stat().st_size > 5_000 for name in ("quality.png", "spectrograms.png"))
    said = report.text(facts)
    assert "floats/s" in said and "kbit/s" in said and "rho >= 0.83" in said
    assert facts["phase"]["snr"] == pytest.approx(-3, abs=0.5)


def test_what_is_not_there_is_named_and_skipped(quick):
    found, missing = rungs.build(["griffin-lim", "vocoder"])
    assert (
        [r.name for r in found] == ["true mel, Griffin-Lim"]
        and set(missing) == {"vocoder", "vae"}
        and "--weights" in missing["vae"]
    )
    with pytest.raises(WavelldmError, match="ladder-words-vae"):
        rungs.build(["words"])
    with pytest.raises(WavelldmError, match="griffin-lim"):
        rungs.build(["escalator"])


def test_weights_are_told_apart(quick, paths, tmp_path):
    assert [rungs.role_of(path) for path in paths] == list(rungs.ROLES)
    about = json.loads(paths[0].with_suffix(".json").read_text()) | {"kind": "UNet"}
    (tmp_path / "x.safetensors").touch()
    (tmp_path / "x.json").write_text(json.dumps(about))
    with pytest.raises(WavelldmError, match="on no rung"):
        rungs.role_of(tmp_path / "x.safetensors")
    found, missing = rungs.networks(paths[:2])
    assert set(found) == {"vocoder", "vae"} and set(missing) == {"wide", "words", "refinement", "autoencoder", "codec"}
    assert isinstance(rungs.networks(paths)[0]["codec"], Codec)


def test_the_grid_is_whole(clip):
    at16, at44 = rungs.grid_rungs(SR), rungs.grid_rungs(44_100)
    assert len({r.name for r in at16}) == 24 and len({r.name for r in at44}) == 48
    assert {r.name.split("to ")[1].split(" kHz")[0] for r in at44} == {"8", "22.05"}
    rung = next(r for r in at16 if r.name == "128 mels, n_fft 2048, hop 256, to 8 kHz, power 2")
    row, wav = report.score_rung(rung, Item(clip))
    assert row.floats == 128 * 62.5 and wav.shape == (1, 19_200) and row.scores["snr"] < 1 and row.scores["stoi"] > 60


def test_words_reach_the_network(quick, clip, paths):
    found, _ = rungs.build(["words"], paths)
    rung = next(r for r in found if "its words" in r.name)
    net = rungs.networks(paths)[0]["words"]
    heard = []
    net.forward = lambda mel, texts=None: heard.append(texts) or mel
    voiced = rungs.mel_rungs({"words": net}, {})
    for r in voiced:
        if r.family == "words":
            r.run(torch.randn(1, 1, 4_000), report.words_of(Item(clip, label="m6")))
    assert heard == [["f m"], [""], ["noise rain"]] and rung.parameters > 0


def test_published_networks_join(quick, clip, tmp_path):
    from diffusers import AutoencoderKL
    from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig

    SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=64,
            upsample_initial_channel=32,
            upsample_rates=[5, 4, 2, 2, 2],
            upsample_kernel_sizes=[16, 16, 8, 4, 4],
            normalize_before=False,
        )
    ).save_pretrained(tmp_path / "vocoder")
    AutoencoderKL(
        in_channels=1, out_channels=1, latent_channels=8, block_out_channels=(8, 16, 16), norm_num_groups=4,
        layers_per_block=1, down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
    ).save_pretrained(tmp_path / "vae")  # fmt: skip
    found, _ = rungs.build(["vocoder", "vae"], published_vocoder=str(tmp_path), published_vae=str(tmp_path))
    names = [r.name for r in found]
    assert names == [f"true mel, {tmp_path}", f"{tmp_path}'s mel, Griffin-Lim", f"{tmp_path}'s mel, {tmp_path}"]
    row, wav = report.score_rung(found[-1], Item(clip))
    assert row.floats == 8 * 16 * 25 and wav.shape == (1, 19_200) and wav.isfinite().all()


def test_clips_are_chosen(clip, tmp_path):
    assert [item.path for item in report.clips([clip.parent])] == [clip]
    with pytest.raises(DataError, match="not both"):
        report.clips([clip], "manifest.tsv")


def test_command_line(quick, capsys, clip, tmp_path):
    assert (
        main.main(["ladder", str(clip), "--rungs", "phase", "griffin-lim", "--output", str(tmp_path / "o"), "--json"])
        == 0
    )
    facts = json.loads(capsys.readouterr().out)
    assert {line["family"] for line in facts["rungs"]} == {"phase", "griffin-lim"} and "vae" in facts["skipped"]
    assert main.main(["ladder", str(clip), "--rungs", "lift", "--output", str(tmp_path / "o")]) == 1
    assert "there is no rung 'lift'" in capsys.readouterr().err


def test_normalisations_differ_and_lose_little(quick, clip):
    rows = {
        r.name.split(",")[0]: report.score_rung(r, Item(clip))[0] for r in rungs.normalisation_rungs(MELS["audioldm2"])
    }
    assert set(rows) == {"log", "zscore", "percentile", "tanh"}
    assert len({round(row.scores["mel_distance"], 6) for row in rows.values()}) == 4
    assert all(
        row.scores["stoi"] > 60 and row.scores["snr"] > -12 for row in rows.values()
    )  # no level lies beyond what the clip has
