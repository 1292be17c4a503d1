"""Refining with a diffusion prior of clean speech (Diffiner): what any denoiser left, made more like speech.

Read `updates` first (the sampler), then `unet2d` (the network), `prior` (spectra, windows, recordings) and `files` (the
command `wavelldm refine`).
"""

from .files import Choices, refine_file
from .prior import PriorConfig, SpeechPrior

__all__ = ["Choices", "PriorConfig", "SpeechPrior", "refine_file"]
