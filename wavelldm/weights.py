"""Weights: a safetensors file, beside it a JSON file that says what they are, and for those that ship a model card.

The JSON holds the kind of network, its own config alone, name, hash, licence, how it was trained, and in `needs` the
name and hash of other weights without which these mean nothing: a diffusion names the codec whose latents it learnt.
A codec may list in `reads` the identities of older weights whose files it decodes.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from .audio.files import writing
from .config import from_dict, to_dict
from .errors import WavelldmError

SHIPPED = Path(__file__).with_name("weights")
FORMAT = 2  # raise it when an older program could not read the file
SCALE = "/scale"  # ends the name of what a tensor of bytes is multiplied by

Network = TypeVar("Network", bound=nn.Module)


def as_bytes(x: Tensor, most: int = 127) -> tuple[Tensor, Tensor]:
    """x (N, ...) -> integers from -most to most of the same shape, and a scale for each of the N rows (N, 1, ...)."""
    scale = x.float().abs().amax(tuple(range(1, x.dim())), keepdim=True).clamp_min(1e-12) / most
    return (x / scale).round().to(torch.int8), scale


def digest(data: bytes) -> str:
    """The name of a file's content: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


def _ending(path: str | Path) -> Path:
    """`path` with .safetensors at its end, whatever dots are in its name."""
    path = Path(path)
    return path if path.suffix == ".safetensors" else Path(f"{path}.safetensors")


def save(
    path: str | Path,
    model: nn.Module,
    *,
    licence: str | None = None,
    needs: dict[str, nn.Module] | None = None,
    force: bool = False,
    eight_bits: bool = False,
    six_bits: Sequence[str] = (),
    **facts,
) -> Path:
    """Write PATH.safetensors (16-bit floats, or matrices in bytes) and PATH.json.

    `needs`: other loaded networks that belong to this one, such as {"codec": codec}. `facts`: steps, seed, scores.
    `six_bits`: matrices with one of these words in their names use 63 of the 255 values of a byte, and pack better.
    """
    path = _ending(path)
    tensors = {k: v.detach().cpu().half().contiguous() for k, v in model.state_dict().items()}
    lost = next((k for k, v in tensors.items() if not torch.isfinite(v).all()), None)
    if lost:
        raise WavelldmError(f"the weights '{lost}' do not fit into 16-bit floats; they are too large or not finite")
    for name, x in model.state_dict().items() if eight_bits else ():
        if x.dim() > 1:
            most = 31 if any(word in name for word in six_bits) else 127
            tensors[name], tensors[name + SCALE] = as_bytes(x.detach().cpu().contiguous(), most)
    data = safetensors.torch.save(tensors)
    about = {
        "format": FORMAT,
        "kind": type(model).__name__,
        "name": path.stem,
        "hash": digest(data),
        "licence": licence,
        "needs": {
            role: {"name": getattr(net, "name", None), "hash": getattr(net, "hash", None)}
            for role, net in (needs or {}).items()
        },
        "config": to_dict(model.config),
        **facts,
    }
    with writing(path, force) as part:
        part.write_bytes(data)
    with writing(path.with_suffix(".json"), force) as part:
        part.write_text(json.dumps(about, indent=1) + "\n")
    return path


def about(name: str | Path) -> dict:
    """What the JSON beside shipped weights (by name) or any others (by path) says."""
    path = locate(name)
    if not path.exists():
        raise WavelldmError(f"{path} does not exist; check the path")
    path = path.with_suffix(".json")
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        raise WavelldmError(
            f"{path} is missing; it belongs beside the weights and says what network they are for"
        ) from None
    except json.JSONDecodeError:
        raise WavelldmError(f"{path} is damaged; copy it again together with the weights") from None
    if found.get("format") != FORMAT:
        advice = (
            "update wavelldm" if found.get("format", 0) > FORMAT else "train again, or use the version that wrote it"
        )
        raise WavelldmError(f"{path} has format {found.get('format')} and this program reads {FORMAT}; {advice}")
    return found


