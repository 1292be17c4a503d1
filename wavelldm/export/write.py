"""Write a network as one ONNX file that takes samples and gives samples, and check that it does what the network does.

The exporter is PyTorch's (`torch.onnx.export`, which needs onnx and onnxscript). What it gives is then made small,
without a change to any value: numbers that 16-bit floats or bytes with a scale hold exactly are stored as such, and of
tables of zeros what is not zero. `write_shipped` writes the graphs that ship, which leave their weights where they are.
"""

import contextlib
import io
import json
import logging
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .. import weights
from ..audio.files import writing
from ..audio.levels import mix_at_snr
from ..codec import talk
from ..codec.model import Codec
from ..data.examples import voice
from ..data.noises import pink
from ..data.voices import speak
from ..denoise.denoiser import MaskDenoiser, latent_networks, load
from ..diffusion.samplers import FrameNoise
from ..errors import WavelldmError
from ..light import denoiser as light
from ..light import run
from ..light import talk as light_talk
from ..restore.filler import Filler, tell
from ..restore.gaps import HOP, SR, brought_to_length, known_share, straight
from ..restore.latent import UNIT, SpeechLatent, heard_pitch, level, seen
from .beside import LARGE, refer
from .codec import CodecDecoder, CodecEncoder
from .graphs import Graph, Recording, Stream, Whole
from .latents import DiffusionGraph, FillerGraph, LatentDecoderGraph, LatentEncoderGraph
from .talk import LiveDecoder, LiveEncoder

if TYPE_CHECKING:
    import onnx

OPSET = 18
TOLERANCE = 1e-4  # between what the network gives and what the graph gives
FEW = 0.01  # of all codes, that may differ where a number lies between two steps
NEAR = -40.0  # dB: of a decoder whose phases add up, and with them what the pitch is rounded by
ROUGH = -20.0  # dB: the same for a graph in bytes
MISSING = "exporting needs onnx, onnxscript and onnxruntime; install them with: pip install 'wavelldm[export]'"
HEARD = (("1183", 0.0, 5.0), ("2159", 6.0, 15.0), ("6454", -6.0, 0.0), ("1455", 0.0, 10.0))  # for calibration: people
# that ship with the package, dB louder than they are, dB of speech over noise
SPARSE = 0.1  # share of values up to which those that are not zero are stored with their places
SENTENCES = (
    "The north wind and the sun were disputing which was the stronger, when a traveller came along wrapped in a warm "
    "cloak. They agreed that the one who first succeeded in making the traveller take his cloak off should be "
    "considered stronger than the other."
)


@dataclass(frozen=True)
class Report:
    """What was written, and how it compares with the network."""

    path: Path
    facts: run.Facts
    size: int  # bytes
    difference: float  # the largest between samples, of 10 s of noisy speech
    distance: float  # all of it against all of the sound, in dB


def noisy_speech(sr: int = 16_000, seconds: float = 10.0, snr: float = 5.0, seed: int = 0, who: str = "") -> Tensor:
    """(1, N): a sentence with noise, for each seed always the same; `who`: see `data.examples.voice`."""
    wav = (voice(who, sr)[0] if who else speak(SENTENCES, sr=sr))[:, : round(seconds * sr)]
    noise = torch.from_numpy(pink(wav.shape[1], sr, np.random.default_rng(seed))).float()
    return mix_at_snr(wav, noise[None], snr, sr)


