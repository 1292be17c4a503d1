"""Configs are frozen dataclasses, one for each network. Here: built from JSON, and changed from the command line."""

from dataclasses import fields

from .audio.mel import MelConfig
from .codec.model import CodecConfig
from .denoise.mask import MaskConfig
from .denoise.segan import SeganConfig
from .denoise.waveform import WaveConfig
from .diffusion.unet import UNetConfig
from .errors import WavelldmError
from .ladder.autoencoder import AutoencoderConfig
from .ladder.refinement import RefinementConfig
from .mel.vae import VAEConfig
from .mel.vocoder import VocoderConfig
from .refine.prior import PriorConfig
from .training.presets import Preset

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
