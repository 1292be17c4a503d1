"""What the benchmarks ask beside `wavelldm.metrics`: ViSQOL; and how they print a mean with its interval."""

import importlib.util
import math
from functools import lru_cache

import numpy as np

from wavelldm.metrics import scores as metrics
from wavelldm.metrics.intervals import differences, interval

__all__ = ["DIGITS", "LABELS", "REACH", "cell", "differences", "interval", "missing", "score", "visqol"]

LABELS = {
    **{name: metric.label for name, metric in metrics.METRICS.items()},
    "lsd_band": "LSD of the missing band",
    "visqol": "ViSQOL",
}
REACH = "In brackets where 95 % of the means of resampled clips lie (bootstrap)."
DIGITS = {"estoi": 1, "stoi": 1, "si_sdr": 1}  # the others have two


def missing() -> list:
    """Judges whose packages are not installed."""
    return [n for n, p in (("PLCMOS", "speechmos"), ("ViSQOL", "visqol")) if not importlib.util.find_spec(p)]


@lru_cache(maxsize=1)
def visqol_judge():
    from visqol import VisqolApi

    judge = VisqolApi()  # the exponential mapping, which is the same whether a runtime for the other one is installed
    judge.create(mode="speech", use_lattice_model=False)
    return judge


def visqol(clean: np.ndarray, out: np.ndarray, sr: int) -> float:
    """ViSQOL v3 in speech mode (Chinen et al. 2020): similarity of gammatone spectrograms as a MOS, 1..5."""
    return float(visqol_judge().measure_from_arrays(clean.astype(np.float64), out.astype(np.float64), sr).moslqo)


def score(job: tuple) -> dict:
    """(clean (N,), out (N,), sr, names, cutoff in Hz or None) -> name: value, or None where there is none."""
    clean, out, sr, names, cutoff = job
    row = {}
    for name in names:
        try:
            if name == "plcmos":
                value = metrics.plcmos(clean, out, sr) if importlib.util.find_spec("speechmos") else None
            elif name == "visqol":
                value = visqol(clean, out, sr) if importlib.util.find_spec("visqol") else None
            elif name == "lsd_band":
                value = metrics.lsd(clean, out, sr, above=cutoff)
            else:
                value = metrics.METRICS[name].function(clean, out, sr)
        except metrics.MetricError:
            value = None
        row[name] = value if value is None or math.isfinite(value) else None
    return row


def cell(values: list, name: str, signed: bool = False) -> str:
    """'2.15 [2.01, 2.30]', or nothing: a mean, and where 95 % of the means of resampled clips lie."""
    if math.inf in values:
        return "inf"
    found = interval(values)
    if math.isnan(found[0]):
        return ""
    digits = DIGITS.get(name, 2)
    mean, low, high = (f"{v:{'+' if signed else ''}.{digits}f}" for v in found)
    return f"{mean} [{low}, {high}]"
