"""Short-time Fourier transform and its inverse, in three paddings, as functions and as convolutions that export.

With N samples and a hop of H, `padding` decides where the frames lie:
"center": 1 + N // H frames, frame t in the middle of sample t * H (librosa's and torch's default);
"same": ceil(N / H) frames, (n_fft - H) / 2 samples mirrored at both ends (the convention of HiFi-GAN);
"causal": ceil(N / H) frames, frame t ends at sample (t + 1) * H and uses nothing later.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import AudioError, WavelldmError

POWER = 0.3  # compression of magnitudes before they are compared: between loudness (about 0.6) and the logarithm
TINY_POWER = 1e-20  # below it a bin counts as silent: sqrt has no finite slope at 0
TINY_ENVELOPE = 1e-4  # where the windows sum to less, dividing by the sum would only amplify errors


def hann(win: int, n_fft: int, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None) -> Tensor:
    """Periodic Hann window of `win` samples, zero-padded on both sides to (n_fft,)."""
    if win > n_fft:
        raise WavelldmError(f"the window has {win} samples and the transform only {n_fft}; choose win <= n_fft")
    left = (n_fft - win) // 2
    window = torch.hann_window(win, dtype=torch.float64).to(dtype)  # cosines in float32 lose a digit
    return F.pad(window, (left, n_fft - win - left)).to(device)


def layout(n: int, n_fft: int, hop: int, padding: str) -> tuple[int, int, int]:
    """For n samples: how many to add on the left and on the right, and how many frames that gives."""
    if padding == "center":
        left, frames = n_fft // 2, 1 + n // hop
    elif padding == "same":
        left, frames = (n_fft - hop) // 2, -(-n // hop)
    elif padding == "causal":
        left, frames = n_fft - hop, -(-n // hop)
    else:
        raise WavelldmError(f"there is no padding '{padding}'; choose center, same or causal")
    return left, max(0, (frames - 1) * hop + n_fft - left - n), frames


def pad(wav: Tensor, n_fft: int, hop: int, padding: str) -> Tensor:
    """(B, N) or (B, 1, N) -> the same with both ends padded: mirrored, or zeros if causal or too short to mirror."""
    n = wav.shape[-1]
    if n == 0:
        raise AudioError("there are no samples to transform; give at least one")
    if not wav.is_floating_point():
        raise AudioError(
            f"samples are floats between -1 and 1, not {str(wav.dtype)[6:]}; convert them with audio.as_float"
        )
    left, right, _ = layout(n, n_fft, hop, padding)
    mirrored = padding != "causal" and max(left, right) < n
    return F.pad(wav, (left, right), mode="reflect" if mirrored else "constant")


def frame(wav: Tensor, n_fft: int, hop: int, padding: str) -> Tensor:
    """(B, N) -> overlapping frames (B, T, n_fft), a view of the padded wav that copies nothing."""
    return pad(wav, n_fft, hop, padding).unfold(-1, n_fft, hop)


def stft(wav: Tensor, n_fft: int, hop: int, win: int, padding: str = "same") -> Tensor:
    """wav (..., N) -> complex (..., n_fft // 2 + 1, T); the channel axis of a (B, 1, N) is dropped: (B, F, T)."""
    if wav.ndim == 3 and wav.shape[1] == 1:
        wav = wav[:, 0]
    frames = frame(wav[None].flatten(0, -2), n_fft, hop, padding)  # (rows, T, n_fft)
    spec = torch.fft.rfft(frames * hann(win, n_fft, wav.dtype, wav.device))  # (rows, T, F)
    return spec.reshape(*wav.shape[:-1], *spec.shape[1:]).transpose(-1, -2)  # (..., F, T)


def overlap_add(frames: Tensor, hop: int) -> Tensor:
    """(..., T, n_fft) -> (..., (T - 1) * hop + n_fft): cut the frames into slabs of one hop and add slab by slab."""
    *batch, count, n_fft = frames.shape
    slabs = -(-n_fft // hop)
    frames = F.pad(frames, (0, slabs * hop - n_fft)).unflatten(-1, (slabs, hop))  # (..., T, slabs, hop)
    out = frames.new_zeros(*batch, count + slabs - 1, hop)
    for k in range(slabs):
        out[..., k : k + count, :] += frames[..., k, :]
    return out.flatten(-2)[..., : (count - 1) * hop + n_fft]


def _crop(wav: Tensor, frames: int, n_fft: int, hop: int, padding: str, length: int | None) -> Tensor:
    """Take the padding off again and leave exactly `length` samples: (..., n) -> (..., length)."""
    if length is None:
        length = (frames - 1) * hop if padding == "center" else frames * hop
    left, _, _ = layout(length, n_fft, hop, padding)
    wav = wav[..., left : left + length]
    return F.pad(wav, (0, length - wav.shape[-1]))


def istft(spec: Tensor, n_fft: int, hop: int, win: int, padding: str = "same", length: int | None = None) -> Tensor:
    """complex (..., F, T) -> wav (..., length): the least-squares inverse (Griffin & Lim 1984, eq. 6).

    Exact wherever the squared windows overlap. The last samples of a causal spectrum lie only under the end of the last
    window, which falls to zero: there (a thirtieth of n_fft) the inverse fades out.
    """
    window = hann(win, n_fft, spec.real.dtype, spec.device)
    frames = torch.fft.irfft(spec.transpose(-1, -2), n=n_fft) * window  # (..., T, n_fft)
    envelope = overlap_add(window.square().expand(frames.shape[-2], -1), hop)
    wav = overlap_add(frames, hop) / envelope.clamp_min(TINY_ENVELOPE)  # (..., (T - 1) * hop + n_fft)
    return _crop(wav, frames.shape[-2], n_fft, hop, padding, length)


def magnitude(real: Tensor, imag: Tensor) -> Tensor:
    """|z| with a gradient that is finite (zero) at z = 0; also twice as fast as abs() of a complex tensor."""
    return (real.square() + imag.square()).clamp_min(TINY_POWER).sqrt()


class ConvSTFT(nn.Module):
    """`stft` as one convolution with fixed weights: wav (B, 1, N) -> real and imaginary parts (B, 2 * F, T)."""

    def __init__(self, n_fft: int, hop: int, win: int, padding: str = "same"):
        super().__init__()
        self.n_fft, self.hop, self.padding = n_fft, hop, padding
        basis = torch.fft.rfft(torch.eye(n_fft, dtype=torch.float64)).T  # (F, n_fft)
        weight = torch.cat([basis.real, basis.imag]) * hann(win, n_fft, torch.float64)
        self.register_buffer("weight", weight[:, None].float(), persistent=False)  # (2F, 1, n_fft)

    def forward(self, wav: Tensor) -> Tensor:
        return F.conv1d(pad(wav, self.n_fft, self.hop, self.padding), self.weight, stride=self.hop)


class ConvISTFT(nn.Module):
    """`istft` as one transposed convolution: real and imaginary parts (B, 2 * F, T) -> wav (B, 1, length)."""

    def __init__(self, n_fft: int, hop: int, win: int, padding: str = "same"):
        super().__init__()
        self.n_fft, self.hop, self.padding = n_fft, hop, padding
        window = hann(win, n_fft, torch.float64)
        unit = torch.eye(n_fft // 2 + 1, dtype=torch.complex128)
        basis = torch.cat([torch.fft.irfft(unit, n=n_fft), torch.fft.irfft(1j * unit, n=n_fft)])  # (2F, n_fft)
        self.register_buffer("weight", (basis * window)[:, None].float(), persistent=False)  # (2F, 1, n_fft)
        self.register_buffer("squared", window.square()[None, None].float(), persistent=False)  # (1, 1, n_fft)

    def forward(self, parts: Tensor, length: int | None = None) -> Tensor:
        wav = F.conv_transpose1d(parts, self.weight, stride=self.hop)  # (B, 1, (T - 1) * hop + n_fft)
        envelope = F.conv_transpose1d(torch.ones_like(parts[:1, :1]), self.squared, stride=self.hop)
        wav = wav / envelope.clamp_min(TINY_ENVELOPE)
        return _crop(wav, parts.shape[-1], self.n_fft, self.hop, self.padding, length)
