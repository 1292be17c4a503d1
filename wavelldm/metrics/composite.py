"""Composite measures CSIG, CBAK and COVL (Hu and Loizou 2008), predicted from PESQ and three frame-wise distances.

Y. Hu, P. C. Loizou, "Evaluation of objective quality measures for speech enhancement", IEEE TASLP 16(1), 2008.
All choices that affect the values (30 ms Hann frames, a quarter of that as hop, the last whole frame unused, linear
prediction of order 16, the lowest 95 % of the frames) are those of the authors' program, so that scores compare.
"""

import numpy as np

from .signals import MetricError, Signal, as_pair, frames

EPS = np.finfo(np.float64).eps
KEEP = 0.95  # LLR and WSS are means over the lowest 95 % of the frames
SEGMENTAL = (-10.0, 35.0)  # dB, the range a frame's SNR is clamped to

# Klatt's critical bands, Hz: eight of 70 Hz spacing, then widening by about 10.8 % a band
CENTRES = np.array(
    [50, 120, 190, 260, 330, 400, 470, 540, 617.372, 703.378, 798.717, 904.128, 1020.38, 1148.30, 1288.72, 1442.54,
     1610.70, 1794.16, 1993.93, 2211.08, 2446.71, 2701.97, 2978.04, 3276.17, 3597.63]
)  # fmt: skip
WIDTHS = np.array(
    [70, 70, 70, 70, 70, 70, 70, 77.3724, 86.0056, 95.3398, 105.411, 116.256, 127.914, 140.423, 153.823, 168.154,
     183.457, 199.776, 217.153, 235.631, 255.255, 276.072, 298.126, 321.465, 346.136]
)  # fmt: skip
K_GLOBAL, K_LOCAL = 20.0, 1.0  # dB, how fast a weight falls below the loudest band and below the nearest peak


