"""The metrics: each is a function (clean, enhanced, sr) -> float on one channel (N,) or (1, N), full scale 1.

`METRICS` lists them with unit, direction and range. A clip that cannot be scored raises MetricError; nothing returns
NaN. STOI and ESTOI are in per cent. PESQ, STOI, DNSMOS and PLCMOS come from the packages pesq, pystoi and speechmos;
all others are here.
"""

import importlib
import importlib.resources
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from ..audio.files import resample
from ..audio.mel import MELS, LogMel
from ..errors import WavelldmError
from .composite import composite, segmental_snr
from .signals import MetricError, Signal, as_pair, as_signal, frames

PESQ_SECONDS = 20  # more than 50 utterances crash the reference code; they take at least 0.4 s each
LSD_FLOOR = 1e-12  # -120 dB below a full-scale sine, just above the rounding noise of 16 bits


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise WavelldmError(
            f"this metric needs the package '{error.name}'; install it with: pip install 'wavelldm[metrics]'"
        ) from None


def _at(x: np.ndarray, sr: int, wanted: int) -> np.ndarray:
    """(N,) resampled, as the float32 that the packages take."""
    return resample(torch.from_numpy(x), sr, wanted).numpy().astype(np.float32)


# --- of the waveform


def snr(clean: Signal, enhanced: Signal, sr: int) -> float:
    """10 log10(|s|^2 / |s - y|^2) in dB; a different gain or a delay lowers it. Infinite for identical signals."""
    s, y = as_pair(clean, enhanced)
    error = ((s - y) ** 2).sum()
    return 10 * math.log10((s**2).sum() / error) + 0.0 if error else math.inf


def si_sdr(clean: Signal, enhanced: Signal, sr: int) -> float:
    """Scale-invariant SDR in dB (Le Roux et al., "SDR - half-baked or well done?", ICASSP 2019); means are not
    removed.
    """
    s, y = as_pair(clean, enhanced)
    target = (y @ s) / (s @ s) * s
    signal, error = target @ target, ((y - target) ** 2).sum()
    if signal == 0:
        raise MetricError("SI-SDR is not defined: the enhanced clip is silent or uncorrelated with the clean one")
    return 10 * math.log10(signal / error) if error else math.inf


def correlation(clean: Signal, enhanced: Signal, sr: int) -> float:
    """Pearson's, -1..1. The best SNR that any gain can reach at correlation rho is -10 log10(1 - rho^2) dB."""
    s, y = as_pair(clean, enhanced)
    s, y = s - s.mean(), y - y.mean()
    scale = math.sqrt((s @ s) * (y @ y))
    if scale == 0:
        raise MetricError("correlation is not defined: one of the clips is constant")
    return float(np.clip(s @ y / scale, -1.0, 1.0))


# --- of the spectrum


