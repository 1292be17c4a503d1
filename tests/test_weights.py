import json

import pytest
import torch

from wavelldm import weights
from wavelldm.codec.model import Codec
from wavelldm.errors import WavelldmError
from wavelldm.training.presets import preset


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    codec = Codec(preset("tiny")).eval()
    return codec, weights.save(tmp_path / "mine", codec, codec.preset, {"steps": 3})


def test_weights_go_round_in_half_precision(saved):
    codec, path = saved
    back = weights.load_codec(path)
    assert back.preset == codec.preset and not back.training and weights.facts(path)["steps"] == 3
    for (name, a), b in zip(codec.state_dict().items(), back.state_dict().values()):
        assert torch.equal(a.half().float(), b), name
    assert path.stat().st_size < 2.2 * sum(p.numel() for p in codec.parameters())
    wav = 0.1 * torch.randn(1, 1, 4_000)
    with torch.no_grad():
        assert (codec.decode(codec.encode(wav, 16_000)) - back.decode(back.encode(wav, 16_000))).abs().max() < 1e-2


def test_weights_go_round_in_bytes(saved, tmp_path):
    codec, path = saved
    with torch.no_grad():
        next(p for p in codec.parameters() if p.dim() > 1)[0] = 0  # a row without a size
    small = weights.save(tmp_path / "bytes", codec, codec.preset, {}, eight_bits=True)
    back = weights.load_codec(small)
    for (name, a), b in zip(codec.state_dict().items(), back.state_dict().values()):
        step = a.abs().amax(tuple(range(1, a.dim())), keepdim=True) / 127 if a.dim() > 1 else a.abs() * 2e-3
        assert ((a - b).abs() <= 0.501 * step + 1e-9).all() and a.shape == b.shape, name
    assert small.stat().st_size < 0.75 * path.stat().st_size


def test_a_path_is_found_with_and_without_its_ending(saved):
    _, saved = saved
    assert weights.locate(saved) == weights.locate(saved.with_suffix("")) == weights.locate(str(saved.with_suffix(""))) == saved
    assert weights.locate("voice16k").parent == weights.SHIPPED
    for nobody in ("", ".", str(saved.parent / "nothing")):
        with pytest.raises(WavelldmError, match="no weights called"):
            weights.locate(nobody)


def test_truncated_foreign_and_missing_files_are_named(saved, tmp_path):
    _, path = saved
    whole = path.read_bytes()
    with pytest.raises(WavelldmError, match="'tiny', not 'voice16k'"):
        weights.load_codec(path, preset="voice16k")
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WavelldmError, match="not a whole safetensors file"):
        weights.load_codec(path)
    path.write_bytes(b"this is a text file")
    with pytest.raises(WavelldmError, match="not a whole safetensors file"):
        weights.load_codec(path)
    path.write_bytes(whole)
    facts = json.loads(path.with_suffix(".json").read_text())
    facts["preset"]["codec"]["decoder_dim"] = 32
    path.with_suffix(".json").write_text(json.dumps(facts))
    with pytest.raises(WavelldmError, match="same run"):
        weights.load_codec(path)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(WavelldmError, match="damaged"):
        weights.load_codec(path)
    path.with_suffix(".json").write_text('{"format": 99}')
    with pytest.raises(WavelldmError, match="update wavelldm"):
        weights.load_codec(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(WavelldmError, match="belongs beside"):
        weights.load_codec(path)
    with pytest.raises(WavelldmError, match="no weights called 'huge'"):
        weights.load_codec("huge")


def test_nothing_is_overwritten_and_nothing_infinite_is_saved(saved, tmp_path):
    codec, path = saved
    with pytest.raises(WavelldmError, match="--force"):
        weights.save(path, codec, codec.preset, {})
    with torch.no_grad():
        next(codec.parameters()).fill_(1e6)
    with pytest.raises(WavelldmError, match="16-bit"):
        weights.save(tmp_path / "other", codec, codec.preset, {})
    assert not (tmp_path / "other.safetensors").exists()


def test_what_ships_speaks():
    """The codec that comes with the package, on a voice it has never heard."""
    from wavelldm.data import voices
    from wavelldm.metrics import scores

    codec = weights.load_codec("voice16k", preset="voice16k")
    wav = voices.speak("The neural codec repeats this sentence.", "en-us+f4").reshape(1, 1, -1)
    with torch.no_grad():
        decoded = codec(wav).wav
    assert decoded.shape == wav.shape
    assert scores.METRICS["stoi"].function(wav[0, 0].numpy(), decoded[0, 0].numpy(), 16_000) > 60
    assert (weights.SHIPPED / "voice16k.md").exists()
