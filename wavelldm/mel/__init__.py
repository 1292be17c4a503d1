"""What works on log-mels: `vae` (the mel VAE, AudioLDM2's if built as large), then `vocoder` (from a mel to sound).

`published` fetches networks of both kinds that others trained.
"""

from .vae import MelVAE, VAEConfig
from .vocoder import Vocoder, VocoderConfig

__all__ = ["MelVAE", "VAEConfig", "Vocoder", "VocoderConfig"]
