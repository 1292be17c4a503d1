"""What validation says beyond its loss: PESQ, STOI and SI-SDR of a few clips, where the packages that define them are installed."""

from torch import Tensor

from . import metrics
from .composite import MetricError
from .errors import WavelldmError

SCORES = ("pesq_wb", "stoi", "si_sdr")


def scores(clean: Tensor, cleaned: Tensor, sr: int) -> dict:
    """(B, 1, N) each -> the mean of each metric over the clips that it can score; without one, no entry."""
    found = {}
    for name in SCORES:
        values = []
        for s, y in zip(clean[:, 0].cpu().numpy(), cleaned[:, 0].cpu().numpy()):
            try:
                values.append(metrics.METRICS[name].function(s, y, sr))
            except MetricError:  # PESQ finds no utterance in it, or it is silent
                continue
            except WavelldmError:  # the package is missing
                break
        if values:
            found[name] = sum(values) / len(values)
    return found