def prepared(name: str | Path, streaming: bool, chunk: int) -> tuple[MaskDenoiser, Graph, run.Facts]:
    """A denoiser, its network as a graph, and what the file will say of itself."""
    denoiser = load(name)
    if not isinstance(denoiser, MaskDenoiser) or denoiser.guided:
        raise WavelldmError(f"{name} cannot be exported; choose studio16k, base16k, or the weights of a mask network")
    net = denoiser.mask
    both_ways = net.config.both_ways
    if not streaming and chunk != 1:
        raise WavelldmError("a chunk has a length where the file keeps states; add --streaming, or leave --chunk out")
    if streaming and both_ways and chunk != 1:
        raise WavelldmError(f"{name} hears time both ways, in spans of 10 s; leave --chunk out, or choose base16k")
    graph = Whole(net) if not streaming else Recording(net) if both_ways else Stream(net, chunk)
    sr = net.config.sr
    facts = run.Facts(
        format=run.FORMAT,
        name=Path(denoiser.name).stem,
        form=type(graph).__name__.lower(),
        sr=sr,
        hop=net.config.hop,
        taps=net.config.taps,
        ahead=net.config.ahead,
        latency=0 if isinstance(graph, Whole) else denoiser.stream(sr).latency + (chunk - 1) * net.config.hop,
        licence=licence_of(name, net.name),
        hash=net.hash,
        chunk=chunk,
    )
    return denoiser, graph.eval(), facts


def export(
    name: str | Path,
    target: str | Path,
    streaming: bool = False,
    chunk: int = 1,
    int8: str | None = None,
    force: bool = False,
    lean: bool = False,
) -> Report:
    """Write the mask network of a denoiser as an ONNX file, whole or not at all.

    By default the file takes a recording at once. With `streaming` it keeps states: `chunk` frames at a time of a
    network that hears time one way, spans of 10 s of one that hears it both ways. If the graph's result differs from
    the network's by more than TOLERANCE, nothing is written.

    `int8`: products with weights are computed in bytes, in the recurrence of single frames too, which changes the
    result: it must then lie within ROUGH decibels of the network's. The other factor is rounded by the range that it
    has each time ("dynamic"), or that it had in speech ("static"). `lean`: weights stay in their own file, beside which
    this one is written.
    """
    denoiser, graph, facts = prepared(name, streaming, chunk)
    if int8 not in (None, "dynamic", "static"):
        raise WavelldmError(f"weights are rounded 'dynamic' or 'static', not '{int8}'")
    model = to_onnx(graph, plain=int8 is not None)
    if int8:
        model = in_bytes(model, facts if int8 == "static" else None)
    files = beside(target, denoiser.mask.name) if lean else ()
    refer(model, files)
    compact(model)
    facts = replace(facts, weights=tuple(path.name for path in files))
    model.metadata_props.add(key="wavelldm", value=json.dumps(asdict(facts)))
    with writing(target, force) as part:
        part.write_bytes(model.SerializeToString())
        difference, distance = compare(light.Graph(part), denoiser, facts)
        if not (distance <= ROUGH if int8 else difference <= TOLERANCE):
            raise WavelldmError(
                f"the graph differs from the network by {difference:.1e} ({distance:.1f} dB); nothing was written"
            )
    return Report(Path(target), facts, Path(target).stat().st_size, difference, distance)


def weights_kind(name: str | Path) -> str:
    """The kind of network behind the name of a denoiser, or of weights; "" where there are no such weights."""
    with contextlib.suppress(WavelldmError):
        return weights.about(name)["kind"]
    return ""


