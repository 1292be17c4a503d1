"""The codec: log-mel -> ConvNeXt encoder -> z (B, D, T) -> grouped FSQ -> decoder -> wav of the very same length.

The design is WaveLLDM's (arXiv 2508.21153) after Firefly-GAN (arXiv 2411.01156); every number is in CodecConfig.
"""

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio import pitch
from ..audio.mel import LogMel, MelConfig
from ..errors import AudioError, WavelldmError
from ..nn.layers import Chain, ChannelNorm, Conv1d, ConvNeXtBlock, ConvTranspose1d
from .decoders import HiFiGAN, ISTFTHead
from .fsq import GFSQ
from .pulse import PulseDecoder


@dataclass(frozen=True)
class CodecConfig:
    """Encoder, grouped residual FSQ and decoder; the numbers follow WaveLLDM (arXiv 2508.21153)."""

    mel: MelConfig = field(default_factory=MelConfig)  # what the encoder sees
    depths: tuple = (3, 3, 9, 3)  # ConvNeXt blocks per stage
    dims: tuple = (128, 256, 384, 384)  # their widths
    latent_dim: int = 384  # D in z (B, D, T)
    expansion: int = 4  # of the channels inside a ConvNeXt block
    strides: tuple = ()  # extra down-sampling between mel frames and latent frames
    levels: tuple = (8, 8, 8, 6, 5)  # FSQ levels of one codebook: 15,360 entries
    groups: int = 4  # slices of the latent's channels ...
    residuals: int = 1  # ... each quantised this many times
    pitch_input: bool = False  # the encoder also sees how well each pitch fits (audio/pitch.py)
    decoder: str = "hifigan"  # or "istft", "pulse"
    decoder_dim: int = 512  # channels it starts with
    decoder_depth: int = 6  # ConvNeXt blocks (istft, source)
    correction: int = 0  # channels of a network that corrects the spectra of pulses and noise; 0: none (pulse)
    polish: int = 0  # steps of Griffin-Lim that make the head's phases fit its magnitudes (istft)
    upsample: tuple = (8, 8, 2, 2, 2)  # rates that multiply to the mel hop (hifigan)
    causal: bool = False  # no look-ahead, so that it can stream ...
    ahead: int = 0  # ... but for so many latent frames in the encoder

    @property
    def sr(self) -> int:
        return self.mel.sr

    @property
    def hop(self) -> int:
        return self.mel.hop * math.prod(self.strides)  # samples per latent frame

    @property
    def latent_rate(self) -> float:
        return self.sr / self.hop  # latent frames per second

    @property
    def codebooks(self) -> int:
        return self.groups * self.residuals  # Q in codes (B, Q, T)

    @property
    def entries(self) -> int:
        return math.prod(self.levels)

    @property
    def bits_per_code(self) -> float:
        return math.log2(self.entries)

    def bitrate(self, codebooks: int | None = None) -> float:
        """Bits per second of the codes, without a container."""
        return (codebooks or self.codebooks) * self.bits_per_code * self.latent_rate


class Coded(NamedTuple):
    wav: Tensor  # (B, 1, N), decoded
    z: Tensor  # (B, D, T), continuous
    z_q: Tensor  # (B, D, T), quantised
    codes: Tensor  # (B, Q, T)


def make_encoder(c: CodecConfig) -> Chain:
    """features (B, M, F) -> z (B, D, T): stages of ConvNeXt blocks, then a strided convolution and block per stride."""
    inputs = c.mel.n_mels + (pitch.COUNT if c.pitch_input else 0)
    layers = [Conv1d(inputs, c.dims[0], 7, causal=c.causal), ChannelNorm(c.dims[0])]
    for i, (depth, dim) in enumerate(zip(c.depths, c.dims)):
        if i > 0:
            layers += [ChannelNorm(c.dims[i - 1]), Conv1d(c.dims[i - 1], dim, 1, causal=c.causal)]
        layers += [ConvNeXtBlock(dim, c.expansion, c.causal) for _ in range(depth)]
    if c.dims[-1] != c.latent_dim:
        layers += [ChannelNorm(c.dims[-1]), Conv1d(c.dims[-1], c.latent_dim, 1, causal=c.causal)]
    for stride in c.strides:
        layers += [Conv1d(c.latent_dim, c.latent_dim, stride, stride, causal=c.causal)]
        layers += [ConvNeXtBlock(c.latent_dim, c.expansion, c.causal)]
    return Chain(*layers, ChannelNorm(c.latent_dim))


def make_upsampler(c: CodecConfig) -> Chain:
    """z (B, D, T) -> (B, D, F): undo the encoder's strides in reverse."""
    layers = []
    for stride in reversed(c.strides):
        layers += [ConvTranspose1d(c.latent_dim, c.latent_dim, stride, stride, causal=c.causal)]
        layers += [ConvNeXtBlock(c.latent_dim, c.expansion, c.causal)]
    return Chain(*layers)


