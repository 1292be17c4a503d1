"""The codec as two graphs: wav to codes, and codes to wav. A recording at once, real numbers only.

The transforms of the mel front end, of the pitch scores and of the pulse decoder are products with matrices that a
graph computes as it is loaded. Results equal `Codec.encode` and `quantise`, and `Codec.codes_to_wav`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio import pitch
from ..audio.stft import hann
from ..codec.model import Codec
from ..codec.pulse import BANDS, TABLE, PulseDecoder, pulses
from ..errors import WavelldmError


def transform(rows: Tensor, n_fft: int, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """rows (T, n) of real numbers, n <= n_fft -> real and imaginary part of their spectrum, (T, bins) each.
    `numbers`: 0 to n_fft - 1."""
    angle = torch.remainder(numbers[: rows.shape[-1], None] * numbers[: n_fft // 2 + 1], n_fft) * (2 * math.pi / n_fft)
    return rows @ angle.cos(), -(rows @ angle.sin())


def back(real: Tensor, imag: Tensor, n_fft: int, numbers: Tensor, count: int) -> Tensor:
    """The inverse, its first `count` samples (T, count)."""
    k = numbers[: n_fft // 2 + 1]
    angle = torch.remainder(k[:, None] * numbers[:count], n_fft) * (2 * math.pi / n_fft)
    weight = ((2 - (k == 0).float() - (k == n_fft // 2).float()) / n_fft)[:, None]
    return real @ (weight * angle.cos()) - imag @ (weight * angle.sin())


def overlapping(wav: Tensor, hop: int, size: int) -> Tensor:
    """wav (n,), as many whole hops as it has -> all frames of `size` samples, a hop apart (T, size)."""
    hops, each = wav.reshape(-1, hop), -(-size // hop)
    count = hops.shape[0] - each + 1
    return torch.cat([hops[i : i + count] for i in range(each)], dim=1)[:, :size]


class CodecGraph(nn.Module):
    """What both graphs share."""

    live = False  # frame by frame, see `talk`

    def __init__(self, codec: Codec):
        super().__init__()
        c = self.config = codec.config
        if not isinstance(codec.decoder, PulseDecoder) or c.causal != self.live or c.strides or not c.pitch_input:
            raise WavelldmError("only a codec of the kind of voice16k can be exported")
        self.hop, self.quantiser = codec.hop, codec.quantiser
        sizes = torch.tensor(c.levels)
        self.register_buffer("levels", sizes)
        self.register_buffer("basis", torch.tensor([math.prod(c.levels[:i]) for i in range(len(c.levels))]))


class CodecEncoder(CodecGraph):
    """wav (1, N), N a whole number of hops from two on -> codes (1, Q, N / hop)."""

    inputs, outputs, axes = ("wav",), ("codes",), {"wav": 1}

    def __init__(self, codec: Codec):
        super().__init__(codec)
        self.encoder = codec.encoder
        self.register_buffer("bank", codec.mel.bank)
        window, span, whole = pitch.layout(codec.sr)
        self.register_buffer("numbers", torch.arange(1 << (span + window - 1).bit_length(), dtype=torch.float32))
        self.register_buffer("window", hann(self.config.mel.win, self.config.mel.n_fft))
        side = (whole - span) // 2
        smooth = hann(2 * side + 2, 2 * side + 2)[1:]
        self.register_buffer("smooth", (smooth / smooth.sum())[None, None])
        period = codec.sr / pitch.candidates()
        self.register_buffer("lag", period.long())
        self.register_buffer("share", period - period.long())

    def silence(self) -> tuple[Tensor, ...]:
        return (torch.zeros(1, 12 * self.hop),)

    def latent(self, wav: Tensor) -> Tensor:
        """wav (1, N) -> z (1, D, N / hop)."""
        features = torch.cat([self.mel(wav), self.pitch(wav)], dim=1)[None].transpose(1, 2)  # (1, M + S, T)
        return self.encoder(features)

    def forward(self, wav: Tensor) -> Tensor:
        return self.codes(self.latent(wav))

    def codes(self, z: Tensor) -> Tensor:
        """z (1, D, T) -> codes (1, Q, T)."""
        u = self.quantiser.projected(z)  # (1, T, G * d)
        fsq, d = self.quantiser.fsq, len(self.config.levels)
        bounded = fsq.bound(u.view(1, -1, self.config.groups, d))
        place = (bounded.clamp(-1, 1) + 1) / 2 * (fsq.size - 1)
        digits = torch.minimum((place + 0.5).floor().clamp(min=0), fsq.size - 1).long()
        return (digits * self.basis).sum(-1).transpose(1, 2)

    def mel(self, wav: Tensor) -> Tensor:
        """wav (1, N) -> (T, M), as Codec._features counts them."""
        m = self.config.mel
        side = (m.n_fft - m.hop) // 2
        frames = overlapping(F.pad(wav[None], (side, side), mode="reflect")[0, 0], m.hop, m.n_fft)
        return self.bands(frames)

    def bands(self, frames: Tensor) -> Tensor:
        """frames (T, n_fft) -> their mel (T, M)."""
        m = self.config.mel
        real, imag = transform(frames * self.window, m.n_fft, self.numbers)
        mel = (real.square() + imag.square()).sqrt() @ self.bank
        return 2.5 - 5 * mel.clamp_min(m.floor).log() / math.log(m.floor)

    def pitch(self, wav: Tensor) -> Tensor:
        """wav (1, N) -> (T, S), as audio.pitch.scores gives them."""
        window, span, whole = pitch.layout(self.config.sr)
        side, hop = (whole - span) // 2, self.hop
        left = side + (window + (span - window) // 2 - hop) // 2
        wav = F.pad(wav[None], (left, whole - hop - left))
        wav = wav[..., side:-side] - F.conv1d(wav, self.smooth)  # (1, 1, (T - 1) * hop + span)
        frames = overlapping(F.pad(wav[0, 0], (0, -span % hop)), hop, span)  # (T, span)
        frames = frames - frames.mean(-1, keepdim=True)
        n_fft = len(self.numbers)
        (a, b), (c, d) = (transform(x, n_fft, self.numbers) for x in (frames[:, :window], frames))
        lags = span - window + 1
        common = back(a * c + b * d, a * d - b * c, n_fft, self.numbers, lags)
        return self.scores(frames, common)

    def scores(self, frames: Tensor, common: Tensor) -> Tensor:
        """frames (T, span), and their products with themselves at each lag (T, lags) -> (T, S)."""
        window, lags = pitch.layout(self.config.sr)[0], common.shape[1]
        energy = F.pad(frames.square().cumsum(-1), (1, 0))
        later = (energy[:, window : window + lags] - energy[:, :lags]).clamp_min(0)
        difference = (later[:, :1] + later - 2 * common).clamp_min(0)
        mean = difference.cumsum(-1) / (self.numbers[:lags] + 1)
        score = (1 - difference / (mean + 1e-5 * window)).clamp_min(-1)
        score = torch.where(later[:, :1] > 1e-6 * window, score, torch.zeros_like(score))
        return score[:, self.lag] * (1 - self.share) + score[:, self.lag + 1] * self.share


class CodecDecoder(CodecGraph):
    """codes (1, Q, T), -1 where a codebook is not used -> wav (1, T * hop)."""

    inputs, outputs, axes = ("codes",), ("wav",), {"codes": 2}

    def __init__(self, codec: Codec):
        super().__init__(codec)
        self.decoder = codec.decoder
        self.register_buffer("numbers", torch.arange(codec.decoder.n_fft, dtype=torch.float32))
        hop = codec.decoder.hop
        noise = codec.decoder.noise[: (TABLE + 1) * hop].view(TABLE + 1, hop)
        self.register_buffer("noise", noise.half().float())  # so that a file holds it in 16 bits: -70 dB

    def silence(self) -> tuple[Tensor, ...]:
        return (torch.zeros(1, self.quantiser.codebooks, 12, dtype=torch.long),)

    def forward(self, codes: Tensor) -> Tensor:
        return self.sound(self.latent(codes))

    def latent(self, codes: Tensor) -> Tensor:
        """codes (1, Q, T) -> z (1, D, T)."""
        fsq = self.quantiser.fsq
        codes = codes.transpose(1, 2)  # (1, T, Q)
        digits = torch.div(codes.clamp(min=0)[..., None], self.basis, rounding_mode="floor") % self.levels
        vectors = (digits.float() * (2 / (fsq.size - 1)) - 1) * (codes >= 0)[..., None].float()  # (1, T, Q, d)
        z = torch.cat([out(vectors[:, :, g]) for g, out in enumerate(self.quantiser.project_out)], dim=-1)
        return z.transpose(1, 2)

    def sound(self, z: Tensor) -> Tensor:
        """z (1, D, T) -> wav (1, T * hop)."""
        net = self.decoder
        logits, gains = net.parts(z)
        f0 = net.f0(logits, gains)  # (1, T)
        frames, hop = self.frames(f0, gains), net.hop  # (T, n_fft)
        halves = frames.reshape(-1, 2, hop)
        total = F.pad(halves[:, 0], (0, 0, 0, 1)) + F.pad(halves[:, 1], (0, 0, 1, 0))  # (T + 1, hop)
        square = net.window.square().view(2, hop)
        first, last = 1 + 0 * f0[0], 1 + 0 * f0[0]  # (T,)
        seen = F.pad(first[:, None] * square[0], (0, 0, 0, 1)) + F.pad(last[:, None] * square[1], (0, 0, 1, 0))
        wav = (total / seen.clamp_min(1e-2)).view(1, -1)
        return wav[:, hop // 2 : -(hop - hop // 2)]

    def frames(self, f0: Tensor, gains: Tensor) -> Tensor:
        """As PulseDecoder.frames of a recording from its beginning -> (T, n_fft)."""
        net = self.decoder
        steps = (torch.cat([f0[:, :1], f0[:, :-1]], dim=1) + f0).double() * (net.hop / 2 / net.sr)
        turns = torch.cat([0 * steps[:, :1], steps[:, 1:]], dim=1).cumsum(1)
        turns = turns - turns.floor()
        number = (torch.ones_like(f0[0]).cumsum(0) - 1).long() % TABLE
        noise = torch.cat([self.noise[number], self.noise[number + 1]], dim=1)  # (T, n_fft)
        sources = torch.stack([pulses(f0, turns, net.sr, net.n_fft)[0], noise])  # (2, T, n_fft)
        shaped = net.envelopes(gains)[0]  # (2, T, bins)
        parts = transform(sources * net.window, net.n_fft, self.numbers)
        spectrum = [(part * shaped).sum(0, keepdim=True) for part in parts]  # real and imaginary part (1, T, bins)
        if net.correction is not None:
            spectrum = net.correction(*spectrum, gains[:, 2 * BANDS :])
        return back(spectrum[0][0], spectrum[1][0], net.n_fft, self.numbers, net.n_fft) * net.window
