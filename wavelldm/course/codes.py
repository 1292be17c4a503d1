"""What codes say: how evenly they are used, how often they differ, which lie near, and on what kind of sound they fire.

Codes are (..., Q, T) integers; those that are ABSENT count nowhere. Frames of sound are as long as the codes' own.
"""

import torch
from torch import Tensor

from ..codec.fsq import ABSENT, code_to_digits, digits_to_code
from ..errors import WavelldmError

SILENCE, VOWEL, FRICATIVE, OTHER = range(4)
CLASSES = ("silence", "vowel", "fricative", "other")  # by their number
SILENT_DB = -45.0  # this far under the loudest frame nothing is heard any more ...
LOUD_DB = -22.0  # ... and vowels lie above this
FAINT_DB = -50.0  # a recording whose loudest frame is under this is silence altogether, or nearly
HISS_RATE = 5_000.0  # sign changes per second: more are a hiss
DARK_HZ, BRIGHT_HZ = 1_500.0, 3_000.0  # centre of gravity of the spectrum: below, a voice; above, a hiss


def counts(codes: Tensor, entries: int) -> Tensor:
    """codes (..., Q, T) -> (Q, entries): how often each code occurs in each codebook."""
    rows = codes.movedim(-2, 0).flatten(1)  # (Q, all frames)
    return torch.stack([torch.bincount(row[row != ABSENT], minlength=entries) for row in rows])


def usage(codes: Tensor, entries: int) -> Tensor:
    """How many different codes each codebook uses: (..., Q, T) -> (Q,)."""
    return (counts(codes, entries) > 0).sum(-1)


def entropy(codes: Tensor, entries: int) -> Tensor:
    """-sum p log2 p in bits, of each codebook: (..., Q, T) -> (Q,). From N frames it cannot come out above log2 N."""
    many = counts(codes, entries).double()
    share = many / many.sum(-1, keepdim=True).clamp(min=1)
    return torch.special.entr(share).sum(-1) / torch.log(torch.tensor(2.0, dtype=torch.double))


def perplexity(codes: Tensor, entries: int) -> Tensor:
    """2**entropy, (..., Q, T) -> (Q,): as many codes, all used equally, would say as much."""
    return 2 ** entropy(codes, entries)


def flip_rate(codes: Tensor, others: Tensor) -> Tensor:
    """The share of frames whose code is another one, of each codebook: two (..., Q, T) -> (Q,)."""
    if codes.shape != others.shape:
        raise WavelldmError(
            f"codes to compare have one shape, not {tuple(codes.shape)} and {tuple(others.shape)}; cut them alike"
        )
    return (codes != others).movedim(-2, 0).flatten(1).double().mean(-1)


def neighbours(code: int, levels) -> Tensor:
    """The codes that differ from `code` by one step in one channel: (d + 1 to 2 d,)."""
    digits = code_to_digits(torch.tensor(code), levels)  # (d,)
    steps = torch.cat([-torch.eye(len(levels)), torch.eye(len(levels))]).long()  # (2 d, d)
    near = digits + steps
    inside = ((near >= 0) & (near < torch.tensor(levels))).all(-1)
    return digits_to_code(near[inside], levels)


def information(digits: Tensor, classes: Tensor) -> float:
    """How many bits one knows about the class from the digit (mutual information): two (T,) of integers."""
    joint = torch.zeros(int(digits.max()) + 1, int(classes.max()) + 1, dtype=torch.double)
    joint.index_put_((digits, classes), torch.ones(len(digits), dtype=torch.double), accumulate=True)
    joint = joint / joint.sum()
    apart = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)  # if neither knew of the other
    return torch.where(joint > 0, joint * (joint / apart).log2(), 0.0).sum().item()


def frame_features(wav: Tensor, sr: int, hop: int) -> Tensor:
    """wav (1, N) -> (ceil(N / hop), 3): level in dB, sign changes per second, centre of gravity of the spectrum in Hz.

    Each frame reaches half a hop beyond its own samples on both sides, so that a low voice fits in with a whole period.
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
    """wav (1, N) -> (ceil(N / hop),): a rough guess, from three numbers, at what is said; see CLASSES."""
    level, crossings, centre = frame_features(wav, sr, hop).unbind(-1)
    level = level - level.max().clamp(min=FAINT_DB)
    classes = torch.full(level.shape, OTHER)  # nasals, stops, borders between sounds
    classes[(level > LOUD_DB) & (centre < DARK_HZ)] = VOWEL
    classes[(crossings > HISS_RATE) | (centre > BRIGHT_HZ)] = FRICATIVE
    classes[level < SILENT_DB] = SILENCE
    return classes
