"""Graphs as files: what they say of themselves, and onnxruntime that runs them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import WavelldmError

if TYPE_CHECKING:
    import onnxruntime

SHIPPED = Path(__file__).parent.parent / "weights"
FORMAT = 1  # of the graphs; raise it when older programs could not run them
MISSING = "this needs onnxruntime; install it with: pip install onnxruntime"


@dataclass(frozen=True)
class Facts:
    """What a graph says of itself, in its metadata."""

    format: int
    name: str
    form: str  # stream, recording or whole
    sr: int
    hop: int
    taps: int  # frames that it sees before the present one
    ahead: int  # frames that it looks ahead
    latency: int  # samples at its own rate that a stream is late
    licence: str = ""
    hash: str = ""  # of the weights it was made from
    chunk: int = 1  # frames of one call
    weights: tuple[str, ...] = ()  # files beside it, in which they lie


def facts_of(metadata: dict[str, str], path: str | Path) -> Facts:
    try:
        found = json.loads(metadata["wavelldm"])
        facts = Facts(**found | {"weights": tuple(found.get("weights", ()))})
    except (AttributeError, KeyError, TypeError, ValueError):
        raise WavelldmError(
            f"{path} is no graph of this program, or of another version; write one with wavelldm export"
        ) from None
    if facts.format != FORMAT:
        raise WavelldmError(f"{path} has format {facts.format} and this program runs {FORMAT}; export it again")
    return facts


def run_by_onnx(path: str | Path, threads: int = 1) -> "onnxruntime.InferenceSession":
    """An ONNX file, ready to run."""
    try:
        import onnxruntime
    except ImportError:
        raise WavelldmError(MISSING) from None
    if not Path(path).is_file():
        raise WavelldmError(f"{path} does not exist; check the path")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has many kinds, all private
        reason = str(error).splitlines()[0][:200]
        raise WavelldmError(f"{path} cannot be run by onnxruntime ({reason}); export or copy it again") from None
