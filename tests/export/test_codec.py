import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from signals import speechlike

from wavelldm import weights
from wavelldm.cli.main import main
from wavelldm.codec.model import Codec, CodecConfig
from wavelldm.errors import WavelldmError
from wavelldm.export import write
from wavelldm.export.codec import CodecDecoder, CodecEncoder
from wavelldm.light.run import run_by_onnx

SMALL = CodecConfig(
    depths=(1,),
    dims=(32,),
    latent_dim=32,
    expansion=2,
    strides=(),
    pitch_input=True,
    decoder="pulse",
    decoder_dim=32,
    decoder_depth=1,
)


@pytest.fixture(scope="module", params=[0, 24], ids=["plain", "corrected"])
def codec(request):
    torch.manual_seed(0)
    made = Codec(replace(SMALL, correction=request.param)).eval()
    if request.param:
        torch.nn.init.normal_(made.decoder.correction.out.weight, std=0.1)
    return made


def sound(frames=40):
    return torch.from_numpy(speechlike(2.0)[: frames * 256]).float()[None]


@torch.no_grad()
@pytest.mark.parametrize("frames", [2, 7, 90])
def test_the_encoder_finds_the_codes_of_the_codec(codec, frames):
    wav = sound(frames)
    theirs = codec.quantise(codec.encode(wav[None], 16_000))[1]
    mine = CodecEncoder(codec)(wav)
    assert mine.shape == theirs.shape == (1, 4, frames) and (mine != theirs).float().mean() < 0.01


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 7, 300])
def test_the_decoder_makes_the_sound_of_the_codec(codec, frames):
    codes = torch.randint(0, codec.config.entries, (1, 4, frames), generator=torch.Generator().manual_seed(0))
    codes[:, 2, ::3] = -1  # not sent
    theirs = codec.codes_to_wav(codes)[0]
    mine = CodecDecoder(codec)(codes)
    assert mine.shape == theirs.shape == (1, 256 * frames)
    assert (mine - theirs).square().sum() < 1e-5 * theirs.square().sum()  # phases add up, and their rounding


def test_both_files_run_alone(codec, tmp_path, capsys):
    path = weights.save(tmp_path / "own.safetensors", codec, licence="CC0")
    for part in ("encoder", "decoder"):
        assert main(["export", str(path), "--part", part, "-o", str(tmp_path / f"{part}.onnx"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["part"] == part
    encoder, decoder = (run_by_onnx(tmp_path / f"{part}.onnx") for part in ("encoder", "decoder"))
    about = json.loads(encoder.get_modelmeta().custom_metadata_map["wavelldm"])
    assert (about["name"], about["levels"], about["licence"]) == ("own", [8, 8, 8, 6, 5], "CC0")
    loaded = weights.load(path, Codec)
    for frames in (3, 50):
        codes = encoder.run(None, {"wav": sound(frames).numpy()})[0]
        with torch.no_grad():
            theirs = loaded.codes_to_wav(torch.from_numpy(codes))[0].numpy()
        mine = decoder.run(None, {"codes": codes})[0]
        assert np.square(mine - theirs).sum() < 1e-4 * np.square(theirs).sum()


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_the_graphs_that_ship_hold_no_weights_and_do_what_the_codec_does(part):
    path, codec = weights.SHIPPED / f"voice16k-{part}.onnx", weights.load("voice16k", Codec)
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    outside = {t.name for t in tensors if t.data_location == onnx.TensorProto.EXTERNAL}
    matrices = {k for k, v in codec.state_dict().items() if v.dim() > 1 and k.startswith(part)}
    assert {f"voice16k.safetensors/{name}" for name in matrices} <= outside
    session, wav = run_by_onnx(path), sound(120)
    with torch.no_grad():
        codes = codec.quantise(codec.encode(wav[None], 16_000))[1]
        theirs = codec.codes_to_wav(codes)[0].numpy()
    if part == "encoder":
        assert (session.run(None, {"wav": wav.numpy()})[0] != codes.numpy()).mean() < write.FEW
    else:
        assert write.apart(session.run(None, {"codes": codes.numpy()})[0], theirs)[1] < write.NEAR


def test_what_does_not_belong_together_is_refused(codec, tmp_path, capsys):
    for words, message in (
        (["voice16k"], "--part encoder or --part decoder"),
        (["voice16k", "--part", "encoder", "--streaming"], "nothing else"),
        (["base16k", "--part", "encoder"], "belongs to a codec"),
    ):
        assert main(["export", *words]) == 1 and message in capsys.readouterr().err
    with pytest.raises(WavelldmError, match="of the kind of voice16k"):
        CodecEncoder(Codec(CodecConfig(depths=(1,), dims=(32,), latent_dim=32, decoder="istft", decoder_dim=32)))
    rounded = Codec(SMALL)
    write.round_weights(rounded)
    assert all(len(row.unique()) <= 255 for row in rounded.encoder[0].weight.flatten(1))