def _windowed(clean: Signal, enhanced: Signal, sr: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Both signals as Hann-windowed frames (F, 30 ms)."""
    clean, enhanced = as_pair(clean, enhanced)
    size = round(0.03 * sr)
    window = np.hanning(size + 2)[1:-1]  # without its two zeros
    if len(clean) < size + size // 4:
        raise MetricError(f"the clip is too short: {len(clean) / sr * 1000:.1f} ms, and two 30 ms frames take 37.5 ms")
    # the machine epsilon keeps digital silence from dividing by zero
    return tuple(frames(x + EPS, size, size // 4)[:-1] * window for x in (clean, enhanced)) + (size,)


def _lowest(values: np.ndarray) -> float:
    """The mean of the lowest 95 %."""
    return float(np.sort(values)[: max(1, round(len(values) * KEEP))].mean())


def autocorrelation(x: np.ndarray, order: int) -> np.ndarray:
    """(F, N) -> (F, order + 1), lags 0 to order."""
    n = x.shape[1]
    return np.stack([np.einsum("fn,fn->f", x[:, : n - k], x[:, k:]) for k in range(order + 1)], axis=1)


def levinson(r: np.ndarray) -> np.ndarray:
    """Levinson-Durbin: autocorrelations (F, P + 1) -> prediction-error filters (F, P + 1), each starting with 1."""
    order = r.shape[1] - 1
    a = np.zeros_like(r)
    a[:, 0], error = 1.0, r[:, 0].copy()
    for m in range(1, order + 1):
        reflection = -np.einsum("fk,fk->f", a[:, :m], r[:, m:0:-1]) / error  # the m-th reflection coefficient
        a[:, 1 : m + 1] += reflection[:, None] * a[:, m - 1 :: -1][:, :m]
        error = np.maximum(error * (1.0 - reflection**2), EPS * r[:, 0])  # rounding must not make it negative
    return a


def llr(clean: Signal, enhanced: Signal, sr: int) -> float:
    """Log-likelihood ratio of the two linear predictors on the clean frame: log(a_e R a_e / a_c R a_c) >= 0.

    Independent of the gain of the enhanced signal; 0 for equal spectral envelopes.
    """
    clean, enhanced, _ = _windowed(clean, enhanced, sr)
    order = 10 if sr < 10_000 else 16
    r_clean, r_enhanced = autocorrelation(clean, order), autocorrelation(enhanced, order)

    def residual(a):  # a' R a with R Toeplitz is a sum over lags
        c = autocorrelation(a, order)
        return r_clean[:, 0] * c[:, 0] + 2 * np.einsum("fk,fk->f", r_clean[:, 1:], c[:, 1:])

    least = np.maximum(residual(levinson(r_clean)), EPS * r_clean[:, 0])
    ratio = residual(levinson(r_enhanced)) / least
    return _lowest(np.log(np.maximum(ratio, 1.0)))  # below 1 is rounding: no filter beats the clean frame's own


def critical_bands(sr: int, n_fft: int) -> np.ndarray:
    """Gaussian filters on the power spectrum (25, n_fft / 2), of equal area, cut off where they fall below -30 dB."""
    bins = np.arange(n_fft // 2)
    centre = np.floor(CENTRES / sr * n_fft)[:, None]
    width = (WIDTHS / sr * n_fft)[:, None]
    bank = WIDTHS[0] / WIDTHS[:, None] * np.exp(-11.0 * ((bins - centre) / width) ** 2)
    return np.where(bank > np.exp(-30.0 / (2 * 2.303)), bank, 0.0)


def slope_weights(level: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Klatt's weights (F, 24) of band levels in dB (F, 25): high near the loudest band and near the local peak.

    The local peak is found by going up the slope. On a rising slope this is the last band before the top, as in the
    authors' program, although the top itself was probably meant: published values depend on it.
    """
    count = slope.shape[1]
    left, right = level[:, :count].copy(), level[:, :count].copy()
    for i in range(1, count):  # a falling slope: carry the peak along from the left
        left[:, i] = np.where(slope[:, i - 1] <= 0, left[:, i - 1], left[:, i])
    for i in range(count - 2, -1, -1):  # a rising one: from the right
        right[:, i] = np.where(slope[:, i + 1] > 0, right[:, i + 1], right[:, i])
    peak = np.where(slope > 0, right, left)
    below_top = level.max(axis=1, keepdims=True) - level[:, :count]
    return K_GLOBAL / (K_GLOBAL + below_top) * K_LOCAL / (K_LOCAL + peak - level[:, :count])


def wss(clean: Signal, enhanced: Signal, sr: int) -> float:
    """Weighted spectral slope distance (Klatt 1982) over 25 critical bands up to 3.8 kHz; full scale is 1.0."""
    clean, enhanced, size = _windowed(clean, enhanced, sr)
    n_fft = 1 << (2 * size - 1).bit_length()
    bank = critical_bands(sr, n_fft)

    def slopes(x):
        power = np.abs(np.fft.rfft(x, n_fft)[:, : n_fft // 2]) ** 2
        level = 10 * np.log10(np.maximum(power @ bank.T, 1e-10))  # (F, 25) dB
        slope = np.diff(level, axis=1)  # (F, 24)
        return slope, slope_weights(level, slope)

    (slope_c, weight_c), (slope_e, weight_e) = slopes(clean), slopes(enhanced)
    weight = (weight_c + weight_e) / 2
    return _lowest((weight * (slope_c - slope_e) ** 2).sum(axis=1) / weight.sum(axis=1))


def segmental_snr(clean: Signal, enhanced: Signal, sr: int) -> float:
    """Mean over frames of the SNR in dB, each clamped to -10..35; a silent clean frame counts as -10."""
    clean, enhanced, _ = _windowed(clean, enhanced, sr)
    signal, noise = (clean**2).sum(axis=1), ((clean - enhanced) ** 2).sum(axis=1)
    return float(np.clip(10 * np.log10(signal / (noise + EPS) + EPS), *SEGMENTAL).mean())


def regress(pesq: float, llr: float, wss: float, segmental: float) -> dict[str, float]:
    """The paper's three regressions, clamped to the opinion scale 1..5. `pesq` is WB-PESQ (MOS-LQO), as usual now."""
    scores = {
        "csig": 3.093 - 1.029 * llr + 0.603 * pesq - 0.009 * wss,
        "cbak": 1.634 + 0.478 * pesq - 0.007 * wss + 0.063 * segmental,
        "covl": 1.594 + 0.805 * pesq - 0.512 * llr - 0.007 * wss,
    }
    return {name: float(min(5.0, max(1.0, value))) for name, value in scores.items()}


def composite(clean: Signal, enhanced: Signal, sr: int, pesq: float) -> dict[str, float]:
    """CSIG (speech), CBAK (background) and COVL (overall), given the pair's WB-PESQ; `sr` should be 16 kHz."""
    return regress(pesq, llr(clean, enhanced, sr), wss(clean, enhanced, sr), segmental_snr(clean, enhanced, sr))
