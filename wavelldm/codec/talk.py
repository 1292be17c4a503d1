"""A codec that streams as what packets need (`light.packets`), with PyTorch."""

import numpy as np
import torch

from ..errors import WavelldmError
from ..light.packets import Coder
from .compress import identity
from .fsq import ABSENT
from .model import Codec


def coder(codec: Codec) -> Coder:
    if not codec.causal:
        raise WavelldmError(f"{codec.name} hears the whole recording; packets need a codec such as voice16k-live")
    oldest = (*codec.reads, identity(codec))[0]  # of the weights with these codes: programs with either can talk
    quantiser, tag = codec.quantiser, bytes.fromhex(oldest)[:2]
    return Coder(
        codec.name,
        codec.sr,
        codec.hop,
        codec.latency,
        quantiser.codebooks,
        quantiser.entries,
        tag,
        lambda: Encoder(codec),
        lambda: Decoder(codec),
    )


class Encoder:
    def __init__(self, codec: Codec):
        self.codec, self.state = codec, codec.initial_encoder_state(1)

    @torch.no_grad()
    def push(self, wav: np.ndarray) -> list[list[int]]:
        block = torch.from_numpy(wav).to(self.state[0])
        z, self.state = self.codec.encode_step(block[None, None], self.state)
        return self._codes(z)

    @torch.no_grad()
    def finish(self) -> list[list[int]]:
        return self._codes(self.codec.encode_finish(self.state))

    def _codes(self, z: torch.Tensor) -> list[list[int]]:
        return self.codec.quantise(z)[1][0].T.tolist() if z.shape[-1] else []


class Decoder:
    def __init__(self, codec: Codec):
        self.codec, self.state = codec, codec.initial_decoder_state(1)

    @torch.no_grad()
    def take(self, row: list[int] | None) -> np.ndarray:
        codes = torch.tensor(row or [ABSENT], device=next(self.codec.parameters()).device)[None, :, None]
        wav, self.state = self.codec.decode_step(self.codec.quantiser.decode_codes(codes), self.state)
        return wav[0, 0].cpu().numpy()

    @torch.no_grad()
    def finish(self) -> np.ndarray:
        return self.codec.decode_finish(self.state)[0, 0].cpu().numpy()
