import json
import math

import pytest

from wavelldm import config
from wavelldm.audio import mel
from wavelldm.errors import WavelldmError
from wavelldm.training import presets


def test_the_papers_numbers():
    paper = presets.preset("paper44k")
    assert paper.codec.entries == 15_360 and paper.codec.codebooks == 4 and paper.codec.latent_dim == 384
    assert paper.codec.bits_per_code == pytest.approx(13.907, abs=1e-3)
    assert paper.codec.mel.frame_rate == pytest.approx(86.13, abs=0.01)
    frames = 4 * math.log2(15_360) * 44_100 / 512  # 4.79 kbit/s at the rate of the mel frames
    assert paper.codec.bitrate() * math.prod(paper.codec.strides) == pytest.approx(frames)


def test_the_shipped_preset_stays_under_its_bitrate():
    base = presets.preset("base16k")
    assert base.codec.latent_rate == 62.5 and base.codec.bitrate() < 3_500
    assert base.codec.bitrate(1) == pytest.approx(base.codec.bitrate() / 4)


def test_presets_survive_json():
    for preset in presets.PRESETS.values():
        assert config.from_dict(presets.Preset, json.loads(json.dumps(config.to_dict(preset)))) == preset


def test_unknown_keys_and_names_are_refused():
    with pytest.raises(WavelldmError, match="does not know hops"):
        config.from_dict(mel.MelConfig, {"hops": 256})
    with pytest.raises(WavelldmError, match="codebook_count"):
        config.from_dict(presets.Preset, {"name": "x", "codec": {"codebook_count": 3}})
    with pytest.raises(WavelldmError, match="base16k"):
        presets.preset("base48k")


def test_the_front_ends():
    ldm = mel.MELS["audioldm2"]
    assert (ldm.sr, ldm.n_fft, ldm.hop, ldm.n_mels, ldm.fmax, ldm.floor) == (16_000, 1024, 160, 64, 8_000, 1e-5)
    wave = mel.MELS["wavelldm44k"]
    assert (wave.sr, wave.n_fft, wave.win, wave.hop, wave.n_mels, wave.fmax) == (44_100, 2048, 2048, 512, 160, 22_050)


def test_single_settings_can_be_changed():
    base = presets.preset("base16k")
    new = config.override(base, ["codec.mel.n_mels=80", "codec.strides=2,2", "codec.causal=true", "codec.mel.fmin=20"])
    assert (new.codec.mel.n_mels, new.codec.strides, new.codec.causal, new.codec.mel.fmin) == (80, (2, 2), True, 20.0)
    assert new.codec.latent_rate == base.codec.latent_rate / 4 and config.override(base, []) == base
    for wrong in ("n_mels=80", "codec.mel.bands=80", "codec", "name.codec=3"):
        with pytest.raises(WavelldmError, match="is not a setting of Preset; there are "):
            config.override(base, [wrong])
    for wrong in ("codec.mel.n_mels=many", "codec.causal=maybe"):
        with pytest.raises(WavelldmError, match="does not fit"):
            config.override(base, [wrong])
