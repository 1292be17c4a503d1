"""A codec that streams as two graphs, a frame at a time: samples to codes, and codes to samples.

What passes from one call to the next goes in by a name and comes out by the same with `_out`. Results equal
`Codec.encode_step` and `decode_step`.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio import pitch
from ..codec.model import Codec
from ..codec.pulse import BANDS, TABLE, pulses
from .codec import CodecDecoder, CodecEncoder, back, transform


def tensors(state: list | tuple | Tensor | None) -> Iterator[Tensor]:
    """Those of a state that hold something, in order."""
    if isinstance(state, Tensor):
        if state.numel():
            yield state
    else:
        for part in state or ():
            yield from tensors(part)


def filled(state: list | tuple | Tensor | None, parts: Iterator[Tensor]) -> list | tuple | Tensor | None:
    """The same state with these tensors in it."""
    if isinstance(state, Tensor):
        return next(parts) if state.numel() else state
    return state if state is None else type(state)(filled(part, parts) for part in state)


class Memory(nn.Module):
    """The states of a chain of layers, rows of six frames, one after the other in one tensor (rows, 6)."""

    def __init__(self, chain: nn.Module):
        super().__init__()
        self.chain = chain
        self.sizes = [part.shape[1:] for part in tensors(chain.initial_state(1))]
        self.most = max(size[1] for size in self.sizes)
        self.rows = sum(size[0] for size in self.sizes)

    def step(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """x (1, C, 1) -> y (1, D, 1), memory."""
        y, after = self.chain.step(x, self.state(memory))
        return y, self.kept(after)

    def state(self, memory: Tensor) -> list:
        """As the chain wants it."""
        rows = memory.split([size[0] for size in self.sizes])
        parts = (part[None, :, self.most - size[1] :] for part, size in zip(rows, self.sizes))
        return filled(self.chain.initial_state(1), parts)

    def kept(self, state: list) -> Tensor:
        """And back."""
        return torch.cat([F.pad(part[0], (self.most - part.shape[-1], 0)) for part in tensors(state)])


class LiveEncoder(CodecEncoder):
    """The next frame's samples (1, hop) -> codes (1, Q, 1) of the frame `ahead` before it."""

    live, axes = True, {}
    inputs, outputs = ("wav", "past", "memory"), ("codes", "past_out", "memory_out")

    def __init__(self, codec: Codec):
        super().__init__(codec)
        self.past, self.memory = codec.past, Memory(codec.encoder)

    def silence(self) -> tuple[Tensor, ...]:
        return torch.zeros(1, self.hop), torch.zeros(1, self.past), torch.zeros(self.memory.rows, self.memory.most)

    def forward(self, wav: Tensor, past: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        known = torch.cat([past, wav], dim=1)
        features = torch.cat([self.mel(known), self.pitch(known)], dim=1)[..., None]  # (1, M + S, 1)
        z, memory = self.memory.step(features, memory)
        return self.codes(z), known[:, self.hop :], memory

    def mel(self, known: Tensor) -> Tensor:
        """The newest samples (1, past + hop) -> (1, M)."""
        return self.bands(known[:, -self.config.mel.n_fft :])

    def pitch(self, known: Tensor) -> Tensor:
        """The newest samples (1, past + hop) -> (1, S); a single frame is compared with itself sample by sample."""
        window, span, whole = pitch.layout(self.config.sr)
        side = (whole - span) // 2
        wav = known[None, :, -whole:]
        frame = wav[..., side:-side] - F.conv1d(wav, self.smooth)  # (1, 1, span)
        frame = frame - frame.mean(-1, keepdim=True)
        return self.scores(frame[0], F.conv1d(frame, frame[..., :window])[0])


class LiveDecoder(CodecDecoder):
    """The codes (1, Q, 1) of the next frame, -1 where one is not there -> wav (1, hop), half a hop late: the first half
    hop of the first frame lies before the sound.

    `turn`: pitch in Hz and phase in turns of the frame before; `number`: of this frame; `tail`: its share of the next.
    """

    live, axes = True, {}
    inputs = ("codes", "memory", "turn", "number", "tail")
    outputs = ("wav", "memory_out", "turn_out", "number_out", "tail_out")

    def __init__(self, codec: Codec):
        super().__init__(codec)
        self.body = Memory(codec.decoder.body)
        self.correction = None if codec.decoder.correction is None else Memory(codec.decoder.correction.body)

    def silence(self) -> tuple[Tensor, ...]:
        codes = torch.zeros(1, self.quantiser.codebooks, 1, dtype=torch.long)
        rows = self.body.rows + (self.correction.rows if self.correction else 0)
        memory = torch.zeros(rows, self.body.most)
        return codes, memory, torch.zeros(2), torch.zeros(1), torch.zeros(1, self.hop)

    def forward(
        self, codes: Tensor, memory: Tensor, turn: Tensor, number: Tensor, tail: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        net = self.decoder
        y, kept = self.body.step(self.latent(codes), memory[: self.body.rows])
        logits, gains = net._parts(y)
        f0 = net.f0(logits, gains)  # (1, 1)
        first = (number == 0).float()
        turns = (turn[1:] + (turn[:1] + f0[0]) * (net.hop / 2 / net.sr)) * (1 - first)
        turns = turns - turns.floor()
        place = torch.remainder(number, TABLE).long()
        noise = torch.cat([self.noise[place], self.noise[place + 1]], dim=1)  # (1, n_fft)
        sources = torch.cat([pulses(f0, turns[None], net.sr, net.n_fft)[0], noise])  # (2, n_fft)
        shaped = net.envelopes(gains)[0, :, 0]  # (2, bins)
        parts = transform(sources * net.window, net.n_fft, self.numbers)
        whole = [(part * shaped).sum(0, keepdim=True) for part in parts]  # real and imaginary part (1, bins)
        if self.correction:
            state = self.correction.state(memory[self.body.rows :])
            told, parts = gains[:, 2 * BANDS :], (part[None] for part in whole)
            corrected, state = net.correction.step(*parts, told, state)
            whole, kept = [part[0] for part in corrected], torch.cat([kept, self.correction.kept(state)])
        frame = back(*whole, net.n_fft, self.numbers, net.n_fft) * net.window  # (1, n_fft)
        alone = net.window[: net.hop].square().clamp_min(1e-2)  # before the first frame there is none that overlaps
        wav = (tail + frame[:, : net.hop]) / (1 + first * (alone - 1))
        return wav, kept, torch.cat([f0[0], turns]), number + 1, frame[:, net.hop :]
