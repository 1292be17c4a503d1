"""What every metric checks first: one channel, samples in it, no NaN, a clean clip that is not silent."""

import numpy as np
import torch
from torch import Tensor

from ..audio.files import as_float
from ..errors import AudioError, WavelldmError

Signal = Tensor | np.ndarray  # one channel, (N,) or (1, N), full scale 1


class MetricError(WavelldmError):
    """A clip that a metric cannot score."""


def as_signal(wav: Signal, role: str = "clip") -> np.ndarray:
    """An array or tensor of shape (N,) or (1, N) -> finite float64 (N,); 16-bit integers are divided by their full
    scale.
    """
    x = wav.detach().cpu().numpy() if torch.is_tensor(wav) else np.asarray(wav)
    if x.ndim == 2 and x.shape[0] == 1:
        x = x[0]
    if x.ndim != 1:
        raise MetricError(f"metrics take one channel, (N,) or (1, N), not {tuple(x.shape)}; pick one or average first")
    if len(x) == 0:
        raise MetricError(f"the {role} holds no samples")
    if x.dtype.kind != "f":
        try:
            x = as_float(x).numpy()
        except (AudioError, TypeError) as error:
            raise MetricError(f"the {role} cannot be scored: {error}") from None
    x = x.astype(np.float64)
    if not np.isfinite(x).all():
        raise MetricError(f"the {role} holds NaN or infinite samples; repair it first")
    return x


def as_pair(clean: Signal, enhanced: Signal) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 (N,), of the same length, the clean one not silent."""
    clean, enhanced = as_signal(clean, "clean clip"), as_signal(enhanced, "enhanced clip")
    if len(clean) != len(enhanced):
        raise MetricError(
            f"the clean clip has {len(clean)} samples and the enhanced one {len(enhanced)}; cut both to one length"
        )
    if not clean.any():
        raise MetricError("the clean clip is silent, there is nothing to compare with")
    return clean, enhanced


def frames(x: np.ndarray, size: int, hop: int) -> np.ndarray:
    """(N,) -> a view (F, size) of all whole frames."""
    if len(x) < size:
        raise MetricError(f"the clip is too short: {len(x)} samples, and one frame takes {size}")
    return np.lib.stride_tricks.sliding_window_view(x, size)[::hop]
