"""Graphs that ship: their weights lie beside them, in the safetensors file that PyTorch reads, and are there once.

Both formats keep numbers alike, so an ONNX file can name the place of a tensor in a safetensors file ("external data").
A graph may want a weight turned, or its rows in another order: nodes do the same to what is read, once, as a runtime
loads the file.
"""

import json
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..weights import SCALE

if TYPE_CHECKING:
    import onnx

LARGE = 128  # values from which on a constant is worth a reference
TYPES = {"F32": np.float32, "F16": np.float16, "I8": np.int8}


class Stored(NamedTuple):
    """A tensor in a safetensors file."""

    file: str
    name: str
    values: np.ndarray  # as they are kept
    offset: int  # bytes from the beginning of the file


def stored(path: Path) -> dict[str, Stored]:
    """All tensors of a safetensors file: the length of a header, the header as JSON, and then the numbers."""
    data = path.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    found = {}
    for name, about in json.loads(data[8:begin]).items():
        if name != "__metadata__":
            first, end = (begin + offset for offset in about["data_offsets"])
            values = np.frombuffer(data[first:end], TYPES[about["dtype"]]).reshape(about["shape"])
            found[name] = Stored(path.name, name, values, first)
    return found


def refer(model: "onnx.ModelProto", paths: Sequence[Path]) -> None:
    """Take those large constants out of a graph that are in these files, and read them from there. The graph must then
    lie beside the files."""
    from onnx import TensorProto, helper, numpy_helper

    ready, nodes, kept, read, numbers = [], [], [], {}, {}
    for path in paths:
        tensors = stored(path)
        for name, tensor in tensors.items():
            if tensor.values.size >= LARGE and not name.endswith(SCALE):
                scale = tensors.get(name + SCALE)
                values = tensor.values.astype(np.float32) * (1 if scale is None else scale.values)
                ready.append((tensor, scale, values))

    def external(tensor: Stored) -> str:
        """The name of a tensor that is read from its file."""
        name = f"{tensor.file}/{tensor.name}"
        if name not in read:
            kind = helper.np_dtype_to_tensor_dtype(tensor.values.dtype)
            out = read[name] = TensorProto(name=name, data_type=kind, dims=tensor.values.shape)
            out.data_location = TensorProto.EXTERNAL
            place = {"location": tensor.file, "offset": tensor.offset, "length": tensor.values.nbytes}
            for key, value in place.items():
                out.external_data.add(key=key, value=str(value))
        return name

    def whole(x: np.ndarray) -> str:
        """The name of whole numbers, which are kept once."""
        name = numbers.setdefault((x.shape, x.tobytes()), f"numbers.{len(numbers)}")
        if name not in [tensor.name for tensor in kept]:
            kept.append(numpy_helper.from_array(x, name))
        return name

    for constant in model.graph.initializer:
        x = numpy_helper.to_array(constant)
        ways = ((*pair, way_to(pair[2], x)) for pair in ready) if x.size >= LARGE and x.dtype == np.float32 else ()
        tensor, scale, values, way = next((found for found in ways if found[3]), (None,) * 4)
        if way is None:
            kept.append(constant)
            continue
        axes, axis, order = way
        steps = [("Cast", [external(tensor)], {"to": TensorProto.FLOAT})]
        if scale is not None:
            steps.append(("Mul", [external(scale)], {}))
        if axes != tuple(range(values.ndim)):
            steps.append(("Transpose", [], {"perm": axes}))
        if order is not None:
            steps.append(("Gather", [whole(order)], {"axis": axis}))
        if x.shape != tuple(values.shape[i] for i in axes):
            steps.append(("Reshape", [whole(np.array(x.shape))], {}))
        now = []
        for i, (kind, more, attributes) in enumerate(steps):
            out = constant.name if i == len(steps) - 1 else f"{constant.name}.{i}"
            nodes.append(helper.make_node(kind, now + more, [out], **attributes))
            now = [out]
    old = list(model.graph.node)
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend([*kept, *read.values()])
    model.graph.node.extend(nodes + old)


def way_to(w: np.ndarray, x: np.ndarray) -> tuple[tuple[int, ...], int, np.ndarray | None] | None:
    """How x is made of w, but for axes of length 1: the order of its axes, and an axis whose rows are then taken in an
    order (None: as they are). None where there is no such way."""
    if w.size != x.size:
        return None
    wanted = x.squeeze()
    for axes in permutations(range(w.ndim)):
        y = w.transpose(axes)
        if y.squeeze().shape != wanted.shape:
            continue
        if np.array_equal(y.squeeze(), wanted):
            return axes, 0, None
        for axis in np.flatnonzero(np.array(y.shape) > 1):
            place = {row.tobytes(): i for i, row in enumerate(np.moveaxis(y, axis, 0))}
            there = sum(n > 1 for n in y.shape[:axis])
            order = [place.get(row.tobytes()) for row in np.moveaxis(wanted, there, 0)]
            if None not in order:
                return axes, int(axis), np.array(order)
    return None
