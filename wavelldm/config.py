"""Every number of every preset, as frozen dataclasses, with the derived ones computed once, here."""

import math
from dataclasses import asdict, dataclass, field, fields

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
    decoder: str = "hifigan"  # or "istft"
    decoder_dim: int = 512  # channels it starts with
    decoder_depth: int = 6  # ConvNeXt blocks (istft)
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
class Preset:
    """A front end and the networks that stand on it."""

    name: str
    mel: MelConfig = field(default_factory=MelConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)

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
    ),
    "base16k": Preset(
        "base16k",
        MELS["base16k"],
        CodecConfig((1, 1, 2), (128, 256, 384), expansion=2, decoder="istft", decoder_dim=256, decoder_depth=6, polish=32),
    ),
    "paper44k": Preset("paper44k", MELS["wavelldm44k"]),
}


def preset(name: str) -> Preset:
    if name not in PRESETS:
        raise WavelldmError(f"there is no preset '{name}'; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def from_dict(kind, values: dict):
    """Build a config dataclass from plain values (JSON), refusing keys it does not know."""
    known = {f.name: f for f in fields(kind)}
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise WavelldmError(f"{kind.__name__} does not know {', '.join(unknown)}; it knows {', '.join(known)}")
    nested = {"mel": MelConfig, "codec": CodecConfig}
    built = {k: from_dict(nested[k], v) if kind is Preset and k in nested else v for k, v in values.items()}
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in built.items()})


def override(base: Preset, settings: list[str]) -> Preset:
    """Change single numbers of a preset: "mel.n_mels=80", "codec.levels=8,8,8"."""
    values = base.to_dict()
    for setting in settings:
        key, equals, text = setting.partition("=")
        part, dot, name = key.partition(".")
        if not equals or not dot or name not in values.get(part, {}):
            known = ", ".join(f"{p}.{n}" for p in ("mel", "codec") for n in values[p])
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