def export_codec(
    name: str | Path, part: str, target: str | Path, int8: bool = False, force: bool = False, lean: bool = False
) -> tuple[int, float]:
    """Write the encoder or the decoder of a codec as an ONNX file -> its bytes, and how far it lies from the codec.

    The encoder is compared by the share of codes that differ in 10 s of noisy speech, the decoder in dB.
    `int8`: weights are rounded first, and the graph is compared with a codec of the same weights. `lean`: weights stay
    in their own file.
    """
    codec = weights.load(name, Codec)
    if codec.causal:
        return export_live(codec, name, part, target, int8, force, lean)
    if int8:
        round_weights(codec)
    wav = noisy_speech(codec.sr)
    wav = wav[:, : wav.shape[1] // codec.hop * codec.hop]
    with torch.no_grad():
        codes = codec.quantise(codec.encode(wav[None], codec.sr))[1]
        theirs = codec.codes_to_wav(codes)[0].numpy()

    def difference(path: Path) -> float:
        session = run.run_by_onnx(path)
        if part == "encoder":
            return float((session.run(None, {"wav": wav.numpy()})[0] != codes.numpy()).mean())
        return apart(session.run(None, {"codes": codes.numpy()})[0], theirs)[1]

    graph = {"encoder": CodecEncoder, "decoder": CodecDecoder}[part](codec)
    facts = {"name": codec.name, "form": part, "sr": codec.sr, "hop": codec.hop, "hash": codec.hash}
    facts |= {"codebooks": codec.quantiser.codebooks, "levels": list(codec.config.levels), "licence": licence_of(name)}
    files = beside(target, codec.name) if lean else ()
    return write_checked(graph, facts, target, force, difference, FEW if part == "encoder" else NEAR, files)


def export_live(
    codec: Codec, name: str | Path, part: str, target: str | Path, int8: bool, force: bool, lean: bool
) -> tuple[int, float]:
    """A part of a codec that streams, compared as above. `lean`: its weights stay in their own file."""
    if int8:
        raise WavelldmError(f"{codec.name} is not rounded; leave --int8 out")
    graph = (LiveEncoder if part == "encoder" else LiveDecoder)(codec)
    coder, wav = talk.coder(codec), noisy_speech(codec.sr)[0].numpy()
    encoder, decoder = coder.encoder(), coder.decoder()
    codes = encoder.push(wav) + encoder.finish()
    sound = np.concatenate([*map(decoder.take, codes), decoder.finish()])
    facts = {"name": codec.name, "form": f"live {part}", "sr": codec.sr, "hop": codec.hop, "hash": codec.hash}
    facts |= {"ahead": codec.config.ahead, "latency": codec.latency, "tag": coder.tag.hex()}
    facts |= {"codebooks": coder.codebooks, "entries": coder.entries, "licence": licence_of(name)}

    def difference(path: Path) -> float:
        step = light_talk.Part(path, facts["form"])
        if part == "encoder":
            mine = light_talk.Encoder(step)
            return float((np.array(mine.push(wav) + mine.finish()) != np.array(codes)).mean())
        mine = light_talk.Decoder(step)
        return apart(np.concatenate([*map(mine.take, codes), mine.finish()]), sound)[1]

    files = beside(target, codec.name) if lean else ()
    return write_checked(graph, facts, target, force, difference, FEW if part == "encoder" else NEAR, files)


def export_latents(
    name: str | Path, target: str | Path, part: str | None = None, force: bool = False, lean: bool = False
) -> tuple[int, float]:
    """Write a latent diffusion in one step (from samples to samples), what fills gaps, or a part of the latent that
    this works on, as an ONNX file -> its bytes, and the largest difference from the network.

    What is compared is the latent of a diffusion, and the logarithms of magnitudes of the others, of 10 s of noisy
    speech. The sound of a diffusion must be NEAR as well. `lean`: weights of what fills gaps stay in their own files.
    """
    about = weights.about(name)
    facts = {"name": about["name"], "hash": about["hash"], "licence": about["licence"] or ""}
    facts |= {"needs": {role: net["hash"] for role, net in about["needs"].items()}}
    wav, noise = noisy_speech(), FrameNoise(shared=True)
    with torch.no_grad():
        if about["kind"] == "LatentDiffusion":
            codec, diffusion = latent_networks(torch.device("cpu"), str(name))
            graph, facts["form"], facts["hop"] = DiffusionGraph(codec, diffusion), "diffusion", codec.hop
            noisy = codec.encode(wav[None], codec.sr)
            inputs = (wav, noise(noisy))
            z = diffusion.sample(noisy, noise=FrameNoise(shared=True))
            theirs = [codec.decode(z, wav.shape[1])[0], z]
        else:
            gaps = torch.zeros_like(wav, dtype=torch.bool)
            gaps[:, 20_000:22_000] = gaps[:, 60_000:66_000] = True
            damaged = torch.where(gaps, 0.0, wav)
            damaged = damaged * level(damaged, ~gaps)
            lines, facts["hop"] = straight(damaged, gaps) / UNIT, HOP
            if about["kind"] == "Filler":
                filler = weights.load(name, Filler)
                latent = weights.load(weights.needed(name, "latent"), SpeechLatent)
                graph, facts["form"] = FillerGraph(latent, filler), "filler"
                told = tell(latent, damaged, gaps, heard_pitch(damaged))
                share = known_share(gaps)
                inputs = (brought_to_length(seen(damaged), share), lines, share, told.line, noise(told.z))
                theirs = [latent.decode(*filler.sample(told, noise=FrameNoise(shared=True)))]
            else:
                latent, facts["form"] = weights.load(name, SpeechLatent), f"latent {part}"
                z, pitch = latent.encode(lines)[0], heard_pitch(damaged)
                graph = LatentEncoderGraph(latent) if part == "encoder" else LatentDecoderGraph(latent)
                inputs = (lines,) if part == "encoder" else (z, pitch)
                theirs = [z if part == "encoder" else latent.decode(z, pitch)]

    def difference(path: Path) -> float:
        session = run.run_by_onnx(path)
        mine = session.run(None, {name: x.numpy() for name, x in zip(graph.inputs, inputs)})
        if len(mine) > 1 and not apart(mine[0], theirs[0].numpy())[1] <= NEAR:
            return math.inf
        return apart(mine[-1], theirs[-1].numpy())[0]

    files = beside(target, about["name"], about["needs"]["latent"]["name"]) if lean else ()
    return write_checked(graph, facts | {"sr": SR}, target, force, difference, TOLERANCE, files)


def write_checked(
    graph: torch.nn.Module,
    facts: dict,
    target: str | Path,
    force: bool,
    difference: Callable[[Path], float],
    most: float,
    files: Sequence[Path] = (),
) -> tuple[int, float]:
    """A graph as a file, unless it differs from its network by more than `most` -> its bytes and the difference.
    `files`: with weights that stay there."""
    model = to_onnx(graph.eval())
    refer(model, files)
    compact(model)
    facts = {"format": run.FORMAT} | facts | {"weights": [path.name for path in files]}
    model.metadata_props.add(key="wavelldm", value=json.dumps(facts))
    with writing(target, force) as part:
        part.write_bytes(model.SerializeToString())
        found = difference(part)
        if not found <= most:
            raise WavelldmError(f"the graph differs from the {facts['form']} by {found:.2g}; nothing was written")
    return Path(target).stat().st_size, found


def beside(target: str | Path, *names: str) -> tuple[Path, ...]:
    """The files of weights by these names in the folder of `target`."""
    return tuple(Path(target).with_name(f"{name}.safetensors") for name in names)


def write_shipped() -> None:
    """The graphs that ship, anew: `make graphs`. They leave their weights in the files beside them."""
    for name in ("base16k", "studio16k"):
        export(name, weights.SHIPPED / f"{name}.onnx", streaming=True, force=True, lean=True)
    export_latents("restore16k-filler", weights.SHIPPED / "restore16k-filler.onnx", force=True, lean=True)
    for name in ("voice16k", "voice16k-live"):
        for part in ("encoder", "decoder"):
            export_codec(name, part, weights.SHIPPED / f"{name}-{part}.onnx", force=True, lean=True)


def round_weights(net: torch.nn.Module) -> None:
    """All weights of a network to bytes and a scale for each row, and back."""
    for parameter in net.parameters():
        if parameter.dim() > 1:
            small, scale = weights.as_bytes(parameter.data)
            parameter.data = small * scale


def licence_of(*names: str | Path) -> str:
    """Of the first of these weights that there are: by the denoiser's name, or by their own."""
    for name in names:
        with contextlib.suppress(WavelldmError):
            return weights.about(name)["licence"] or ""
    return ""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what the exporter says of itself."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def to_onnx(graph: torch.nn.Module, plain: bool = False) -> "onnx.ModelProto":
    """The graph as PyTorch's exporter sees it. One axis of some inputs may have any length. `plain`: a
    recurrence of single frames as products, sums and sigmoids, which can be rounded."""
    try:
        from onnxscript import opset18 as op
        from onnxscript import optimizer
    except ImportError:
        raise WavelldmError(MISSING) from None

    width = graph.config.width if isinstance(graph, Graph) else 0  # of a recurrence

    def as_gru(x, state, weight, recurrence, bias):
        y, _ = op.GRU(x, weight, recurrence, bias, None, state, hidden_size=width, linear_before_reset=1)
        return op.Squeeze(y, [1])

    def as_products(x, state, weight, recurrence, bias):
        first = op.Constant(value_ints=[0])
        there, again = op.Split(bias, axis=1, num_outputs=2)
        new = op.Add(op.MatMul(x, op.Transpose(op.Squeeze(weight, first), perm=[1, 0])), there)
        old = op.Add(op.MatMul(state, op.Transpose(op.Squeeze(recurrence, first), perm=[1, 0])), again)
        update, reset, fresh = op.Split(new, axis=-1, num_outputs=3)
        update_old, reset_old, fresh_old = op.Split(old, axis=-1, num_outputs=3)
        update = op.Sigmoid(op.Add(update, update_old))
        fresh = op.Tanh(op.Add(fresh, op.Mul(op.Sigmoid(op.Add(reset, reset_old)), fresh_old)))
        return op.Add(fresh, op.Mul(update, op.Sub(state, fresh)))

    inputs = graph.silence()
    free = [{graph.axes[name]: torch.export.Dim.DYNAMIC} if name in graph.axes else None for name in graph.inputs]
    recurrence = as_products if plain and graph.single else as_gru
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            graph,
            inputs,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes=tuple(free),
            opset_version=OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
            custom_translation_table={torch.ops.wavelldm.gru.default: recurrence},
        )
        optimizer.optimize(program.model, input_size_limit=LARGE, output_size_limit=LARGE)
    return program.model_proto


