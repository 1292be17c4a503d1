"""wavelldm: latent diffusion for audio, a course of notebooks and the thin module behind them."""

__version__ = "0.1.0"
