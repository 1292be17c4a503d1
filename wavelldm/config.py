"""Every number of every preset, as frozen dataclasses, with the derived ones computed once, here."""

import math
from dataclasses import asdict, dataclass, field, fields, replace

from .errors import WavelldmError
from .ladder_config import AutoencoderConfig, RefinementConfig, VAEConfig, VocoderConfig


@dataclass(frozen=True)
class MelConfig:
    """A log-mel front end: log(clamp(bank @ |STFT|**power, floor))."""

    sr: int = 16_000
    n_fft: int = 1024
    win: int = 1024
    hop: int = 256
    n_mels: int = 100
    fmin: float = 0.0
    fmax: float = 8_000.0
    scale: str = "slaney"  # or "htk"
    norm: str = "slaney"  # triangles of equal area, or "none": of equal height
    power: float = 1.0  # 1: magnitude, 2: power
    floor: float = 1e-5
    padding: str = "same"  # "center": 1 + N // hop frames; "same": N / hop; "causal": N / hop, no look-ahead

    @property
    def frame_rate(self) -> float:
        return self.sr / self.hop  # frames per second


@dataclass(frozen=True)
class CodecConfig:
    """Encoder, grouped residual FSQ and decoder; the numbers follow WaveLLDM (arXiv 2508.21153)."""

    depths: tuple = (3, 3, 9, 3)  # ConvNeXt blocks per stage
    dims: tuple = (128, 256, 384, 384)  # their widths
    latent_dim: int = 384  # D in z (B, D, T)
    expansion: int = 4  # of the channels inside a ConvNeXt block
    strides: tuple = ()  # extra down-sampling between mel frames and latent frames
    levels: tuple = (8, 8, 8, 6, 5)  # FSQ levels of one codebook: 15,360 entries
    groups: int = 4  # slices of the latent's channels ...
    residuals: int = 1  # ... each quantised this many times
    hear_pitch: bool = False  # the encoder also sees how well each pitch fits (pitch.py)
    decoder: str = "hifigan"  # or "istft", "source"
    decoder_dim: int = 512  # channels it starts with
    decoder_depth: int = 6  # ConvNeXt blocks (istft, source)
    polish: int = 0  # steps of Griffin-Lim that make the head's phases fit its magnitudes (istft)
    upsample: tuple = (8, 8, 2, 2, 2)  # rates that multiply to the mel hop (hifigan)
    causal: bool = False  # no look-ahead, so that it can stream

    @property
    def codebooks(self) -> int:
        return self.groups * self.residuals  # Q in codes (B, Q, T)

    @property
    def entries(self) -> int:
        return math.prod(self.levels)

    @property
    def bits_per_code(self) -> float:
        return math.log2(self.entries)


@dataclass(frozen=True)
class UNetConfig:
    """The latent U-Net; one entry of dims per rate, each `stride` times slower than the one before."""

    dims: tuple = (160, 192, 256)  # channels at each rate
    depth: int = 1  # blocks before and after the coarser rates, at each rate
    stride: int = 2
    kernel: int = 3
    embedding: int = 192  # channels of the embedded step
    cond_dim: int = 96  # channels of the condition that scales and shifts
    heads: int = 4
    window: int = 64  # coarsest frames that attention looks back
    dropout: float = 0.0
    causal: bool = True  # frame t sees no later frame
    schedule: str = "cosine"
    steps: int = 1000
    predicts: str = "z0"  # or "v", "eps"
    path: str = "noise"  # from pure noise to z0; "bridge": from the noisy latent; "none": a predictor, one pass, nothing drawn
    spread: float = 0.5  # deviation of the noise that a bridge adds to its noisy end


@dataclass(frozen=True)
class MaskConfig:
    """The network that cleans a noisy spectrum by a complex mask and a filter over frames (masknet.py)."""

    sr: int = 16_000
    n_fft: int = 512
    hop: int = 256  # frame t has its middle where latent frame t of the codec has
    low: int = 65  # bins kept one by one (up to 2 kHz)
    ahead: int = 1  # frames to come that the network looks at, and the filter reaches forward to
    taps: int = 4  # earlier frames that the filter of these bins reaches back to; 0: a mask alone
    bands: int = 128  # these, and wider ones above
    width: int = 96  # channels
    blocks: int = 6
    power: float = 0.3  # compression of the magnitudes it sees
    latent_dim: int = 0  # of the guiding latent; 0: none


