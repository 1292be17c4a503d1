"""What the benchmarks ask beside `wavelldm.metrics`: PLCMOS, ViSQOL, and how sure a mean is."""

import importlib.util
import math
from functools import lru_cache

import numpy as np

from wavelldm.metrics import scores as metrics

RESAMPLED = 2_000  # draws of the bootstrap
LABELS = {
    **{name: metric.label for name, metric in metrics.METRICS.items()},
    "lsd_band": "LSD of the missing band",
    "plcmos": "PLCMOS",
    "visqol": "ViSQOL",
}
DIGITS = {"estoi": 1, "stoi": 1, "si_sdr": 1}  # the others have two


def missing() -> list:
    """Judges whose packages are not installed."""
    return [n for n, p in (("PLCMOS", "speechmos"), ("ViSQOL", "visqol")) if not importlib.util.find_spec(p)]


@lru_cache(maxsize=1)
def plcmos_judge():
    """PLCMOS (Diener et al. 2023) on one thread, with the same five imagined raters for every sound: the package draws
    fifteen anew each time."""
    import onnxruntime
    from speechmos.plcmos import PLCMOS

    judge, options = PLCMOS(embed_rounds=5), onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    judge.session = onnxruntime.InferenceSession(judge.model_path, options)
    return judge


def plcmos(out: np.ndarray) -> float:
    """(N,) at 16 kHz -> 1..5, without a reference."""
    state = np.random.get_state()
    np.random.seed(0)
    try:
        return float(plcmos_judge().get_mos((out / max(1.0, np.abs(out).max())).astype(np.float32)))
    finally:
        np.random.set_state(state)


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
                value = plcmos(out) if importlib.util.find_spec("speechmos") else None
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


def interval(values: list) -> tuple[float, float, float]:
    """Mean, and where 95 % of the means of samples drawn from the values lie; NaN without any."""
    x = np.array([v for v in values if v is not None], float)
    if not len(x):
        return math.nan, math.nan, math.nan
    drawn = x[np.random.default_rng(0).integers(len(x), size=(RESAMPLED, len(x)))].mean(1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(x.mean()), float(low), float(high)


def differences(mine: list, other: list) -> list:
    """Clip by clip, where both have a value."""
    return [a - b for a, b in zip(mine, other, strict=True) if a is not None and b is not None]


def cell(values: list, name: str, signed: bool = False) -> str:
    """'2.15 [2.01, 2.30]', or nothing."""
    found = interval(values)
    if math.isnan(found[0]):
        return ""
    digits = DIGITS.get(name, 2)
    mean, low, high = (f"{v:{'+' if signed else ''}.{digits}f}" for v in found)
    return f"{mean} [{low}, {high}]"
