"""Statistics of codec tokens: usage, entropy, agreement, neighbours, and relation to classes of sound.

Codes are integers (..., Q, T); codes that are ABSENT are not counted. Frames of sound have the length of code frames.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..codec.fsq import ABSENT, code_to_digits, digits_to_code
from ..errors import WavelldmError

SILENCE, VOWEL, FRICATIVE, OTHER = range(4)
CLASSES = ("silence", "vowel", "fricative", "other")  # by number
SILENT_DB = -45.0  # frames this far under the loudest one are silence
LOUD_DB = -22.0  # vowels lie above this
FAINT_DB = -50.0  # a recording whose loudest frame is under this counts as silent
HISS_RATE = 5_000.0  # zero crossings per second; fricatives have more
DARK_HZ, BRIGHT_HZ = 1_500.0, 3_000.0  # spectral centroid: vowels lie below the first, fricatives above the second


def counts(codes: Tensor, entries: int) -> Tensor:
    """codes (..., Q, T) -> (Q, entries): how often each code occurs in each codebook."""
    rows = codes.movedim(-2, 0).flatten(1)  # (Q, all frames)
    return torch.stack([torch.bincount(row[row != ABSENT], minlength=entries) for row in rows])


def usage(codes: Tensor, entries: int) -> Tensor:
    """Number of different codes that occur in each codebook: (..., Q, T) -> (Q,)."""
    return (counts(codes, entries) > 0).sum(-1)


def entropy(codes: Tensor, entries: int) -> Tensor:
    """-sum p log2 p in bits for each codebook: (..., Q, T) -> (Q,). With N frames it is at most log2 N."""
    many = counts(codes, entries).double()
    share = many / many.sum(-1, keepdim=True).clamp(min=1)
    return torch.special.entr(share).sum(-1) / torch.log(torch.tensor(2.0, dtype=torch.double))


def perplexity(codes: Tensor, entries: int) -> Tensor:
    """2**entropy, (..., Q, T) -> (Q,): the number of equally used codes with the same entropy."""
    return 2 ** entropy(codes, entries)


def flip_rate(codes: Tensor, others: Tensor) -> Tensor:
    """Share of frames whose codes differ, for each codebook: two (..., Q, T) -> (Q,)."""
    if codes.shape != others.shape:
        raise WavelldmError(
            f"codes to compare have one shape, not {tuple(codes.shape)} and {tuple(others.shape)}; cut them alike"
        )
    return (codes != others).movedim(-2, 0).flatten(1).double().mean(-1)


def neighbours(code: int, levels: Sequence[int]) -> Tensor:
    """The codes that differ from `code` by one step in one channel: (d + 1 to 2 d,)."""
    digits = code_to_digits(torch.tensor(code), levels)  # (d,)
    steps = torch.cat([-torch.eye(len(levels)), torch.eye(len(levels))]).long()  # (2 d, d)
    near = digits + steps
    inside = ((near >= 0) & (near < torch.tensor(levels))).all(-1)
    return digits_to_code(near[inside], levels)


def information(digits: Tensor, classes: Tensor) -> float:
    """Mutual information of digit and class in bits: two (T,) of integers."""
    joint = torch.zeros(int(digits.max()) + 1, int(classes.max()) + 1, dtype=torch.double)
    joint.index_put_((digits, classes), torch.ones(len(digits), dtype=torch.double), accumulate=True)
    joint = joint / joint.sum()
    independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return torch.where(joint > 0, joint * (joint / independent).log2(), 0.0).sum().item()


def frame_features(wav: Tensor, sr: int, hop: int) -> Tensor:
    """wav (1, N) -> (ceil(N / hop), 3): level in dB, zero crossings per second, spectral centroid in Hz.

    Each frame extends half a hop beyond its own samples on both sides, so that it holds a whole period of a low voice.
    """
    wav = torch.nn.functional.pad(wav[0], (hop // 2, -wav.shape[-1] % hop + hop // 2))
    frames = wav.unfold(0, 2 * (hop // 2) + hop, hop)  # (T, 2 hop)
    level = 10 * torch.log10(frames.square().mean(-1) + 1e-10)
    crossings = (frames[:, 1:] * frames[:, :-1] < 0).float().mean(-1) * sr
    power = torch.fft.rfft(frames * torch.hann_window(frames.shape[-1])).abs().square()  # (T, bins)
    hertz = torch.linspace(0, sr / 2, power.shape[-1])
    centre = power @ hertz / power.sum(-1).clamp(min=1e-10)
    return torch.stack([level, crossings, centre], -1)


def frame_classes(wav: Tensor, sr: int, hop: int) -> Tensor:
    """wav (1, N) -> (ceil(N / hop),): a rough guess at the class of each frame from these three features; see
    CLASSES.
    """
    level, crossings, centre = frame_features(wav, sr, hop).unbind(-1)
    level = level - level.max().clamp(min=FAINT_DB)
    classes = torch.full(level.shape, OTHER)  # nasals, stops, transitions
    classes[(level > LOUD_DB) & (centre < DARK_HZ)] = VOWEL
    classes[(crossings > HISS_RATE) | (centre > BRIGHT_HZ)] = FRICATIVE
    classes[level < SILENT_DB] = SILENCE
    return classes


def change_rate(codes: Tensor) -> Tensor:
    """Share of frames whose code differs from that of the frame before, for each codebook: (..., Q, T) -> (Q,)."""
    return flip_rate(codes[..., 1:], codes[..., :-1])


def frame_phonemes(marks: Sequence[tuple[float, str]], frames: int, rate: float) -> list[str]:
    """Where phonemes begin, [(second, phoneme), ...] -> the phoneme in the middle of each frame, without stress marks;
    before the first one and in pauses an empty string."""
    begins = torch.tensor([second for second, _ in marks], dtype=torch.double)
    middles = (torch.arange(frames, dtype=torch.double) + 0.5) / rate
    which = torch.searchsorted(begins, middles, right=True).tolist()
    names = ["", *(phoneme.strip("ˈˌ") for _, phoneme in marks)]
    return [names[k] for k in which]


def given_before(digits: Tensor) -> float:
    """Entropy in bits of a digit if that of the frame before is known, H(now, before) - H(before): (T,) of integers."""
    size = int(digits.max()) + 1
    pairs, before = digits[1:] * size + digits[:-1], digits[:-1]
    return float(entropy(pairs[None], size * size) - entropy(before[None], size))
