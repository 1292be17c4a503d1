"""Weights that ship: a safetensors file, beside it the config that rebuilds the network, and a model card.

`wavelldm/weights/NAME.safetensors` (16-bit floats, half the size and no loss that a metric sees, or rows of bytes), `NAME.json`, `NAME.md`.
"""

import json
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .audio.files import writing
from .codec.model import Codec
from .config import from_dict
from .denoise.mask import MaskNet
from .denoise.segan import Segan
from .denoise.waveform import WaveDenoiser
from .diffusion.latent import LatentDiffusion
from .errors import WavelldmError
from .refine.prior import SpeechPrior
from .training.presets import Preset

SHIPPED = Path(__file__).with_name("weights")
FORMAT = 1  # raise it when an older program could not read the file


SCALE = "/scale"  # ends the name of what a tensor of bytes is multiplied by


def as_bytes(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (N, ...) -> whole numbers from -127 to 127 of the same shape, and a scale for each of the N rows (N, 1, ...)."""
    scale = x.float().abs().amax(tuple(range(1, x.dim())), keepdim=True).clamp_min(1e-12) / 127
    return (x / scale).round().to(torch.int8), scale


def save(path, model: nn.Module, preset: Preset, facts: dict, force: bool = False, eight_bits: bool = False) -> Path:
    """Write PATH.safetensors (half precision, or matrices in bytes) and PATH.json (preset and `facts`: steps, seed, metrics ...)."""
    path = Path(path).with_suffix(".safetensors")
    tensors = {k: v.detach().cpu().half().contiguous() for k, v in model.state_dict().items()}
    lost = next((k for k, v in tensors.items() if not torch.isfinite(v).all()), None)
    if lost:
        raise WavelldmError(f"the weights '{lost}' do not fit into 16-bit floats; they are too large or not finite")
    for name, x in model.state_dict().items() if eight_bits else ():
        if x.dim() > 1:
            tensors[name], tensors[name + SCALE] = as_bytes(x.detach().cpu())
    about = {"format": FORMAT, "kind": type(model).__name__, "preset": preset.to_dict(), **facts}
    with writing(path, force) as part:
        part.write_bytes(safetensors.torch.save(tensors))
    with writing(path.with_suffix(".json"), force) as part:
        part.write_text(json.dumps(about, indent=1) + "\n")
    return path


def facts(name) -> dict:
    """What the JSON beside shipped weights (by name) or any others (by path) says."""
    path = locate(name).with_suffix(".json")
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise WavelldmError(f"{path} is missing; it belongs beside the weights and says what network they are for") from None
    except json.JSONDecodeError:
        raise WavelldmError(f"{path} is damaged; copy it again together with the weights") from None
    if found.get("format") != FORMAT:
        raise WavelldmError(f"{path} has format {found.get('format')} and this program reads {FORMAT}; update wavelldm")
    return found


def locate(name) -> Path:
    """A name of shipped weights, or a path, with or without its ending, -> the .safetensors file."""
    path = Path(name)
    whole = Path(f"{name}.safetensors")
    if path.suffix == ".safetensors" or path.is_file():
        return path
    if whole.is_file():
        return whole
    shipped = SHIPPED / f"{name}.safetensors"
    if not shipped.exists():
        known = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.safetensors"))) or "none yet"
        raise WavelldmError(f"no weights called '{name}' ship with wavelldm ({known}); give a name or the path of a .safetensors file")
    return shipped


def load(name, build, preset: str | None = None, device="cpu") -> nn.Module:
    """The network `build(preset)` with weights, ready to use. `preset`: refuse weights that are for another one."""
    path = locate(name)
    if not path.exists():
        raise WavelldmError(f"{path} does not exist; check the path")
    about = facts(name)
    config = from_dict(Preset, about["preset"])
    if preset is not None and config.name != preset:
        raise WavelldmError(f"{path} holds weights for the preset '{config.name}', not '{preset}'; choose others")
    model = build(config)
    kind = about.get("kind", type(model).__name__)
    if kind != type(model).__name__:
        raise WavelldmError(f"{path} holds the weights of a {kind}, not of a {type(model).__name__}; choose others")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WavelldmError(f"{path} is not a whole safetensors file ({error}); download or copy it again") from None
    try:
        scales = {k.removesuffix(SCALE): tensors.pop(k) for k in list(tensors) if k.endswith(SCALE)}
        model.load_state_dict({k: v.float() * scales.get(k, 1.0) for k, v in tensors.items()})
    except RuntimeError:
        raise WavelldmError(f"{path} does not fit the network its JSON describes; both must come from the same run") from None
    return model.to(device).eval()


def load_codec(name="voice16k", preset: str | None = None, device="cpu") -> Codec:
    return load(name, Codec, preset, device)


def load_diffusion(name="voice16k-diffusion", preset: str | None = None, device="cpu") -> LatentDiffusion:
    return load(name, LatentDiffusion, preset, device)


def load_mask(name="base16k-mask", preset: str | None = None, device="cpu") -> MaskNet:
    return load(name, lambda p: MaskNet(p.mask), preset, device)


def load_prior(name="prior16k", preset: str | None = None, device="cpu") -> SpeechPrior:
    return load(name, lambda p: SpeechPrior(p.prior), preset, device)


def load_segan(name="segan16k", preset: str | None = None, device="cpu") -> Segan:
    return load(name, lambda p: Segan(p.segan), preset, device)


def load_wave(name="waveform16k", preset: str | None = None, device="cpu") -> WaveDenoiser:
    return load(name, lambda p: WaveDenoiser(p.wave), preset, device)
