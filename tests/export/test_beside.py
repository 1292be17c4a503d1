"""Graphs whose weights lie beside them, in files of safetensors."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from wavelldm import weights
from wavelldm.denoise.mask import MaskConfig, MaskNet
from wavelldm.errors import WavelldmError
from wavelldm.export import beside, write
from wavelldm.light import denoiser
from wavelldm.light.run import SHIPPED, run_by_onnx


def test_weights_stay_in_their_file_and_the_result_is_the_same(tmp_path):
    torch.manual_seed(0)
    path = weights.save(tmp_path / "own", MaskNet(MaskConfig(width=32, blocks=1)), licence="CC0", eight_bits=True)
    lean = write.export(str(path), tmp_path / "lean.onnx", streaming=True, lean=True)
    assert lean.difference < 1e-5 and lean.facts.weights == ("own.safetensors",)
    tensors = onnx.load(lean.path, load_external_data=False).graph.initializer
    outside = [t for t in tensors if t.data_location == onnx.TensorProto.EXTERNAL]
    inside = sum(len(t.raw_data) for t in tensors if t not in outside)
    assert len(outside) > 20 and inside < 0.5 * path.stat().st_size
    (tmp_path / "elsewhere").mkdir()
    lean.path.rename(tmp_path / "elsewhere" / "lean.onnx")
    with pytest.raises(WavelldmError, match="cannot be run by onnxruntime"):
        denoiser.load(str(tmp_path / "elsewhere" / "lean.onnx"))


def test_turned_and_sorted_weights_are_recognised():
    rng = np.random.default_rng(0)
    w = rng.standard_normal((6, 5, 1, 4)).astype(np.float32)
    order = np.array([4, 0, 5, 1, 2, 3])
    for x in (w, w[:, :, 0], w.transpose(3, 1, 0, 2), w[order], w.transpose(1, 3, 0, 2)[:, :, order]):
        axes, axis, found = beside.way_to(w, x)
        again = w.transpose(axes)
        again = again if found is None else again.take(found, axis)
        assert np.array_equal(again.reshape(x.shape), x)
    assert beside.way_to(w, w + 1e-6) is None and beside.way_to(w, w[:5]) is None
    assert beside.way_to(w, w[order][:, [0, 2, 1, 3, 4]]) is None


def test_tables_of_zeros_are_kept_without_their_zeros():
    x = np.zeros((40, 60), np.float32)
    x[np.arange(40), np.arange(40)] = np.linspace(1, 2, 40)
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, x.shape)
    graph = onnx.helper.make_graph([node], "table", [], [out], [onnx.numpy_helper.from_array(x, "x")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", write.OPSET)], ir_version=10)
    before = model.ByteSize()
    write.compact(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    assert np.array_equal(session.run(None, {})[0], x) and model.ByteSize() < before / 5


@pytest.mark.parametrize("path", sorted(SHIPPED.rglob("*.onnx")), ids=lambda path: path.stem)
def test_what_ships_was_made_from_the_weights_that_ship(path):
    about = json.loads(run_by_onnx(path).get_modelmeta().custom_metadata_map["wavelldm"])
    files = [SHIPPED / name for name in about["weights"]] or [SHIPPED / f"{about['name']}.safetensors"]
    wanted = [about["hash"], *about.get("needs", {}).values()]
    assert [weights.digest(file.read_bytes()) for file in files] == wanted, "run `make graphs`, then `make web`"
