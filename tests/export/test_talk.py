"""The codec that streams, without PyTorch: the same codes and the same sound."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from signals import speechlike

from wavelldm import weights
from wavelldm.cli.main import main
from wavelldm.codec import talk as with_torch
from wavelldm.codec.model import Codec, CodecConfig
from wavelldm.errors import WavelldmError
from wavelldm.light import talk
from wavelldm.light.packets import Receiver, Sender, with_gaps

SMALL = CodecConfig(
    depths=(1, 1),
    dims=(24, 32),
    latent_dim=32,
    expansion=2,
    pitch_input=True,
    decoder="pulse",
    decoder_dim=32,
    decoder_depth=2,
    causal=True,
    ahead=1,
)


@pytest.fixture(scope="module", params=[0, 24], ids=["plain", "corrected"])
def folder(tmp_path_factory, request):
    torch.manual_seed(0)
    folder, codec = tmp_path_factory.mktemp("live"), Codec(replace(SMALL, correction=request.param))
    if request.param:
        torch.nn.init.normal_(codec.decoder.correction.out.weight, std=0.1)
    path = str(weights.save(folder / "own.safetensors", codec, licence="CC0"))
    for part in ("encoder", "decoder"):
        target = str(folder / f"own-{part}.onnx")
        assert main(["export", path, "--part", part, "-o", target]) == 0
    return folder


@pytest.fixture(scope="module")
def both(folder):
    return with_torch.coder(weights.load(folder / "own", Codec)), talk.load(folder, "own")


def sound(seconds=1.5):
    return speechlike(seconds).astype(np.float32)


def test_they_say_the_same_of_themselves(both):
    torch_side, light = both
    for field in ("name", "sr", "hop", "latency", "codebooks", "entries", "tag"):
        assert getattr(torch_side, field) == getattr(light, field), field
    assert light.latency == 640, "40 ms"


@pytest.mark.parametrize("size", [100, 256, 5_000])
def test_packets_are_the_same_whatever_makes_them(both, size):
    wav, found = sound(), []
    for coder in both:
        sender = Sender(coder)
        found.append([p for i in range(0, len(wav), size) for p in sender.push(wav[i : i + size])] + sender.finish())
    assert len(found[0]) == len(found[1]) == 94
    assert sum(a != b for a, b in zip(*found)) <= 1, "but where a number lies between two steps"


def test_their_sound_is_the_same_with_losses_too(both):
    sender = Sender(both[0], repeat=1)
    arriving = list(with_gaps(sender.push(sound()) + sender.finish(), 0.3))
    heard = []
    for coder in both:
        receiver = Receiver(coder)
        receiver.next = 0
        for packet in arriving:
            receiver.put(packet)
        heard.append(np.concatenate([*(receiver.take() for _ in range(94)), receiver.finish()]))
        assert receiver.lost > 3
    assert heard[0].shape == heard[1].shape == (94 * 256,)
    assert np.square(heard[0] - heard[1]).sum() < 1e-4 * np.square(heard[0]).sum()


def test_a_stream_of_nothing(both):
    for coder in both:
        encoder, decoder = coder.encoder(), coder.decoder()
        assert encoder.push(np.zeros(0, np.float32)) == [] and encoder.finish() == []
        assert len(decoder.finish()) == 0


def test_states_of_two_streams_do_not_mix(both):
    wav, light = sound(), both[1]
    alone, first, second = light.encoder(), light.encoder(), light.encoder()
    wanted = alone.push(wav[:2_560])
    rows = []
    for block in wav[:2_560].reshape(-1, 256):
        rows += first.push(block)
        second.push(block[::-1].copy())
    assert rows == wanted


def test_other_files_are_refused(folder, tmp_path):
    with pytest.raises(WavelldmError, match="is no live decoder"):
        talk.Part(folder / "own-encoder.onnx", "live decoder")
    with pytest.raises(WavelldmError, match="does not exist"):
        talk.load(tmp_path, "none")
    with pytest.raises(WavelldmError, match="is no live encoder"):
        talk.Part(weights.SHIPPED / "base16k.onnx", "live encoder")
    assert main(["export", str(folder / "own.safetensors"), "--part", "encoder", "--int8", "-o", "x.onnx"]) == 1


def test_graphs_of_different_weights_are_not_mixed(folder, tmp_path):
    torch.manual_seed(1)
    other = str(weights.save(tmp_path / "own.safetensors", Codec(SMALL)))
    (tmp_path / "own-decoder.onnx").write_bytes((folder / "own-decoder.onnx").read_bytes())
    assert main(["export", other, "--part", "encoder", "-o", str(tmp_path / "own-encoder.onnx")]) == 0
    with pytest.raises(WavelldmError, match="different weights"):
        talk.load(tmp_path, "own")


def test_what_ships_needs_no_pytorch(tmp_path):
    soundfile.write(tmp_path / "talk.wav", sound(), 16_000)
    code = (
        "import sys; from wavelldm.cli.main import main; "
        "assert main(['compress', 'talk.wav', '--live']) == 0 == main(['decompress', 'talk.wlp']); "
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "94 packets" in done.stdout and "0 frames lost" in done.stdout
    decoded, sr = soundfile.read(tmp_path / "talk.decoded.wav")
    assert sr == 16_000 and len(decoded) == 94 * 256 and np.abs(decoded).max() > 0.1
