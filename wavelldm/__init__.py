"""wavelldm: latent diffusion for audio, a course of notebooks and the thin module behind them.

    import wavelldm
    cleaned = wavelldm.load().enhance(wav, sr)

What most people need stands here; it is imported, and PyTorch with it, only once it is asked for. Each package of the
module says in its first lines what is inside.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .errors import WavelldmError

if TYPE_CHECKING:
    from .codec.compress import compress_file as compress
    from .codec.compress import decompress_file as decompress
    from .codec.model import Codec
    from .denoise.chain import Settings
    from .denoise.denoiser import Denoiser, load
    from .metrics.folders import evaluate
    from .refine.files import refine_file
    from .text.text2audio import generate

__version__ = "0.1.0"

__all__ = [
    "Denoiser",
    "Settings",
    "WavelldmError",
    "compress",
    "decompress",
    "evaluate",
    "generate",
    "load",
    "load_codec",
    "refine_file",
]
HOMES = {  # name -> where it is, and what it is called there
    "Denoiser": (".denoise.denoiser", "Denoiser"),
    "Settings": (".denoise.chain", "Settings"),
    "compress": (".codec.compress", "compress_file"),
    "decompress": (".codec.compress", "decompress_file"),
    "evaluate": (".metrics.folders", "evaluate"),
    "load": (".denoise.denoiser", "load"),
    "generate": (".text.text2audio", "generate"),
    "refine_file": (".refine.files", "refine_file"),
}


def load_codec(name: str = "voice16k", device: str = "cpu") -> "Codec":
    """A codec that ships, by name, or one of your own, by the path of its weights."""
    from . import weights
    from .codec.model import Codec

    return weights.load(name, Codec, device)


def __getattr__(name: str):
    """A name of the public face, imported when it is asked for (PEP 562)."""
    if name not in HOMES:
        raise AttributeError(f"module 'wavelldm' has no attribute '{name}'")
    module, own = HOMES[name]
    try:
        return getattr(import_module(module, __name__), own)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise WavelldmError(
            f"wavelldm.{name} needs PyTorch; install it with: pip install 'wavelldm[torch]', or clean recordings "
            "without it with wavelldm.light.denoiser.load()"
        ) from None


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
