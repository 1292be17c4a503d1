"""Every number of every preset, as frozen dataclasses, with the derived ones computed once, here."""

import math
from dataclasses import asdict, dataclass, field, fields, replace

from .errors import WavelldmError


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
    """The network that cleans a noisy spectrum by a complex mask (masknet.py)."""

    sr: int = 16_000
    n_fft: int = 512
    hop: int = 256  # frame t has its middle where latent frame t of the codec has
    low: int = 65  # bins kept one by one (up to 2 kHz)
    bands: int = 128  # these, and wider ones above
    width: int = 48  # channels
    blocks: int = 3
    power: float = 0.3  # compression of the magnitudes it sees
    latent_dim: int = 0  # of the guiding latent; 0: none


@dataclass(frozen=True)
class Preset:
    """A front end and the networks that stand on it."""

    name: str
    mel: MelConfig = field(default_factory=MelConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)

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


# The front ends by name. `audioldm2` is the one of AudioLDM2's VAE, `wavelldm44k` the one of WaveLLDM.
MELS = {
    "audioldm2": MelConfig(hop=160, n_mels=64, padding="center"),
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
)
PRESETS["small"] = replace(PRESETS["base16k"], name="small", unet=UNetConfig((64, 96), embedding=96, cond_dim=48))


def preset(name: str) -> Preset:
    if name not in PRESETS:
        raise WavelldmError(f"there is no preset '{name}'; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


PARTS = {"mel": MelConfig, "codec": CodecConfig, "unet": UNetConfig, "mask": MaskConfig}  # of a preset


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