@dataclass(frozen=True)
class PriorConfig:
    """The diffusion prior of clean speech over complex spectra (prior.py); one entry of dims per level, finest first."""

    sr: int = 16_000
    n_fft: int = 512
    hop: int = 256
    patch: int = 2  # neighbouring bins taken together
    dims: tuple = (32, 64, 128, 192)  # channels at each level
    shrink_bins: tuple = (2, 2, 2)  # strides over frequency from each level to the next ...
    shrink_frames: tuple = (1, 2, 2)  # ... and over time
    depth: int = 1  # blocks before and after the coarser levels, at each level
    heads: int = 2
    embedding: int = 128  # channels of the embedded step
    separable: bool = True  # convolutions in two steps: each channel, then each bin
    activation: str = "silu"  # or "relu", "gelu"
    schedule: str = "cosine"  # or "linear"
    steps: int = 1000
    predicts: str = "v"  # or "z0"; "eps" with the linear schedule, as in the paper

    @property
    def bins(self) -> int:
        return self.n_fft // 2  # all but that of 0 Hz


@dataclass(frozen=True)
class SeganConfig:
    """SEGAN (arXiv 1703.09452), scaled to at most 256 channels (segan.py)."""

    sr: int = 16_000
    widths: tuple = (16, 32, 32, 64, 64, 128, 128, 256)  # channels of each layer, twice as slow as the one before
    kernel: int = 31
    latent: bool = False  # a random z beside the encoded sound
    emphasis: float = 0.95  # y[n] = x[n] - emphasis x[n - 1] is what the networks see
    window: int = 16_384  # samples that are cleaned at a time


@dataclass(frozen=True)
class WaveConfig:
    """The waveform denoiser that is told, or finds out, how noisy its input is (wavedenoiser.py)."""

    sr: int = 16_000
    widths: tuple = (64, 128, 256, 512)  # channels of each layer ...
    stride: int = 4  # ... that many times slower than the one before
    kernel: int = 15
    embedding: int = 128  # numbers that t becomes
    dropout: float = 0.1
    skips: bool = True  # from each layer of the encoder to its partner, and from the input to the output
    leveled: bool = True  # t is the noise level; False: drawn at random, as the original had it
    spectral: bool = False  # spectral normalisation of all convolutions
    resolutions: tuple = (256, 512, 1024)  # STFT windows of the loss, in samples


