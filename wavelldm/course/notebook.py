"""What every notebook uses: start-up with a profile, audio players, and checks of results."""

import math
import os
import platform
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .. import __version__
from ..audio.files import as_float
from ..errors import WavelldmError
from .steps import plain

if TYPE_CHECKING:
    from IPython.display import Audio

PROFILES = ("quick", "cpu", "gpu")
LONGEST = 30.0  # seconds that a player plays at most
Array = torch.Tensor | np.ndarray | float | list | tuple


@dataclass
class Session:
    """The settings of a notebook run, made by `start`."""

    name: str
    profile: str
    device: torch.device
    out: Path  # folder for the files of this notebook
    began: float

    def pick(self, **choices: Any) -> Any:
        """`pick(quick=10, cpu=200, gpu=5000)`: the value for this profile; `cpu` is used for a missing one."""
        unknown = set(choices) - set(PROFILES)
        if unknown or "cpu" not in choices:
            raise WavelldmError(f"pick takes {', '.join(PROFILES)}, cpu at least, not {', '.join(sorted(choices))}")
        return choices.get(self.profile, choices["cpu"])

    def done(self) -> None:
        """In the last cell: print how long the notebook took, and how much of that the processor worked for it."""
        took, worked = (time.time() - self.began) / 60, time.process_time() / 60
        where = f"profile '{self.profile}' on {self.device.type}"
        print(f"{self.name}: {took:.1f} minutes in {where}, {worked:.1f} of them computing")


def profile() -> str:
    """WAVELLDM_PROFILE, else `gpu` if there is one, else `cpu`."""
    value = os.environ.get("WAVELLDM_PROFILE") or ("gpu" if torch.cuda.is_available() else "cpu")
    if value not in PROFILES:
        raise WavelldmError(f"WAVELLDM_PROFILE is '{value}'; it takes {', '.join(PROFILES)}")
    return value


def start(name: str, seed: int = 0) -> Session:
    """Set the seeds, choose the device, print versions."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    chosen = profile()
    device = torch.device("cuda" if chosen == "gpu" and torch.cuda.is_available() else "cpu")
    out = Path("out") / name
    out.mkdir(parents=True, exist_ok=True)
    where = "Colab" if "google.colab" in sys.modules else platform.system()
    print(f"wavelldm {__version__} · torch {torch.__version__} · Python {platform.python_version()} · {where}")
    print(f"profile '{chosen}' on {device.type}, {torch.get_num_threads()} threads; files go to {out}/")
    return Session(name, chosen, device, out, time.time())


def check(name: str, mine: Array, theirs: Array, close: float = 1e-4) -> None:
    """Print whether two results are exactly equal, close, or different and by how much. Numbers, lists and tuples of
    them or of arrays, arrays and tensors count alike."""
    a, b = plain(mine), plain(theirs)
    kind = torch.complex128 if a.is_complex() or b.is_complex() else torch.float64
    if a.shape != b.shape:
        print(f"✗ {name}: shapes differ, {tuple(a.shape)} and {tuple(b.shape)}")
        return
    difference = (a.to(kind) - b.to(kind)).abs().max().item() if a.numel() else 0.0
    if not math.isfinite(difference):
        print(f"✗ {name}: there are NaN or infinite values in it")
    elif difference == 0:
        print(f"✓ {name}: exact")
    elif difference <= close:
        print(f"✓ {name}: close (max difference {difference:.1e})")
    else:
        print(f"✗ {name}: different (max difference {difference:.3g}, allowed {close:.0e})")


def exercise(name: str, answer: Array | None, expected: Array, close: float = 1e-4) -> None:
    """Check the answer to an exercise; None means that the reader has not solved it yet."""
    if answer is None:
        print(f"… {name}: your turn")
    else:
        check(name, answer, expected, close)


def player(wav: Array, sr: int, seconds: float = LONGEST) -> "Audio":
    """wav (..., N), first channel -> an audio player. Nothing is lost (FLAC), and the level is not changed."""
    import io

    import soundfile as sf
    from IPython.display import Audio

    wav = as_float(wav).detach().cpu().float()
    wav = wav.reshape(-1, wav.shape[-1])[0][: int(seconds * sr)].clamp(-1, 1).numpy()
    data = io.BytesIO()
    sf.write(data, wav, sr, format="FLAC", subtype="PCM_16")
    audio = Audio(data=data.getvalue(), rate=sr, normalize=False)
    audio.mimetype = "audio/flac"
    return audio


def hear(wav: Array, sr: int, label: str = "", seconds: float = LONGEST) -> None:
    """Show a player with a label above it."""
    from IPython.display import HTML, display

    if label:
        display(HTML(f"<b>{label}</b>"))
    display(player(wav, sr, seconds))