def locate(name: str | Path) -> Path:
    """A name of shipped weights, or a path, with or without its ending, -> the .safetensors file."""
    path, whole = Path(name), _ending(name)
    if path.suffix == ".safetensors" or path.is_file():
        return path
    if whole.is_file():
        return whole
    shipped = SHIPPED / whole.name
    if whole.name != str(whole) or not shipped.exists():
        known = ", ".join(sorted(p.stem for p in SHIPPED.glob("*.safetensors"))) or "none yet"
        raise WavelldmError(
            f"no weights called '{name}' ship with wavelldm ({known}); give a name or the path of a .safetensors file"
        )
    return shipped


def check_device(device: torch.device | str) -> torch.device:
    """A device that this computer has."""
    try:
        found = torch.device(device)
    except RuntimeError:
        raise WavelldmError(f"there is no device '{device}'; choose cpu, cuda or mps") from None
    have = {"cpu": 1, "meta": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if found.type not in have:
        raise WavelldmError(f"'{device}' is no device that this program knows; choose cpu, cuda or mps")
    if (found.index or 0) >= have[found.type]:
        raise WavelldmError(f"this computer, or its torch, has no device '{device}'; choose another, such as cpu")
    return found


def load(name: str | Path, kind: type[Network], device: torch.device | str = "cpu") -> Network:
    """The network of class `kind` with these weights, ready to use; `.name` and `.hash` say which they are."""
    device, path = check_device(device), locate(name)
    facts = about(name)
    if facts["kind"] != kind.__name__:
        raise WavelldmError(f"{path} holds the weights of a {facts['kind']}, not of a {kind.__name__}; choose others")
    try:
        model = kind(from_dict(kind.Config, facts["config"]))
    except (WavelldmError, TypeError) as error:
        raise WavelldmError(f"{path} was written by another version of wavelldm: {error}") from None
    data = path.read_bytes()
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise WavelldmError(f"{path} is not a whole safetensors file ({error}); download or copy it again") from None
    try:
        scales = {k.removesuffix(SCALE): tensors.pop(k) for k in list(tensors) if k.endswith(SCALE)}
        model.load_state_dict({k: v.float() * scales.get(k, 1.0) for k, v in tensors.items()})
    except RuntimeError:
        raise WavelldmError(
            f"{path} does not fit the network its JSON describes; both must come from the same run"
        ) from None
    model.name, model.hash = facts["name"], digest(data)
    model.reads = tuple(facts.get("reads", ()))
    return model.to(device).eval()


def needed(name: str | Path, role: str) -> Path:
    """The file of the weights that those of `name` need as their `role`, told by its hash.

    It may lie beside them, in a neighbouring folder (as runs do), in one of ./runs, or among those that ship.
    """
    path, wanted = locate(name), about(name)["needs"].get(role)
    if wanted is None:
        raise WavelldmError(f"{path} does not say which {role} it was trained with; train it again, or choose others")
    file, folder = f"{wanted['name']}.safetensors", path.resolve().parent
    around = [folder / file, *sorted(folder.parent.glob(f"*/{file}")), *sorted(Path("runs").glob(f"*/{file}"))]
    for candidate in [*around, SHIPPED / file]:
        if candidate.is_file() and digest(candidate.read_bytes()) == wanted["hash"]:
            return candidate
    raise WavelldmError(
        f"{path} needs the {role} '{wanted['name']}' ({wanted['hash']}) that it was trained with; copy it to {folder}"
    )


def check_needs(name: str | Path, role: str, net: nn.Module) -> None:
    """Refuse to use `net` as the `role` of weights that were trained with another one."""
    wanted = about(name)["needs"].get(role)
    if wanted and wanted["hash"] != getattr(net, "hash", None):
        raise WavelldmError(
            f"{name} was trained with the {role} '{wanted['name']}' ({wanted['hash']}); load that one with it"
        )
