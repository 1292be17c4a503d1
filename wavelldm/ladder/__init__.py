"""The reconstruction ladder: how much of speech survives mels, vocoders, VAEs, codec tokens and codes that keep phase.

Read `phase` (the bound), `refinement` and `autoencoder` (two networks of the ladder), `rungs` (all ways to encode and
decode), then `report` (`wavelldm ladder`).
"""

from .autoencoder import Autoencoder, AutoencoderConfig
from .refinement import Refinement, RefinementConfig
from .report import run
from .rungs import Reconstruction, Rung, build

__all__ = [
    "Autoencoder",
    "AutoencoderConfig",
    "Reconstruction",
    "Refinement",
    "RefinementConfig",
    "Rung",
    "build",
    "run",
]
