"""The codec that streams, with onnxruntime alone: what packets need (see `packets`)."""

import json
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import WavelldmError
from .packets import Coder
from .run import FORMAT, SHIPPED, run_by_onnx

NAME = "voice16k-live"
ABSENT = -1  # the code of a codebook that is not there


def ready() -> bool:
    """Whether its graphs are there, and onnxruntime to run them."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return False
    return all((SHIPPED / f"{NAME}-{part}.onnx").exists() for part in ("encoder", "decoder"))


def load(folder: str | Path = SHIPPED, name: str = NAME) -> Coder:
    """From FOLDER/NAME-encoder.onnx and FOLDER/NAME-decoder.onnx, as `wavelldm export --part` writes them."""
    parts = [Part(Path(folder) / f"{name}-{part}.onnx", f"live {part}") for part in ("encoder", "decoder")]
    facts, other = (part.facts for part in parts)
    if facts["hash"] != other["hash"]:
        raise WavelldmError(f"the two graphs of {name} come from different weights; export both again")
    return Coder(
        facts["name"],
        facts["sr"],
        facts["hop"],
        facts["latency"],
        facts["codebooks"],
        facts["entries"],
        bytes.fromhex(facts["tag"]),
        partial(Encoder, parts[0]),
        partial(Decoder, parts[1]),
    )


class Part:
    """A graph, what it says of itself, and what passes from call to call before the first one."""

    def __init__(self, path: Path, form: str):
        self.session = run_by_onnx(path)
        try:
            self.facts = json.loads(self.session.get_modelmeta().custom_metadata_map["wavelldm"])
        except (KeyError, ValueError):
            self.facts = {}
        if (self.facts.get("form"), self.facts.get("format")) != (form, FORMAT):
            raise WavelldmError(f"{path} is no {form} of this version; write one with wavelldm export --part")
        self.outputs = [out.name for out in self.session.get_outputs()]
        self.before = {
            put.name: np.zeros(put.shape, np.float32)
            for put in self.session.get_inputs()
            if f"{put.name}_out" in self.outputs
        }


class Step:
    """One stream through a graph."""

    def __init__(self, part: Part):
        self.part, self.states = part, dict(part.before)

    def run(self, **inputs: np.ndarray) -> np.ndarray:
        """The first output; the states move on."""
        found = dict(zip(self.part.outputs, self.part.session.run(None, {**self.states, **inputs})))
        self.states = {name: found[f"{name}_out"] for name in self.states}
        return found[self.part.outputs[0]]


class Encoder(Step):
    def __init__(self, part: Part):
        super().__init__(part)
        self.hop, self.drop = part.facts["hop"], part.facts["ahead"]  # frames that lie before the beginning
        self.rest = np.zeros(0, np.float32)

    def push(self, wav: np.ndarray) -> list[list[int]]:
        self.rest = np.concatenate([self.rest, wav.astype(np.float32)])
        rows = []
        while len(self.rest) >= self.hop:
            block, self.rest = self.rest[None, : self.hop], self.rest[self.hop :]
            row = self.run(wav=block)[0, :, 0].tolist()
            rows.append(row)
        drop, self.drop = self.drop, max(0, self.drop - len(rows))
        return rows[drop:]

    def finish(self) -> list[list[int]]:
        missing = -len(self.rest) % self.hop + self.part.facts["ahead"] * self.hop
        return self.push(np.zeros(missing, np.float32))


class Decoder(Step):
    def __init__(self, part: Part):
        super().__init__(part)
        self.late = part.facts["hop"] // 2  # samples that the first frame gives before the sound begins
        self.begun = False

    def take(self, row: list[int] | None) -> np.ndarray:
        count = self.part.facts["codebooks"]
        codes = np.array([*(row or []), *[ABSENT] * count][:count])[None, :, None]
        wav = self.run(codes=codes)[0]
        drop, self.begun = 0 if self.begun else self.late, True
        return wav[drop:]

    def finish(self) -> np.ndarray:
        """The half hop that only the last frame reaches: its window, a root of Hann's, is taken out of it."""
        hop = self.part.facts["hop"]
        falls = np.cos(np.pi / 2 * np.arange(hop) / hop) ** 2
        return (self.states["tail"][0] / falls.clip(1e-2)).astype(np.float32)[: self.late if self.begun else 0]