def _spectrum(x: np.ndarray, sr: int) -> np.ndarray:
    """Hann magnitudes (F, n_fft / 2 + 1): windows near 46 ms (1024 at 16 kHz, 2048 at 44.1 kHz), hop a quarter."""
    n_fft = 2 ** round(math.log2(2048 / 44_100 * sr))
    window = np.hanning(n_fft + 1)[:-1]  # periodic
    return np.abs(np.fft.rfft(frames(x, n_fft, n_fft // 4) * window / window.sum()))


def spectral_convergence(clean: Signal, enhanced: Signal, sr: int) -> float:
    """Norm of the difference of magnitudes over that of the clean ones (Arik et al. 2018); 0 is perfect, silence 1."""
    s, y = as_pair(clean, enhanced)
    s, y = _spectrum(s, sr), _spectrum(y, sr)
    if not s.any():
        raise MetricError("spectral convergence is not defined: the clean clip is silent up to its last part frame")
    return float(np.linalg.norm(s - y) / np.linalg.norm(s))


def lsd(clean: Signal, enhanced: Signal, sr: int, above: float = 0.0) -> float:
    """Log-spectral distance: mean over frames of the root mean square over frequency of log10|S|^2 - log10|Y|^2.

    In bels (times ten: dB), as in the literature on bandwidth extension; over frequencies of `above` Hz and higher.
    Powers are floored at -120 dB re a full-scale sine, so that digital silence costs no more than inaudible noise.
    """
    s, y = (np.log10(np.maximum(4 * _spectrum(x, sr) ** 2, LSD_FLOOR)) for x in as_pair(clean, enhanced))
    first = math.ceil(above / (sr / 2) * (s.shape[1] - 1))
    return float(np.sqrt(((s - y)[:, first:] ** 2).mean(axis=1)).mean())


@lru_cache(maxsize=1)
def _log_mel() -> LogMel:
    return LogMel(MELS["base16k"]).double()


def mel_distance(clean: Signal, enhanced: Signal, sr: int) -> float:
    """Mean |difference| of natural-log mels (100 bands, 16 kHz, the project's own front end)."""
    config = MELS["base16k"]
    wavs = [resample(torch.from_numpy(x), sr, config.sr)[None, None] for x in as_pair(clean, enhanced)]
    with torch.inference_mode():
        s, y = _log_mel()(torch.cat(wavs), config.sr)  # (M, F) each
    return float((s - y).abs().mean())


# --- models of a listener


@lru_cache(maxsize=4)  # CSIG, CBAK and COVL ask for it again
def _pesq(clean: bytes, enhanced: bytes, sr: int, mode: str) -> float:
    package = _package("pesq")
    s, y = np.frombuffer(clean, np.float32), np.frombuffer(enhanced, np.float32)
    pieces, scores, reason = math.ceil(len(s) / (PESQ_SECONDS * sr)), [], "it finds no value for it"
    for a, b in zip(np.array_split(s, pieces), np.array_split(y, pieces)):
        if not a.any():  # a silent piece of a long clip has no score
            continue
        if not b.any():
            raise MetricError(f"PESQ refuses the clip: the enhanced one is silent for {len(b) / sr:.1f} s of it")
        try:
            scores.append(float(package.pesq(sr, a, b, mode)))
        except package.NoUtterancesError:
            reason = "it finds no speech in the clean clip"
        except package.BufferTooShortError:
            reason = "the clip is shorter than a quarter of a second"
        except (package.PesqError, ValueError) as error:
            reason = f"it fails on this clip: {error}"
    if not scores or not np.isfinite(scores).all():
        raise MetricError(f"PESQ refuses the clip: {reason}")
    return float(np.mean(scores))


def _pesq_at(clean: Signal, enhanced: Signal, sr: int, wanted: int, mode: str) -> float:
    s, y = (_at(x, sr, wanted) for x in as_pair(clean, enhanced))
    return _pesq(s.tobytes(), y.tobytes(), wanted, mode)


def pesq_wb(clean: Signal, enhanced: Signal, sr: int) -> float:
    """Wide-band PESQ (ITU-T P.862.2, MOS-LQO) at 16 kHz. Clips over 20 s: the mean over equal pieces of up to 20 s."""
    return _pesq_at(clean, enhanced, sr, 16_000, "wb")


def pesq_nb(clean: Signal, enhanced: Signal, sr: int) -> float:
    """Narrow-band PESQ (ITU-T P.862.1, MOS-LQO) at 16 kHz, or 8 kHz if the clip is; long clips as in `pesq_wb`."""
    return _pesq_at(clean, enhanced, sr, 8_000 if sr == 8_000 else 16_000, "nb")


def _stoi(clean: Signal, enhanced: Signal, sr: int, extended: bool) -> float:
    s, y = as_pair(clean, enhanced)
    stoi_package = _package("pystoi")
    if not y.any():
        raise MetricError("STOI is not defined: the enhanced clip is silent")
    # ESTOI adds noise of 1e-16 from NumPy's global generator, which changes the value where a clip is digitally silent
    state = np.random.get_state()
    np.random.seed(0)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
            value = 100 * float(stoi_package.stoi(s, y, sr, extended=extended))
    except (RuntimeWarning, ValueError, IndexError):  # the latter two: not even one frame
        raise MetricError("STOI refuses the clip: it needs about 0.4 s of speech") from None
    finally:
        np.random.set_state(state)
    if not math.isfinite(value):
        raise MetricError("STOI refuses the clip: its value is not a number")
    return value


def stoi(clean: Signal, enhanced: Signal, sr: int) -> float:
    """Short-time objective intelligibility in per cent (Taal et al. 2011)."""
    return _stoi(clean, enhanced, sr, extended=False)


def estoi(clean: Signal, enhanced: Signal, sr: int) -> float:
    """Extended STOI in per cent (Jensen and Taal 2016): also valid for fluctuating noise."""
    return _stoi(clean, enhanced, sr, extended=True)


@lru_cache(maxsize=2)
def _composite(clean: bytes, enhanced: bytes) -> dict[str, float]:
    score = _pesq(clean, enhanced, 16_000, "wb")
    return composite(np.frombuffer(clean, np.float32), np.frombuffer(enhanced, np.float32), 16_000, score)


def _composite_part(part: str) -> Callable[..., float]:
    def metric(clean: Signal, enhanced: Signal, sr: int) -> float:
        s, y = (_at(x, sr, 16_000).tobytes() for x in as_pair(clean, enhanced))
        return _composite(s, y)[part]

    metric.__doc__ = f"{part.upper()} of Hu and Loizou 2008, at 16 kHz with WB-PESQ; see composite.py."
    return metric


csig, cbak, covl = map(_composite_part, ("csig", "cbak", "covl"))


@lru_cache(maxsize=1)
def _dnsmos_model(threads: int):
    """speechmos' bundled networks, with as many threads as torch has (its own sessions would take every core)."""
    package, runtime = _package("speechmos.dnsmos"), _package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    folder = importlib.resources.files("speechmos") / "dnsmos_models"
    model = package.DNSMOS.__new__(package.DNSMOS)  # without its __init__, which takes no options
    for name, file in (("onnx_sess", "sig_bak_ovr.onnx"), ("p808_onnx_sess", "model_v8.onnx")):
        setattr(model, name, runtime.InferenceSession(str(folder / file), options, providers=["CPUExecutionProvider"]))
    return model


@lru_cache(maxsize=2)
def _dnsmos(wav: bytes) -> dict[str, float]:
    scores = _dnsmos_model(torch.get_num_threads())(np.frombuffer(wav, np.float32), 16_000, False)
    scores = {name.upper(): float(scores[f"{name}_mos"]) for name in ("ovrl", "sig", "bak", "p808")}
    if not np.isfinite(list(scores.values())).all():
        raise MetricError("DNSMOS refuses the clip: its value is not a number")
    return scores


def dnsmos(wav: Signal, sr: int) -> dict[str, float]:
    """DNSMOS P.835 and P.808 (Reddy et al. 2022), no reference needed -> OVRL, SIG, BAK, P808, about 1..5, at 16 kHz.

    The mean over windows of 9 s, one a second; a shorter clip is repeated, samples beyond full scale are clipped.
    """
    return dict(_dnsmos(np.clip(_at(as_signal(wav), sr, 16_000), -1.0, 1.0).tobytes()))


def _dnsmos_part(part: str) -> Callable[..., float]:
    def metric(clean: Signal, enhanced: Signal, sr: int) -> float:
        return dnsmos(enhanced, sr)[part]

    return metric


PLCMOS_ROUNDS = 5  # imagined raters
PLCMOS_LEAST = 2_000  # samples that its network needs


@lru_cache(maxsize=1)
def _plcmos_model(threads: int):
    package, runtime = _package("speechmos.plcmos"), _package("onnxruntime")
    judge, options = package.PLCMOS(embed_rounds=PLCMOS_ROUNDS), runtime.SessionOptions()
    options.intra_op_num_threads = threads
    judge.session = runtime.InferenceSession(judge.model_path, options, providers=["CPUExecutionProvider"])
    return judge


def plcmos(clean: Signal, enhanced: Signal, sr: int) -> float:
    """PLCMOS (Diener et al. 2023), 1..5, at 16 kHz, no reference needed: hears dropouts and how they are filled.

    The same five imagined raters for every sound; the package draws fifteen anew each time.
    """
    wav = _at(as_signal(enhanced), sr, 16_000)
    if len(wav) < PLCMOS_LEAST:
        raise MetricError(f"PLCMOS refuses the clip: it is shorter than {PLCMOS_LEAST / 16_000:g} s")
    state = np.random.get_state()
    np.random.seed(0)
    try:
        value = float(_plcmos_model(1).get_mos((wav / max(1.0, np.abs(wav).max())).astype(np.float32)))
    finally:
        np.random.set_state(state)
    if not math.isfinite(value):
        raise MetricError("PLCMOS refuses the clip: its value is not a number")
    return value


@dataclass(frozen=True)
class Metric:
    """An entry of METRICS."""

    function: Callable[..., float]
    label: str
    unit: str
    higher_is_better: bool
    range: tuple[float, float]  # of possible values


INF = math.inf


METRICS: dict[str, Metric] = {
    "snr": Metric(snr, "SNR", "dB", True, (-INF, INF)),
    "si_sdr": Metric(si_sdr, "SI-SDR", "dB", True, (-INF, INF)),
    "seg_snr": Metric(segmental_snr, "segmental SNR", "dB", True, (-10.0, 35.0)),
    "correlation": Metric(correlation, "correlation", "", True, (-1.0, 1.0)),
    "spectral_convergence": Metric(spectral_convergence, "spectral convergence", "", False, (0.0, INF)),
    "lsd": Metric(lsd, "LSD", "bel", False, (0.0, INF)),
    "mel_distance": Metric(mel_distance, "mel distance", "nat", False, (0.0, INF)),
    "pesq_wb": Metric(pesq_wb, "WB-PESQ", "MOS", True, (1.0, 4.65)),
    "pesq_nb": Metric(pesq_nb, "NB-PESQ", "MOS", True, (1.0, 4.55)),
    "stoi": Metric(stoi, "STOI", "%", True, (-100.0, 100.0)),
    "estoi": Metric(estoi, "ESTOI", "%", True, (-100.0, 100.0)),
    "csig": Metric(csig, "CSIG", "MOS", True, (1.0, 5.0)),
    "cbak": Metric(cbak, "CBAK", "MOS", True, (1.0, 5.0)),
    "covl": Metric(covl, "COVL", "MOS", True, (1.0, 5.0)),
    "dnsmos_ovrl": Metric(_dnsmos_part("OVRL"), "DNSMOS OVRL", "MOS", True, (1.0, 5.0)),
    "dnsmos_sig": Metric(_dnsmos_part("SIG"), "DNSMOS SIG", "MOS", True, (1.0, 5.0)),
    "dnsmos_bak": Metric(_dnsmos_part("BAK"), "DNSMOS BAK", "MOS", True, (1.0, 5.0)),
    "dnsmos_p808": Metric(_dnsmos_part("P808"), "DNSMOS P808", "MOS", True, (1.0, 5.0)),
    "plcmos": Metric(plcmos, "PLCMOS", "MOS", True, (1.0, 5.0)),
}


GROUPS = {
    "all": tuple(METRICS),
    "pesq": ("pesq_wb", "pesq_nb"),
    "composite": ("csig", "cbak", "covl"),
    "dnsmos": tuple(name for name in METRICS if name.startswith("dnsmos")),
}


def choose(names: Iterable[str] | None = None) -> list[str]:
    """Names of metrics and groups -> names of METRICS in its order; None means all."""
    wanted = {part for name in (("all",) if names is None else names) for part in GROUPS.get(name, (name,))}
    unknown = sorted(wanted - set(METRICS))
    if unknown or not wanted:
        raise WavelldmError(f"there is no metric '{', '.join(unknown)}'; choose among {', '.join([*METRICS, *GROUPS])}")
    return [name for name in METRICS if name in wanted]


def measure(
    clean: Signal, enhanced: Signal, sr: int, metrics: Iterable[str] | None = None
) -> tuple[dict[str, float | None], dict[str, str]]:
    """All the metrics of one pair -> scores, and for those that refuse it (score None) the reason."""
    scores, refused = {}, {}
    for name in choose(metrics):
        try:
            value = METRICS[name].function(clean, enhanced, sr)
            if not math.isfinite(value):
                raise MetricError("it is infinite: the clip equals the clean one")
            scores[name] = value
        except MetricError as error:
            scores[name], refused[name] = None, str(error)
    return scores, refused


VALIDATION_SCORES = ("pesq_wb", "stoi", "si_sdr")


def validation_scores(clean: Tensor, cleaned: Tensor, sr: int) -> dict[str, float]:
    """For training: (B, 1, N) each -> the mean of each metric over the clips that it can score; without one, no
    entry.
    """
    found = {}
    for name in VALIDATION_SCORES:
        values = []
        for s, y in zip(clean[:, 0].cpu().numpy(), cleaned[:, 0].cpu().numpy()):
            try:
                values.append(METRICS[name].function(s, y, sr))
            except MetricError:  # silent, or PESQ finds no speech in it
                continue
            except WavelldmError:  # the package is missing
                break
        if values:
            found[name] = sum(values) / len(values)
    return found
