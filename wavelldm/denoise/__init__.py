"""Denoisers: noisy recordings in, clean ones out, whole, from files, or as they arrive.

Read `denoiser` (what one calls) and `chain` (how a recording passes through a network) first; then the networks: `mask`
(the default), `segan` and `waveform`, and `logmmse`, which is none.
"""

from .chain import Session, Settings
from .denoiser import MODELS, Denoiser, LatentDenoiser, Look, MaskDenoiser, WindowDenoiser, load, look_at
from .mask import MaskConfig, MaskNet
from .segan import Segan, SeganConfig
from .waveform import WaveConfig, WaveDenoiser

__all__ = [
    "MODELS",
    "Denoiser",
    "LatentDenoiser",
    "Look",
    "MaskConfig",
    "MaskDenoiser",
    "MaskNet",
    "Segan",
    "SeganConfig",
    "Session",
    "Settings",
    "WaveConfig",
    "WaveDenoiser",
    "WindowDenoiser",
    "load",
    "look_at",
]