@dataclass(frozen=True)
class Preset:
    """A front end and the networks that stand on it."""

    name: str
    mel: MelConfig = field(default_factory=MelConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    segan: SeganConfig = field(default_factory=SeganConfig)
    wave: WaveConfig = field(default_factory=WaveConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    vocoder: VocoderConfig = field(default_factory=VocoderConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    refinement: RefinementConfig = field(default_factory=RefinementConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)

    @property
    def hop(self) -> int:
        return self.mel.hop * math.prod(self.codec.strides)  # samples per latent frame

    @property
    def latent_rate(self) -> float:
        return self.mel.sr / self.hop  # latent frames per second

    def bitrate(self, codebooks: int | None = None) -> float:
        """Bits per second of the codes, without a container."""
        return (codebooks or self.codec.codebooks) * self.codec.bits_per_code * self.latent_rate

    def to_dict(self) -> dict:
        return asdict(self)


# The front ends by name. `audioldm2` is the one of AudioLDM2's VAE, `speecht5` of the vocoder that came with SpeechT5, `wavelldm44k` of WaveLLDM.
MELS = {
    "audioldm2": MelConfig(hop=160, n_mels=64, padding="center"),
    "speecht5": MelConfig(n_mels=80, fmin=80.0, fmax=7_600.0, floor=1e-10, padding="center"),
    "base16k": MelConfig(),
    "wavelldm44k": MelConfig(sr=44_100, n_fft=2048, win=2048, hop=512, n_mels=160, fmax=22_050.0),
}

PRESETS = {
    "tiny": Preset(
        "tiny",
        MELS["base16k"],
        CodecConfig((1, 1), (32, 48), 48, expansion=2, decoder="istft", decoder_dim=64, decoder_depth=2),
        UNetConfig(dims=(32, 48), embedding=32, cond_dim=16, heads=2),
        MaskConfig(width=16, blocks=1),
        SeganConfig(widths=(8, 16, 16, 32), window=4_096),
        WaveConfig(widths=(16, 32, 48), embedding=32),
        PriorConfig(dims=(8, 16, 24), shrink_bins=(4, 4), shrink_frames=(2, 2), embedding=32),
        VocoderConfig(width=24, depth=1, rounds=4),
        VAEConfig(widths=(8, 16, 16)),
        RefinementConfig(width=16, depth=1),
        AutoencoderConfig(width=24, depth=1),
    ),
    "base16k": Preset(
        "base16k",
        MELS["base16k"],
        CodecConfig((1, 1, 2), (128, 256, 384), expansion=2, decoder="istft", decoder_dim=256, decoder_depth=6, polish=32),
    ),
    "paper44k": Preset("paper44k", MELS["wavelldm44k"], unet=UNetConfig((320, 384, 512), embedding=256, cond_dim=128)),
}
PRESETS["voice16k"] = Preset(
    "voice16k",
    MELS["base16k"],
    CodecConfig((1, 1, 2), (128, 256, 384), expansion=2, hear_pitch=True, decoder="source", decoder_dim=256, decoder_depth=6),
    UNetConfig((112, 128, 144), embedding=128, cond_dim=64),
)
PRESETS["wave48k"] = replace(PRESETS["base16k"], name="wave48k", wave=WaveConfig(sr=48_000, resolutions=(768, 1536, 3072)))
PRESETS["small"] = replace(PRESETS["base16k"], name="small", unet=UNetConfig((64, 96), embedding=96, cond_dim=48))

PRESETS["ladder"] = replace(PRESETS["base16k"], name="ladder", mel=MELS["audioldm2"], autoencoder=AutoencoderConfig(follow=0.5))
PRESETS["ladder-wide"] = replace(PRESETS["ladder"], name="ladder-wide", vae=VAEConfig(latent=16, shortcut=True))
PRESETS["ladder-words"] = replace(PRESETS["ladder"], name="ladder-words", vae=VAEConfig(latent=1, words=1024))


def preset(name: str) -> Preset:
    if name not in PRESETS:
        raise WavelldmError(f"there is no preset '{name}'; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


PARTS = {  # of a preset
    "mel": MelConfig, "codec": CodecConfig, "unet": UNetConfig, "mask": MaskConfig, "segan": SeganConfig, "wave": WaveConfig, "prior": PriorConfig,
    "vocoder": VocoderConfig, "vae": VAEConfig, "refinement": RefinementConfig, "autoencoder": AutoencoderConfig,
}  # fmt: skip


def from_dict(kind, values: dict):
    """Build a config dataclass from plain values (JSON), refusing keys it does not know."""
    known = {f.name: f for f in fields(kind)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise WavelldmError(f"{kind.__name__} does not know {', '.join(unknown)}; it knows {', '.join(known)}")
    built = {k: from_dict(PARTS[k], v) if kind is Preset and k in PARTS else v for k, v in values.items()}
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in built.items()})


def override(base: Preset, settings: list[str]) -> Preset:
    """Change single numbers of a preset: "mel.n_mels=80", "codec.levels=8,8,8"."""
    values = base.to_dict()
    for setting in settings:
        key, equals, text = setting.partition("=")
        part, dot, name = key.partition(".")
        if not equals or not dot or name not in values.get(part, {}):
            known = ", ".join(f"{p}.{n}" for p in PARTS for n in values[p])
            raise WavelldmError(f"'{setting}' is not a setting like mel.n_mels=80; there are {known}")
        old = values[part][name]
        try:
            if isinstance(old, tuple):
                values[part][name] = tuple(int(x) for x in text.split(",") if x)
            elif isinstance(old, bool):
                values[part][name] = {"true": True, "false": False}[text.lower()]
            else:
                values[part][name] = type(old)(text)
        except (ValueError, KeyError):
            raise WavelldmError(f"'{text}' does not fit {key}, which is {old!r} now; give a value of that kind") from None
    return from_dict(Preset, values)
