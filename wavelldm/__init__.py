"""wavelldm: latent diffusion for audio, a course of notebooks and the thin module behind them.

import wavelldm
cleaned = wavelldm.load("base16k").enhance(wav, sr)
"""

__version__ = "0.1.0"


def load(name: str = "best"):
    """A denoiser by name, ready to use (see `enhance.MODELS`); torch is imported only now."""
    from .denoise.denoiser import load

    return load(name)
