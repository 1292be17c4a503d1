"""What every notebook needs around its lesson: start-up, one profile switch, sound, and a check that says how close."""

import math
import os
import platform
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .. import __version__
from ..errors import WavelldmError

PROFILES = ("quick", "cpu", "gpu")


@dataclass
class Session:
    """What `start` found out and set up."""

    name: str
    profile: str
    device: torch.device
    out: Path  # a folder of this notebook's own, for what it writes
    began: float

    def pick(self, **choices):
        """`pick(quick=10, cpu=200, gpu=5000)`: the value for this profile; `cpu` stands in for a missing one."""
        unknown = set(choices) - set(PROFILES)
        if unknown or "cpu" not in choices:
            raise WavelldmError(f"pick takes {', '.join(PROFILES)}, cpu at least, not {', '.join(sorted(choices))}")
        return choices.get(self.profile, choices["cpu"])

    def done(self) -> None:
        """Last cell: how long it took."""
        seconds = time.time() - self.began
        print(f"{self.name}: {seconds / 60:.1f} minutes in profile '{self.profile}' on {self.device.type}")


def profile() -> str:
    """WAVELLDM_PROFILE, or `gpu` where there is one, or `cpu`."""
    value = os.environ.get("WAVELLDM_PROFILE") or ("gpu" if torch.cuda.is_available() else "cpu")
    if value not in PROFILES:
        raise WavelldmError(f"WAVELLDM_PROFILE is '{value}'; it takes {', '.join(PROFILES)}")
    return value


def start(name: str, seed: int = 0) -> Session:
    """Seed everything, choose the device, print the versions that matter."""
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


def check(name: str, mine, theirs, close: float = 1e-4) -> None:
    """Print whether two results are exactly equal, close, or different and by how much."""
    a, b = (torch.as_tensor(x).detach().cpu() for x in (mine, theirs))
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


def exercise(name: str, answer, expected, close: float = 1e-4) -> None:
    """The checker under an exercise: as `check`, but an answer that is still None is simply the reader's turn."""
    if answer is None:
        print(f"… {name}: your turn")
    else:
        check(name, answer, expected, close)


def player(wav, sr: int, seconds: float = 6.0):
    """wav (..., N), first channel -> an audio player; MP3 keeps the notebook small, and nothing is made louder or softer."""
    import io

    import soundfile as sf
    from IPython.display import Audio

    wav = torch.as_tensor(wav).detach().cpu().float()
    wav = wav.reshape(-1, wav.shape[-1])[0][: int(seconds * sr)].clamp(-1, 1).numpy()
    data = io.BytesIO()
    sf.write(data, wav, sr, format="MP3")
    return Audio(data=data.getvalue(), rate=sr, normalize=False)


def hear(wav, sr: int, label: str = "", seconds: float = 6.0) -> None:
    """Show a player, under its label."""
    from IPython.display import HTML, display

    if label:
        display(HTML(f"<b>{label}</b>"))
    display(player(wav, sr, seconds))
