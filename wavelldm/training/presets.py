"""Named sizes of every network: a preset only combines the configs that stand beside the networks."""

from dataclasses import dataclass, field, replace

from ..audio.mel import MELS
from ..codec.look import LooksConfig
from ..codec.model import CodecConfig
from ..denoise.mask import MaskConfig
from ..denoise.segan import SeganConfig
from ..denoise.waveform import WaveConfig
from ..diffusion.latent import DiffusionConfig
from ..diffusion.unet import UNetConfig
from ..errors import WavelldmError
from ..ladder.autoencoder import AutoencoderConfig
from ..ladder.refinement import RefinementConfig
from ..mel.vae import VAEConfig
from ..mel.vocoder import VocoderConfig
from ..refine.prior import PriorConfig
from ..restore.filler import FillerConfig
from ..restore.latent import SpeechLatentConfig


@dataclass(frozen=True)
class Preset:
    """One config for each network."""

    name: str
    codec: CodecConfig = field(default_factory=CodecConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    segan: SeganConfig = field(default_factory=SeganConfig)
    waveform: WaveConfig = field(default_factory=WaveConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    vocoder: VocoderConfig = field(default_factory=VocoderConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    refinement: RefinementConfig = field(default_factory=RefinementConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    latent: SpeechLatentConfig = field(default_factory=SpeechLatentConfig)
    filler: FillerConfig = field(default_factory=FillerConfig)
    looks: LooksConfig = field(default_factory=LooksConfig)


PRESETS = {
    "tiny": Preset(
        "tiny",
        CodecConfig(
            MELS["base16k"], (1, 1), (32, 48), 48, expansion=2, decoder="istft", decoder_dim=64, decoder_depth=2
        ),
        DiffusionConfig(48, UNetConfig(dims=(32, 48), embedding=32, cond_dim=16, heads=2)),
        MaskConfig(width=16, blocks=1),
        SeganConfig(widths=(8, 16, 16, 32), window=4_096),
        WaveConfig(widths=(16, 32, 48), embedding=32),
        PriorConfig(dims=(8, 16, 24), shrink_bins=(4, 4), shrink_frames=(2, 2), embedding=32),
        VocoderConfig(MELS["base16k"], width=24, depth=1, rounds=4),
        VAEConfig(MELS["base16k"], widths=(8, 16, 16)),
        RefinementConfig(MELS["base16k"].n_mels, width=16, depth=1),
        AutoencoderConfig(width=24, depth=1),
        SpeechLatentConfig(size=16, encoder_width=32, encoder_depth=1, width=48, depth=2),
        FillerConfig(size=16, width=48, dilations=(1, 2, 0, 1), heads=2),
        LooksConfig(48, looks=2, width=24, depth=1, seen=8, memory=8),
    ),
    "base16k": Preset(
        "base16k",
        CodecConfig(
            MELS["base16k"], (1, 1, 2), (128, 256, 384), expansion=2, decoder="istft", decoder_dim=256,
            decoder_depth=6, polish=32,
        ),
        vocoder=VocoderConfig(MELS["base16k"]),
        vae=VAEConfig(MELS["base16k"]),
        refinement=RefinementConfig(MELS["base16k"].n_mels),
    ),
    "voice16k": Preset(
        "voice16k",
        CodecConfig(
            MELS["base16k"], (1, 1, 2), (128, 256, 384), expansion=2, pitch_input=True, decoder="pulse",
            decoder_dim=256, decoder_depth=6, correction=192,
        ),
        DiffusionConfig(unet=UNetConfig((112, 128, 144), embedding=128, cond_dim=64)),
    ),
    "paper44k": Preset(
        "paper44k",
        CodecConfig(MELS["wavelldm44k"]),
        DiffusionConfig(unet=UNetConfig((320, 384, 512), embedding=256, cond_dim=128)),
    ),
}  # fmt: skip
PRESETS["ladder"] = replace(
    PRESETS["base16k"],
    name="ladder",
    vocoder=VocoderConfig(),
    vae=VAEConfig(),
    refinement=RefinementConfig(),
    autoencoder=AutoencoderConfig(follow=0.5),
)
PRESETS["voice16k-live"] = replace(
    PRESETS["voice16k"],
    name="voice16k-live",
    codec=replace(PRESETS["voice16k"].codec, causal=True, ahead=1),
)
PRESETS["wave48k"] = replace(
    PRESETS["base16k"], name="wave48k", waveform=WaveConfig(sr=48_000, resolutions=(768, 1536, 3072))
)
PRESETS["small"] = replace(
    PRESETS["base16k"], name="small", diffusion=DiffusionConfig(unet=UNetConfig((64, 96), embedding=96, cond_dim=48))
)
PRESETS["ladder-wide"] = replace(PRESETS["ladder"], name="ladder-wide", vae=VAEConfig(latent=16, shortcut=True))
PRESETS["ladder-words"] = replace(PRESETS["ladder"], name="ladder-words", vae=VAEConfig(latent=1, words=1024))


def preset(name: str) -> Preset:
    if name not in PRESETS:
        raise WavelldmError(f"there is no preset '{name}'; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