def in_bytes(model: "onnx.ModelProto", facts: run.Facts | None = None) -> "onnx.ModelProto":
    """Products with weights in bytes: the weights once and for all, the other factor as it comes, by its own range, or
    with `facts` by the range that it has in calibration speech. Transforms, bands and convolutions stay as they are."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_dynamic, quantize_static

    turn_weights(model)
    matrices = {t.name for t in model.graph.initializer if len(t.dims) == 2 and t.name != "bins"}
    products = [n.name for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in matrices]
    with tempfile.TemporaryDirectory() as folder, quiet():
        source, target = Path(folder) / "a.onnx", Path(folder) / "b.onnx"
        onnx.save(model, source)
        if facts is None:
            quantize_dynamic(source, target, weight_type=QuantType.QInt8, nodes_to_quantize=products)
        else:
            quantize_static(
                source,
                target,
                Calls(source, facts),
                quant_format=QuantFormat.QDQ,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                nodes_to_quantize=products,
                calibrate_method=CalibrationMethod.MinMax,
            )
        return onnx.load(target)


class Calls:
    """All inputs of a graph while it cleans calibration speech: recordings of people in noise, loud and faint."""

    def __init__(self, path: Path, facts: run.Facts):
        self.calls: list[dict[str, np.ndarray]] = []
        wavs = [
            10 ** (db / 20) * noisy_speech(facts.sr, 6.0, snr, seed, who).numpy()
            for seed, (who, db, snr) in enumerate(HEARD)
        ]
        if facts.form == "whole":
            self.calls = [{"wav": wav} for wav in wavs]
        else:
            for wav in wavs:
                session = light.Denoiser(facts.name, Heard(path, facts, self.calls)).stream(facts.sr)
                session.push(wav), session.finish()
        self.rest = iter(self.calls)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """What onnxruntime asks for."""
        return next(self.rest, None)


class Heard(light.Graph):
    """A graph that keeps what it was given."""

    def __init__(self, path: Path, facts: run.Facts, calls: list):
        self.session, self.facts, self.calls = run.run_by_onnx(path), facts, calls
        self.describe()

    def __call__(self, states: dict[str, np.ndarray], **inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.calls.append({**states, **inputs})
        return super().__call__(states, **inputs)


def turn_weights(model: "onnx.ModelProto") -> None:
    """Put the matrices of a recurrence as they are multiplied, in place of the nodes that would turn them."""
    from onnx import numpy_helper

    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type in ("Squeeze", "Transpose") and node.input[0] in arrays:
            x = numpy_helper.to_array(arrays[node.input[0]])
            x = x[0] if node.op_type == "Squeeze" else np.ascontiguousarray(x.T)
            arrays[node.output[0]] = numpy_helper.from_array(x, node.output[0])
        else:
            kept.append(node)
    used = {name for node in kept for name in node.input}
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(tensor for name, tensor in arrays.items() if name in used)


def compact(model: "onnx.ModelProto") -> None:
    """Store large constants in 16 bits or 8, where that gives back the same values, and of those that are nearly all
    zeros the rest and its places. Nodes make floats of them again, once, as a runtime loads the file."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, kept = [], []

    def keep(name: str, x: np.ndarray) -> str:
        kept.append(numpy_helper.from_array(x, name))
        return name

    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or tensor.data_location == TensorProto.EXTERNAL:
            kept.append(tensor)
            continue
        x, name = numpy_helper.to_array(tensor), tensor.name
        if x.size >= LARGE and np.count_nonzero(x) <= SPARSE * x.size:
            at = np.flatnonzero(x)
            size = keep(f"{name}.size", np.array([x.size]))
            places, values = keep(f"{name}.places", at), keep(f"{name}.values", x.ravel()[at])
            nodes.append(helper.make_node("ConstantOfShape", [size], [f"{name}.zeros"]))
            nodes.append(
                helper.make_node("ScatterElements", [f"{name}.zeros", places, values], [f"{name}.flat"], axis=0)
            )
            shape = keep(f"{name}.shape", np.array(x.shape))
            nodes.append(helper.make_node("Reshape", [f"{name}.flat", shape], [name]))
            continue
        found = in_fewer_bits(x) if x.size >= LARGE else None
        if found is None:
            kept.append(tensor)
            continue
        small, scale = found
        out = name if scale is None else f"{name}.cast"
        nodes.append(helper.make_node("Cast", [keep(f"{name}.small", small)], [out], to=TensorProto.FLOAT))
        if scale is not None:
            nodes.append(helper.make_node("Mul", [out, keep(f"{name}.scale", scale)], [name]))
    old = list(model.graph.node)
    for node in old:  # where in the source a node comes from
        del node.metadata_props[:]
    del model.graph.initializer[:], model.graph.node[:], model.graph.value_info[:]
    model.graph.initializer.extend(kept)
    model.graph.node.extend(nodes + old)


