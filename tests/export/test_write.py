import json

import numpy as np
import onnxruntime
import pytest
import torch

from wavelldm import weights
from wavelldm.denoise.mask import MaskConfig, MaskNet
from wavelldm.errors import AudioError, WavelldmError
from wavelldm.export import write
from wavelldm.light import denoiser


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Weights of a small network, of one's own."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "own.safetensors"
    return str(weights.save(path, MaskNet(MaskConfig(width=8, blocks=1)), licence="CC0"))


def test_a_stream_is_exported_checked_and_run(small, tmp_path):
    report = write.export(small, tmp_path / "own.onnx", streaming=True, chunk=2)
    assert report.difference < 1e-5 and report.size == (tmp_path / "own.onnx").stat().st_size
    facts = denoiser.load(str(tmp_path / "own.onnx")).graph.facts
    assert facts == report.facts
    assert (facts.form, facts.chunk, facts.sr, facts.hop, facts.licence) == ("stream", 2, 16_000, 256, "CC0")
    assert facts.hash == weights.about(small)["hash"] and facts.latency == 767 + 256


def test_a_whole_recording_needs_nothing_but_its_samples(small, tmp_path):
    write.export(small, tmp_path / "own.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "own.onnx"))
    net = weights.load(small, MaskNet)
    for n in (3, 1_000, 7_001):
        wav = 0.1 * np.random.default_rng(n).standard_normal((1, n)).astype(np.float32)
        with torch.no_grad():
            theirs = net(torch.from_numpy(wav)[None])[0].numpy()
        assert np.abs(session.run(None, {"wav": wav})[0] - theirs).max() < 1e-5
    about = json.loads(session.get_modelmeta().custom_metadata_map["wavelldm"])
    assert about["form"] == "whole" and about["name"] == "own"
    with pytest.raises(WavelldmError, match="--streaming"):
        denoiser.load(str(tmp_path / "own.onnx"))


def test_a_graph_that_differs_is_not_written(small, tmp_path, monkeypatch):
    monkeypatch.setattr(write, "compact", lambda model: spoil(model))
    with pytest.raises(WavelldmError, match="differs from the network by"):
        write.export(small, tmp_path / "own.onnx")
    assert list(tmp_path.iterdir()) == []


def spoil(model):
    from onnx import numpy_helper

    tensor = next(t for t in model.graph.initializer if t.name == "up.weight")
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * 1.1, tensor.name))


def test_nothing_is_overwritten_or_ignored(small, tmp_path):
    (tmp_path / "own.onnx").write_bytes(b"mine")
    with pytest.raises(AudioError, match="--force"):
        write.export(small, tmp_path / "own.onnx")
    assert (tmp_path / "own.onnx").read_bytes() == b"mine"
    with pytest.raises(WavelldmError, match="add --streaming"):
        write.export(small, tmp_path / "b.onnx", chunk=2)
    with pytest.raises(WavelldmError, match="leave --chunk out"):
        write.export("studio16k", tmp_path / "b.onnx", streaming=True, chunk=2)
    with pytest.raises(WavelldmError, match="cannot be exported"):
        write.export("segan", tmp_path / "b.onnx")


def test_constants_are_made_small_only_without_a_change():
    rng = np.random.default_rng(0)
    rows = rng.integers(-127, 128, (3, 40)).astype(np.float32)
    rows[:, 0] = 127
    scaled = rows * np.array([[0.5], [0.3], [0.01]], np.float32)
    small, scale = write.in_fewer_bits(scaled)
    assert small.dtype == np.int8 and np.allclose(small * scale, scaled, rtol=1e-6)
    half = rng.standard_normal(40).astype(np.float16).astype(np.float32)
    small, scale = write.in_fewer_bits(half)
    assert small.dtype == np.float16 and scale is None and np.array_equal(small.astype(np.float32), half)
    assert write.in_fewer_bits(rng.standard_normal((3, 40)).astype(np.float32)) is None


def test_ranges_of_calibration_speech_are_kept_in_the_file(small, tmp_path, monkeypatch):
    import onnx

    monkeypatch.setattr(write, "HEARD", (("1363", 0.0, 5.0),))
    report = write.export(small, tmp_path / "own.onnx", streaming=True, int8="static")
    nodes = [node.op_type for node in onnx.load(tmp_path / "own.onnx").graph.node]
    assert "QuantizeLinear" in nodes and "DynamicQuantizeLinear" not in nodes
    assert write.ROUGH > report.distance and denoiser.load(str(report.path)).graph.facts == report.facts
    with pytest.raises(WavelldmError, match="'dynamic' or 'static', not 'other'"):
        write.export(small, tmp_path / "b.onnx", int8="other")
