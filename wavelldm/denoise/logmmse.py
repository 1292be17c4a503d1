"""Log-MMSE: the best denoiser before neural networks, and the floor every trained model here has to beat.

Gain: Ephraim and Malah 1985, eq. 20, with their decision-directed a-priori SNR (1984, eq. 51). Noise: the
speech-presence tracker of Gerkmann and Hendriks 2012 (eqs. 18 to 22), which needs no silent beginning.
"""

import numpy as np
import torch
from scipy.special import exp1
from torch import Tensor

SMOOTH = 0.96  # weight of the previous frame in the a-priori SNR: higher is smoother, lower keeps onsets
XI_MIN = 10 ** (-15 / 10)  # floor of the a-priori SNR, which is also how much noise stays
XI_SPEECH = 10 ** (15 / 10)  # the SNR that speech is assumed to have where there is any


class LogMMSE:
    """One recording, cleaned as it arrives, at any rate and with any number of channels: `push` blocks, then `finish`.

    What comes out is aligned with what went in, and as long; how the sound is cut into blocks changes nothing. It
    computes with NumPy, so the sound has to be on the CPU.
    """

    def __init__(self, sr: int):
        self.hop = max(1, round(0.008 * sr))
        self.win = 4 * self.hop  # 32 ms
        periodic_hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.win) / self.win)
        self.window = np.sqrt(periodic_hann / 2).astype(np.float32)  # squares add up to one at a quarter-window hop
        self.queue = self.noise = None
        self.skip = self.win - self.hop  # the first samples out belong to the padding in front
        self.pending = 0  # samples taken in and not yet given out

    def push(self, wav: Tensor) -> Tensor:
        """wav (C, n) -> (C, m): the samples that are certain by now; m is about n."""
        wav = wav.numpy()
        if self.queue is None:
            self.queue = np.zeros((len(wav), self.win - self.hop), np.float32)
            self.tail = np.zeros((len(wav), self.win - self.hop), np.float32)
        self.pending += wav.shape[1]
        self.queue = np.concatenate([self.queue, wav], axis=1)
        count = (self.queue.shape[1] - self.win) // self.hop + 1  # whole windows T
        if count <= 0:
            return torch.zeros(len(wav), 0)
        frames = np.lib.stride_tricks.sliding_window_view(self.queue, self.win, axis=1)[
            :, : count * self.hop : self.hop
        ]
        spec = np.fft.rfft(frames * self.window, axis=2).astype(np.complex64)  # (C, T, F)
        for t in range(count):
            spec[:, t] *= self._gain(np.abs(spec[:, t]) ** 2)
        frames = np.fft.irfft(spec, self.win, axis=2).astype(np.float32) * self.window  # (C, T, win)
        out = np.zeros((len(wav), self.win + (count - 1) * self.hop), np.float32)
        out[:, : self.tail.shape[1]] += self.tail
        for t in range(count):
            out[:, t * self.hop : t * self.hop + self.win] += frames[:, t]
        done = count * self.hop
        self.queue, self.tail = self.queue[:, done:], out[:, done:]
        first, self.skip = min(self.skip, done), max(0, self.skip - done)
        self.pending -= done - first
        return torch.from_numpy(out[:, first:done])

    def ready(self, counts: np.ndarray) -> np.ndarray:
        """How many samples are out when so many are in."""
        return np.maximum(0, counts // self.hop * self.hop - (self.win - self.hop))

    def finish(self) -> Tensor:
        """The rest -> (C, m), so that in all as many samples came out as went in."""
        if self.queue is None:
            return torch.zeros(0, 0)
        rest = self.pending
        return self.push(torch.zeros(len(self.queue), rest + self.win))[:, :rest]

    def _gain(self, power: np.ndarray) -> np.ndarray:
        """|Y|^2 of one frame (C, F) -> gain (C, F); keeps the noise estimate and the last clean one as state."""
        if self.noise is None:
            pool = (
                np.ones(17) / 17
            )  # one frame is a wild guess at the noise; a mean over neighbouring bins is a calmer one
            self.noise = np.stack([np.convolve(np.pad(row, 8, mode="reflect"), pool, "valid") for row in power]) + 1e-10
            self.presence = np.full_like(power, 0.5)
            self.clean = np.zeros_like(power)
        ratio = np.minimum(power / self.noise, 1e4)
        absence = (1 + XI_SPEECH) * np.exp(-np.minimum(ratio, 200) * XI_SPEECH / (1 + XI_SPEECH))
        present = 1 / (1 + absence)  # P(speech | y)
        self.presence = 0.9 * self.presence + 0.1 * present
        present = np.where(self.presence > 0.99, np.minimum(present, 0.99), present)  # never lock the tracker
        self.noise = np.maximum(0.9 * self.noise + 0.1 * (present * self.noise + (1 - present) * power), 1e-10)
        ratio = np.clip(power / self.noise, 1e-4, 1e4)
        xi = np.maximum(SMOOTH * self.clean / self.noise + (1 - SMOOTH) * np.maximum(ratio - 1, 0), XI_MIN)
        wiener = xi / (1 + xi)
        gain = np.minimum(wiener * np.exp(0.5 * exp1(wiener * ratio)), 1.0)
        self.clean = gain**2 * power
        return gain
