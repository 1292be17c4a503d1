"""Latent diffusion: from noise, and the latent of a noisy recording, to the latent of a clean one.

Read `schedule` first (how noise is added), then `samplers` (how it is taken away), `unet` (the network) and `latent`
(all together, for whole recordings and for streams).
"""

from .latent import DiffusionConfig, LatentDiffusion
from .samplers import SAMPLERS, FrameNoise
from .schedule import Schedule
from .unet import UNet, UNetConfig

__all__ = ["SAMPLERS", "DiffusionConfig", "FrameNoise", "LatentDiffusion", "Schedule", "UNet", "UNetConfig"]
