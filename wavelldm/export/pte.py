"""A denoiser as an ExecuTorch file (.pte), for phones and boards that run PyTorch's own runtime.

    graph -> recurrences as products -> torch.export -> XNNPACK, and portable kernels for what it lacks -> .pte

`torch.export` sees the same graphs as for ONNX, but for two things: there is no GRU among ExecuTorch's kernels, so that
a recurrence is a step of products (of many frames, a loop of such steps), and nothing is computed as a file is loaded,
so that the matrices of the Fourier transform lie in it.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio.files import writing
from ..errors import WavelldmError
from ..light import denoiser as light
from ..light import run
from .graphs import Graph, Recurrence, Stream
from .write import TOLERANCE, Report, compare, prepared, quiet

MISSING = "writing .pte files needs ExecuTorch; install it with: pip install 'wavelldm[executorch]'"


class Steps(nn.Module):
    """One direction of a GRU as products, sums and sigmoids."""

    def __init__(self, net: Recurrence, single: bool):
        super().__init__()
        self.single = single
        self.register_buffer("weight", net.weight[0])  # (3 * C, C): update, reset, new
        self.register_buffer("recurrence", net.recurrence[0])
        for name, part in zip(("bias", "bias_old"), net.bias[0].chunk(2)):
            self.register_buffer(name, part.clone())

    def step(self, state: Tensor, new: Tensor) -> Tensor:
        """State (..., C), products of an input (..., 3 * C) -> the state after it."""
        update, reset, fresh = new.chunk(3, -1)
        update_old, reset_old, fresh_old = F.linear(state, self.recurrence, self.bias_old).chunk(3, -1)
        fresh = torch.tanh(fresh + torch.sigmoid(reset + reset_old) * fresh_old)
        return fresh + torch.sigmoid(update + update_old) * (state - fresh)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        """As `graphs.gru`: x (T, F, C), state (1, F, C) -> (T, F, C)."""
        new = F.linear(x, self.weight, self.bias)
        if self.single:
            return self.step(state, new)
        from torch._higher_order_ops.scan import scan

        def combine(state: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
            state = self.step(state, new)
            return state, state.clone()

        return scan(combine, state[0], new)[1]


def plain(graph: Graph) -> Graph:
    """The graph, changed in place to what ExecuTorch has kernels for."""
    graph.there, graph.back = (
        nn.ModuleList(Steps(net, graph.single) for net in nets) for nets in (graph.there, graph.back)
    )
    graph.bases = always(graph.bases())
    for mix in graph.mixes if graph.single else ():
        mix.matrices = always(mix.matrices())
    return graph


def always(found: tuple[Tensor, Tensor]) -> Callable[[], tuple[Tensor, Tensor]]:
    """What gives the same each time, computed now."""
    return lambda: found


class Runner(light.Graph):
    """A .pte file in ExecuTorch's Python runtime, as `light` runs a graph."""

    def __init__(self, path: Path, graph: Graph):
        from executorch.runtime import Runtime

        self.program = Runtime.get().load_program(path)  # must outlive its methods
        self.method = self.program.load_method("forward")
        self.facts = run.facts_of({"wavelldm": self.program.load_method("wavelldm").execute([])[0]}, path)
        self.session, self.inputs, self.outputs = self, graph.inputs, graph.outputs
        self.shapes = {name: list(x.shape) for name, x in zip(graph.inputs, graph.silence())}

    def run(self, _: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """As onnxruntime's session."""
        found = self.method.execute([torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in self.inputs])
        return [x.numpy().copy() for x in found]  # the next call writes into the same memory


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Without what ExecuTorch's native code writes to stderr about processors."""
    before, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        with quiet():
            yield
    finally:
        os.dup2(before, 2)
        os.close(before), os.close(nothing)


def to_pte(graph: Graph, about: str) -> bytes:
    """The graph as a file, with what it says of itself."""
    try:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
    except ImportError:
        raise WavelldmError(MISSING) from None
    graph = plain(graph)
    with silent(), torch.no_grad():
        program = torch.export.export(graph, graph.silence())
        edge = to_edge_transform_and_lower(
            program, partitioner=[XnnpackPartitioner()], constant_methods={"wavelldm": about}
        )
        return edge.to_executorch().buffer


def export_pte(
    name: str | Path, target: str | Path, streaming: bool = True, chunk: int = 1, force: bool = False
) -> Report:
    """Write the mask network of a denoiser that hears time one way as an ExecuTorch file, whole or not at all, as
    `write.export` does. Each call takes `chunk` frames, as all lengths are fixed."""
    denoiser, graph, facts = prepared(name, streaming, chunk)
    if not isinstance(graph, Stream):
        raise WavelldmError("a .pte file cleans a stream hop by hop; take base16k and add --streaming")
    content = to_pte(graph, json.dumps(asdict(facts)))
    with writing(target, force) as part:
        part.write_bytes(content)
        with silent():
            difference, distance = compare(Runner(part, graph), denoiser, facts)
        if not difference <= TOLERANCE:
            raise WavelldmError(
                f"the graph differs from the network by {difference:.1e} ({distance:.1f} dB); nothing was written"
            )
    return Report(Path(target), facts, len(content), difference, distance)