def in_fewer_bits(x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None] | None:
    """x as bytes and a scale for each row of one axis, or as 16-bit floats; None if neither gives it back exactly."""
    for axis in range(x.ndim if x.ndim > 1 else 0):
        rest = tuple(i for i in range(x.ndim) if i != axis)
        largest = np.abs(x).max(rest, keepdims=True).clip(1e-12)
        for most in (127, 31):
            scale = largest / np.float32(most)
            small = np.round(x / scale)
            if 4 * scale.size < x.size and np.abs(small * scale - x).max() <= 2e-7 * np.abs(x).max():
                return small.astype(np.int8), scale.astype(np.float32)
    half = x.clip(-6e4, 6e4).astype(np.float16)
    return (half, None) if np.array_equal(half.astype(np.float32), x) else None


def compare(ready: light.Graph, denoiser: MaskDenoiser, facts: run.Facts) -> tuple[float, float]:
    """How far what a file makes of 10 s of noisy speech lies from what the network makes: at most, and in dB."""
    wav = noisy_speech(facts.sr)
    if facts.form == "whole":
        with torch.no_grad():
            theirs = denoiser.mask(wav[None])[0].numpy()
        return apart(ready.session.run(None, {"wav": wav.numpy()})[0], theirs)
    session, ours = light.Denoiser(facts.name, ready).stream(facts.sr), denoiser.stream(facts.sr)
    mine = np.concatenate(
        [*(session.push(b) for b in np.array_split(wav.numpy(), 7, axis=1)), session.finish()], axis=1
    )
    theirs = torch.cat([ours.push(wav), ours.finish()], dim=1).numpy()
    return apart(mine, theirs)


def apart(mine: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    error = float(np.square(mine - theirs).sum() / np.square(theirs).sum())
    return float(np.abs(mine - theirs).max()), 10 * math.log10(error) if error > 0 else -math.inf