def make_decoder(c: CodecConfig) -> nn.Module:
    """(B, D, F) -> wav (B, 1, F * hop)."""
    if c.decoder == "hifigan":
        if math.prod(c.upsample) != c.mel.hop:
            raise WavelldmError(
                f"the upsampling rates {c.upsample} multiply to {math.prod(c.upsample)}, "
                f"but a mel frame has {c.mel.hop} samples; make them equal"
            )
        return HiFiGAN(c.latent_dim, c.decoder_dim, c.upsample, causal=c.causal)
    if c.decoder == "istft":
        return ISTFTHead(
            c.latent_dim, c.decoder_dim, c.decoder_depth, c.expansion, c.mel.n_fft, c.mel.hop, c.causal, c.polish
        )
    if c.decoder == "pulse":
        sizes = (c.latent_dim, c.decoder_dim, c.decoder_depth, c.expansion, c.mel.sr, c.mel.hop)
        return PulseDecoder(*sizes, c.causal, c.correction)
    raise WavelldmError(f"there is no decoder '{c.decoder}'; choose hifigan, istft or pulse")


class Codec(nn.Module):
    """Encoder, quantiser and decoder. Any length goes in and comes out; zeros fill the last frame.

    Built with `causal=True` it also streams, in both directions: `initial_encoder_state`, `encode_step` and
    `encode_finish` make of blocks what `encode` makes of the whole, and `initial_decoder_state`, `decode_step` and
    `decode_finish` what `decode` does. What comes out then lags `latency` samples behind what went in."""

    Config = CodecConfig
    name, hash, reads = "untrained", None, ()  # set by weights.load

    def __init__(self, config: CodecConfig):
        super().__init__()
        c = self.config = config
        if c.ahead and not c.causal:
            raise WavelldmError(f"ahead={c.ahead} is for codecs that stream; build it with causal=True, or ahead=0")
        if len(c.depths) != len(c.dims):
            raise WavelldmError(f"depths {c.depths} and dims {c.dims} differ in number; give every encoder stage both")
        self.sr, self.hop, self.causal = c.sr, c.hop, c.causal
        mel = replace(c.mel, padding="causal" if c.causal else "same")
        self.mel = LogMel(mel)
        span = max(mel.n_fft, pitch.layout(mel.sr)[2] if c.pitch_input else 0)
        self.past = -(-(span - mel.hop) // mel.hop) * mel.hop  # samples before a chunk that its frames need
        self.encoder = make_encoder(c)
        self.quantiser = GFSQ(c.latent_dim, c.groups, c.residuals, c.levels)
        self.upsampler = make_upsampler(c)
        self.decoder = make_decoder(c)

    @property
    def latency(self) -> int:
        return (1 + self.config.ahead) * self.hop + self.decoder.delay  # samples, when streaming

    def frames(self, length: int) -> int:
        return -(-length // self.hop)  # latent frames for `length` samples

    def _check(self, wav: Tensor, sr: int):
        if sr != self.sr:
            raise AudioError(f"this codec takes {self.sr} Hz, not {sr} Hz; resample first (wavelldm.audio.resample)")
        if wav.ndim != 3 or wav.shape[1] != 1 or not wav.is_floating_point():
            raise AudioError(
                f"the codec takes float wav (batch, 1, samples), not {wav.dtype} {tuple(wav.shape)}; "
                "put channels into the batch"
            )

    def spectrogram(self, wav: Tensor) -> Tensor:
        """wav -> mel (B, M, F), counted from silence (-2.5) to magnitude one (2.5): for speech about mean 0, deviation
        1."""
        return 2.5 - 5 * self.mel(wav, self.sr) / math.log(self.config.mel.floor)

    def _features(self, wav: Tensor) -> Tensor:
        """wav -> what the encoder sees: the mel; with `pitch_input`, below it how well each pitch fits (B, M + S,
        F)."""
        with torch.autocast(wav.device.type, enabled=False):
            mel = self.spectrogram(wav.float())
            if not self.config.pitch_input:
                return mel
            return torch.cat([mel, pitch.scores(wav.float(), self.sr, self.config.mel.hop, self.causal)], dim=1)

    def encode(self, wav: Tensor, sr: int) -> Tensor:
        """wav (B, 1, N) -> z (B, D, ceil(N / hop))."""
        self._check(wav, sr)
        if wav.shape[-1] == 0:
            raise AudioError("there are no samples to encode; give at least one")
        ahead = self.config.ahead
        return self.encoder(self._features(F.pad(wav, (0, -wav.shape[-1] % self.hop + ahead * self.hop))))[..., ahead:]

    def quantise(self, z: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z (B, D, T) of the encoder -> z_q (B, D, T), codes (B, Q, T); `keep` (B,) as in `fsq.random_keep`. Of a z_q
        it makes other codes: the projections before and after the rounding are no inverse of each other."""
        self._check_latent(z)
        return self.quantiser(z, keep)

    def decode(self, z_q: Tensor, length: int | None = None) -> Tensor:
        """z_q (B, D, T) -> wav (B, 1, length), by default T * hop samples."""
        self._check_latent(z_q)
        most = z_q.shape[-1] * self.hop
        length = most if length is None else length
        if not 0 < length <= most:
            raise WavelldmError(
                f"{z_q.shape[-1]} latent frames hold 1 to {most} samples, not {length}; give the encoded length"
            )
        return self.decoder(self.upsampler(z_q))[..., :length]

    def initial_window_state(self, batch: int) -> tuple | None:
        """For `decode_window` of the first window of a recording."""
        return self.decoder.initial_window_state(batch) if isinstance(self.decoder, PulseDecoder) else None

    def decode_window(self, z_q: Tensor, before: int, count: int, state: tuple | None) -> tuple[Tensor, tuple | None]:
        """A window (B, D, T) of a longer latent -> wav (B, 1, count * hop) of its frames from `before` on, state for
        the window whose new frames come next. The other frames are context. For codecs that are not causal."""
        self._check_latent(z_q)
        x = self.upsampler(z_q)
        if isinstance(self.decoder, PulseDecoder):
            rate = self.hop // self.config.mel.hop
            wav, state = self.decoder.window_step(x, before * rate, count * rate, state)
        else:
            wav = self.decoder(x)
        return wav[..., before * self.hop : (before + count) * self.hop], state

    def spectrum(self, z_q: Tensor) -> Tensor:
        """z_q (B, D, T) -> the spectrum from the iSTFT head, complex (B, n_fft / 2 + 1, F)."""
        return self.decoder.spectrum(self.decoder.body(self.upsampler(z_q)))

    def _check_latent(self, z: Tensor):
        dim = self.config.latent_dim
        if z.ndim != 3 or z.shape[1] != dim:
            raise WavelldmError(
                f"this codec's latents are (batch, {dim}, frames), not {tuple(z.shape)}; use the codec that made them"
            )

    def codes_to_wav(self, codes: Tensor, length: int | None = None) -> Tensor:
        """codes (B, K, T), of all codebooks or of the first K -> wav (B, 1, length)."""
        return self.decode(self.quantiser.decode_codes(codes), length)

    def forward(self, wav: Tensor, keep: Tensor | None = None) -> Coded:
        """wav (B, 1, N) at the codec's rate -> Coded, its wav (B, 1, N) too."""
        z = self.encode(wav, self.sr)
        z_q, codes = self.quantise(z, keep)
        return Coded(self.decode(z_q, wav.shape[-1]), z, z_q, codes)

    def initial_encoder_state(self, batch: int) -> tuple:
        """Samples that the next frame needs, the encoder's own state, samples of the frame that is not yet full, and
        frames that lie before the beginning."""
        before = self.encoder[0].weight.new_zeros(batch, 1, self.past)
        return before, self.encoder.initial_state(batch), 0, self.config.ahead

    def encode_step(self, wav: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        """The next block (B, 1, any), at the codec's rate -> z (B, D, frames complete by now), state."""
        self._check(wav, self.sr)
        before, layers, filled, drop = state
        filled = (filled + wav.shape[-1]) % self.hop
        wav = torch.cat([before, wav], dim=-1)
        hop = self.config.mel.hop
        new = (wav.shape[-1] - self.past) // hop  # mel frames
        features = wav.new_zeros(wav.shape[0], self.encoder[0].in_channels, 0)
        if new:
            features = self._features(wav[..., : self.past + new * hop])[..., self.past // hop :]
        z, layers = self.encoder.step(features, layers)
        return z[..., drop:], (wav[..., new * hop :], layers, filled, max(0, drop - z.shape[-1]))

    def encode_finish(self, state: tuple) -> Tensor:
        """The frames still to come, filled up with zeros: (B, D, ahead) where the blocks ended with a frame, else one
        more."""
        rest = -state[2] % self.hop + self.config.ahead * self.hop
        return self.encode_step(state[0].new_zeros(state[0].shape[0], 1, rest), state)[0]

    def initial_decoder_state(self, batch: int) -> tuple:
        return self.upsampler.initial_state(batch), self.decoder.initial_state(batch)

    def decode_step(self, z_q: Tensor, state: tuple) -> tuple[Tensor, tuple]:
        """The next frames (B, D, any) -> wav (B, 1, what is ready), state."""
        self._check_latent(z_q)
        x, upsampler = self.upsampler.step(z_q, state[0])
        wav, decoder = self.decoder.step(x, state[1])
        return wav, (upsampler, decoder)

    def decode_finish(self, state: tuple) -> Tensor:
        """What the decoder still holds back: (B, 1, decoder.delay)."""
        return self.decoder.finish(state[1])
