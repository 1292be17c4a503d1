import json

import pytest
import safetensors.torch
import torch

from wavelldm import weights
from wavelldm.codec.model import Codec
from wavelldm.config import to_dict
from wavelldm.denoise.mask import MaskNet
from wavelldm.diffusion.latent import LatentDiffusion
from wavelldm.errors import WavelldmError
from wavelldm.training.presets import preset


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    codec = Codec(preset("tiny").codec).eval()
    return codec, weights.save(tmp_path / "mine", codec, steps=3)


def test_weights_go_round_in_half_precision(saved):
    codec, path = saved
    back = weights.load(path, Codec)
    assert back.config == codec.config and not back.training and weights.about(path)["steps"] == 3
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
    small = weights.save(tmp_path / "bytes", codec, eight_bits=True)
    back = weights.load(small, Codec)
    for (name, a), b in zip(codec.state_dict().items(), back.state_dict().values()):
        step = a.abs().amax(tuple(range(1, a.dim())), keepdim=True) / 127 if a.dim() > 1 else a.abs() * 2e-3
        assert ((a - b).abs() <= 0.501 * step + 1e-9).all() and a.shape == b.shape, name
    assert small.stat().st_size < 0.75 * path.stat().st_size


def test_matrices_in_six_bits_take_fewer_values(saved, tmp_path):
    codec, _ = saved
    path = weights.save(tmp_path / "fewer", codec, eight_bits=True, six_bits=("decoder",))
    tensors = safetensors.torch.load_file(path)
    found = {name.split(".")[0]: set() for name in tensors}
    for name, x in tensors.items():
        if x.dtype == torch.int8:
            found[name.split(".")[0]].add(int(x.abs().max()))
    assert found["decoder"] == {31} and found["encoder"] == {127}
    back = weights.load(path, Codec).state_dict()
    for name, x in codec.decoder.state_dict(prefix="decoder.").items():
        if x.dim() > 1:
            step = x.abs().amax(tuple(range(1, x.dim())), keepdim=True) / 31
            assert ((x - back[name]).abs() <= 0.501 * step).all(), name


def test_a_path_is_found_with_and_without_its_ending(saved):
    _, saved = saved
    assert (
        weights.locate(saved)
        == weights.locate(saved.with_suffix(""))
        == weights.locate(str(saved.with_suffix("")))
        == saved
    )
    assert weights.locate("voice16k").parent == weights.SHIPPED
    for nobody in ("", ".", str(saved.parent / "nothing")):
        with pytest.raises(WavelldmError, match="no weights called"):
            weights.locate(nobody)


def test_truncated_foreign_and_missing_files_are_named(saved, tmp_path):
    _, path = saved
    whole = path.read_bytes()
    with pytest.raises(WavelldmError, match="of a Codec, not of a MaskNet"):
        weights.load(path, MaskNet)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WavelldmError, match="not a whole safetensors file"):
        weights.load(path, Codec)
    path.write_bytes(b"this is a text file")
    with pytest.raises(WavelldmError, match="not a whole safetensors file"):
        weights.load(path, Codec)
    path.write_bytes(whole)
    facts = json.loads(path.with_suffix(".json").read_text())
    facts["config"]["decoder_dim"] = 32
    path.with_suffix(".json").write_text(json.dumps(facts))
    with pytest.raises(WavelldmError, match="same run"):
        weights.load(path, Codec)
    facts["config"]["colour"] = "red"
    path.with_suffix(".json").write_text(json.dumps(facts))
    with pytest.raises(WavelldmError, match="another version of wavelldm: CodecConfig does not know colour"):
        weights.load(path, Codec)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(WavelldmError, match="damaged"):
        weights.load(path, Codec)
    path.with_suffix(".json").write_text('{"format": 99}')
    with pytest.raises(WavelldmError, match="update wavelldm"):
        weights.load(path, Codec)
    path.with_suffix(".json").unlink()
    with pytest.raises(WavelldmError, match="belongs beside"):
        weights.load(path, Codec)
    with pytest.raises(WavelldmError, match="no weights called 'huge'"):
        weights.load("huge", Codec)


def test_a_file_stores_its_own_config_alone_and_says_what_it_needs(saved, tmp_path):
    codec, path = saved
    about = weights.about(path)
    assert about["config"] == json.loads(json.dumps(to_dict(codec.config))) and about["kind"] == "Codec"
    loaded = weights.load(path, Codec)
    assert (loaded.name, loaded.hash) == ("mine", about["hash"] if "hash" in about else None)
    diffusion = weights.save(tmp_path / "d", LatentDiffusion(preset("tiny").diffusion), needs={"codec": loaded})
    assert weights.about(diffusion)["needs"] == {"codec": {"name": "mine", "hash": loaded.hash}}
    weights.check_needs(diffusion, "codec", loaded)
    with pytest.raises(WavelldmError, match="trained with the codec 'mine'"):
        weights.check_needs(diffusion, "codec", weights.load("voice16k", Codec))


def test_a_name_may_have_dots(saved, tmp_path):
    codec, _ = saved
    assert weights.save(tmp_path / "v0.5", codec).name == "v0.5.safetensors"
    assert weights.locate(tmp_path / "v0.5").name == "v0.5.safetensors"
    assert weights.load(tmp_path / "v0.5", Codec).name == "v0.5"


def test_nothing_is_overwritten_and_nothing_infinite_is_saved(saved, tmp_path):
    codec, path = saved
    with pytest.raises(WavelldmError, match="--force"):
        weights.save(path, codec)
    with torch.no_grad():
        next(codec.parameters()).fill_(1e6)
    with pytest.raises(WavelldmError, match="16-bit"):
        weights.save(tmp_path / "other", codec)
    assert not (tmp_path / "other.safetensors").exists()


def test_what_ships_speaks():
    """The codec that comes with the package, on a voice it has never heard."""
    from wavelldm.data import voices
    from wavelldm.metrics import scores

    codec = weights.load("voice16k", Codec)
    wav = voices.speak("The neural codec repeats this sentence.", "en-us+f4").reshape(1, 1, -1)
    with torch.no_grad():
        decoded = codec(wav).wav
    assert decoded.shape == wav.shape
    assert scores.METRICS["stoi"].function(wav[0, 0].numpy(), decoded[0, 0].numpy(), 16_000) > 60
    assert (weights.SHIPPED / "voice16k.md").exists()
