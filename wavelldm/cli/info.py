"""What `wavelldm info` says: versions, device, presets."""

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

from .. import __version__
from ..paths import data_home
from ..training.presets import PRESETS

PACKAGES = ("torch", "numpy", "scipy", "soundfile", "soxr", "librosa", "pesq", "pystoi", "onnxruntime", "jupyterlab")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def facts() -> dict:
    from ..codec.model import Codec

    presets = {}
    for name, preset in PRESETS.items():
        with torch.device("meta"):  # counts without allocating
            parameters = sum(p.numel() for p in Codec(preset.codec).parameters())
        presets[name] = {
            "sr": preset.codec.mel.sr,
            "mel_bands": preset.codec.mel.n_mels,
            "latent_dim": preset.codec.latent_dim,
            "latent_rate": round(preset.codec.latent_rate, 3),
            "codebooks": preset.codec.codebooks,
            "entries": preset.codec.entries,
            "bitrate": round(preset.codec.bitrate(), 1),
            "codec_parameters": parameters,
        }
    cuda = torch.cuda.is_available()
    return {
        "wavelldm": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "threads": torch.get_num_threads(),
        "data": str(data_home()),
        "presets": presets,
    }


def text(facts: dict) -> str:
    packages = ", ".join(f"{k} {v or 'not installed'}" for k, v in facts["packages"].items())
    lines = [
        f"wavelldm {facts['wavelldm']}, Python {facts['python']}",
        packages,
        f"device: {facts['device']}, {facts['threads']} threads",
        "",
        f"{'preset':<10} {'rate':>9} {'mel':>4}  {'latent':>18}  {'codebooks':>12} {'bitrate':>13} {'codec':>10}",
    ]
    for name, p in facts["presets"].items():
        latent = f"{p['latent_dim']} x {p['latent_rate']:.2f}/s"
        books = f"{p['codebooks']} x {p['entries']}"
        lines.append(
            f"{name:<10} {p['sr']:>6} Hz {p['mel_bands']:>4}  {latent:>18}  {books:>12} "
            f"{p['bitrate'] / 1000:>6.2f} kbit/s {p['codec_parameters'] / 1e6:>8.2f} M"
        )
    return "\n".join(lines)
