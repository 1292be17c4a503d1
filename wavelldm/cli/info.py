"""`wavelldm info`: versions, device, presets."""

import argparse
import platform
from dataclasses import fields
from importlib.util import find_spec

from .. import __version__
from ..paths import data_home
from .options import command, show

PACKAGES = ("torch", "numpy", "scipy", "soundfile", "soxr", "librosa", "pesq", "pystoi", "onnxruntime", "jupyterlab")


def add(commands: argparse._SubParsersAction) -> None:
    command(
        commands,
        "info",
        run_info,
        "versions, device and presets",
        "Show the versions of wavelldm and of the packages it stands on, the device that torch would use, the folder "
        "of the data sets, and for every preset the parameters, latent rate and bitrate of its codec.",
        "  wavelldm info\n  wavelldm info --json",
    )


def run_info(args: argparse.Namespace) -> None:
    found = facts()
    show(args, found, text(found))


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # slow to import

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def facts() -> dict:
    found = {
        "wavelldm": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": "cpu",
        "threads": 1,
        "data": str(data_home()),
        "presets": {},
    }
    if find_spec("torch") is None:
        return found
    import torch

    from ..training.presets import PRESETS

    found["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    found["threads"] = torch.get_num_threads()
    found["presets"] = {name: _preset_facts(preset) for name, preset in PRESETS.items()}
    return found


def _preset_facts(preset) -> dict:
    """The networks that a preset sets sizes of; of its codec, if it has one, the numbers that matter."""
    import torch

    from ..codec.model import Codec
    from ..training.presets import Preset

    plain = Preset(preset.name)
    networks = [f.name for f in fields(preset)[1:] if getattr(preset, f.name) != getattr(plain, f.name)]
    if "codec" not in networks:
        return {"networks": networks}
    c = preset.codec
    with torch.device("meta"):  # counts without allocating
        parameters = sum(p.numel() for p in Codec(c).parameters())
    return {
        "networks": networks,
        "sr": c.sr,
        "mel_bands": c.mel.n_mels,
        "latent_dim": c.latent_dim,
        "latent_rate": round(c.latent_rate, 3),
        "codebooks": c.codebooks,
        "entries": c.entries,
        "bitrate": round(c.bitrate(), 1),
        "codec_parameters": parameters,
    }


def text(facts: dict) -> str:
    packages = ", ".join(f"{k} {v or 'not installed'}" for k, v in facts["packages"].items())
    lines = [
        f"wavelldm {facts['wavelldm']}, Python {facts['python']}",
        packages,
        f"device: {facts['device']}, {facts['threads']} threads",
        f"data lives in {facts['data']}",
        "",
        "no PyTorch: recordings are cleaned with onnxruntime; all else needs pip install 'wavelldm[torch]'"
        if not facts["presets"]
        else f"{'preset':<12} {'rate':>9} {'mel':>4}  {'latent':>15}  {'codebooks':>10} {'bitrate':>12} {'codec':>8}",
    ]
    for name, p in facts["presets"].items():
        if "codec" not in p["networks"]:
            lines.append(f"{name:<12} no codec; sizes of {', '.join(p['networks']) or 'no network'}")
            continue
        latent = f"{p['latent_dim']} x {p['latent_rate']:.2f}/s"
        books = f"{p['codebooks']} x {p['entries']}"
        lines.append(
            f"{name:<12} {p['sr']:>6} Hz {p['mel_bands']:>4}  {latent:>15}  {books:>10} "
            f"{p['bitrate'] / 1000:>5.2f} kbit/s {p['codec_parameters'] / 1e6:>6.2f} M"
        )
    return "\n".join(lines)
