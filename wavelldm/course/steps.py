"""The steps that a reader writes: for each the finished function, sounds and numbers to try it on, and common slips.

`todo("deep filter", mine)` gives back the reader's function if it is right, and else the finished one, so that a
notebook runs past a step that is still open. Where a result is wrong in a known way, a hint says what happened.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import WavelldmError
from .step import Step, some
from .steps_late import LATE

CLOSE = 1e-4  # of the largest value


def spectra(g: torch.Generator, *shape: int) -> Tensor:
    return torch.complex(some(g, *shape), some(g, *shape))


def deep_filter(seen: Tensor, weights: Tensor) -> Tensor:
    """seen (K - 1 + T, bins), weights (K, T, bins) -> (T, bins): sum over k of weights[k, t] seen[t + k]."""
    count = weights.shape[1]
    return sum(w * seen[k : k + count] for k, w in enumerate(weights))


def flow_step(x: Tensor, end: Tensor, t: float, then: float) -> Tensor:
    """From place t of the straight line to `then`, if the line ends at `end`."""
    return x + (then - t) / (1 - t) * (end - x)


def signal_to_noise(clean: Tensor, noisy: Tensor) -> Tensor:
    """Energy of the clean sound over that of what was added to it, in dB."""
    return 10 * torch.log10(clean.square().sum() / (noisy - clean).square().sum())


def with_magnitudes(found: Tensor, magnitudes: Tensor) -> Tensor:
    """The phases of `found` (..., complex) under the wanted magnitudes (Griffin and Lim 1984)."""
    return torch.polar(magnitudes, found.angle())


def noise_gain(speech_power: float, noise_power: float, snr_db: float) -> float:
    """The factor for the noise that brings a mixture to this signal-to-noise ratio."""
    return math.sqrt(speech_power / noise_power * 10 ** (-snr_db / 10))


def phase_in_turns(f0: Tensor, sr: int, hop: int) -> Tensor:
    """f0 (B, T) in Hz -> the phase in the middle of each frame, in turns (B, T): 0 at first, then the mean of two
    neighbouring pitches times the time between them."""
    steps = (f0[:, 1:] + f0[:, :-1]).double() / 2 * hop / sr
    return F.pad(steps.cumsum(1), (1, 0)) % 1


def on_the_circle(turns: Any, *_: Any) -> list:
    """Whole turns do not count: the cosine and the sine of what is left."""
    angle = 2 * math.pi * plain(turns).double()
    return [angle.cos(), angle.sin()]


def mutual_information(joint: Tensor) -> Tensor:
    """joint (A, B), probabilities that add up to 1 -> what one of the two tells about the other, in bits."""
    alone = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    return torch.where(joint > 0, joint * (joint / alone).log2(), 0.0).sum()


def chances(g: torch.Generator, *shape: int) -> Tensor:
    x = torch.rand(*shape, generator=g)
    return x / x.sum()


def better_magnitudes(size: Tensor, mel: Tensor, bank: Tensor) -> Tensor:
    """size (bins, F), mel (M, F), bank (M, bins): an update of Lee and Seung (2001, eq. 4) to bank @ size = mel."""
    return size * (bank.T @ mel) / (bank.T @ (bank @ size)).clamp_min(1e-20)


def with_a_gap(bank: Tensor) -> Tensor:
    """The first bin lies in no band."""
    return F.pad(bank[:, 1:], (1, 0))


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """The value of `rounded`, with the gradient of x."""
    return rounded.detach() + (x - x.detach())


def with_gradients(answer: Any, *inputs: Tensor) -> list:
    """An answer, and the gradient of its sum by each of the inputs, 0 where there is none."""
    if not isinstance(answer, Tensor) or not answer.requires_grad:
        return [answer, *map(torch.zeros_like, inputs)]
    found = torch.autograd.grad(answer.sum(), inputs, allow_unused=True)
    return [answer, *(torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found))]


def rounding(g: torch.Generator, *shape: int) -> tuple[Tensor, Tensor]:
    x = 3 * some(g, *shape)
    return x.requires_grad_(), x.detach().round().requires_grad_()


def causal_padding(x: Tensor, kernel: int, dilation: int = 1, stride: int = 1) -> Tensor:
    """x (B, C, T) with the zeros of a causal convolution: all before it, and behind it what fills the last stride."""
    return F.pad(x, ((kernel - 1) * dilation + 1 - stride, -x.shape[-1] % stride))


def critic_loss(real: Tensor, made: Tensor) -> Tensor:
    """Least squares (LSGAN): 1 for real, 0 for made."""
    return (1 - real).square().mean() + made.square().mean()


def ddim_step(z_t: Tensor, z0: Tensor, now: float, then: float, sigma: float = 0.0) -> Tensor:
    """From alpha-bar `now` to `then`, with the estimate z0, before noise of deviation sigma is added (DDIM, eq. 12)."""
    eps = (z_t - math.sqrt(now) * z0) / math.sqrt(1 - now)
    return math.sqrt(then) * z0 + math.sqrt(max(1 - then - sigma**2, 0)) * eps


def turn(a: Tensor, b: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """The complex number a + ib, turned by an angle in radians -> its two parts."""
    return a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()


STEPS = {
    "deep filter": Step(
        deep_filter,
        lambda g: [(spectra(g, 12, 5), spectra(g, 6, 7, 5)), (spectra(g, 4, 3), spectra(g, 1, 4, 3))],
        {
            "weights[0] belongs to the earliest frame, seen[t], and the last one to seen[t + K - 1]": lambda s, w: (
                deep_filter(s, w.flip(0))
            ),
            "every frame t has weights of its own: weights[k, t], not the same ones for all t": lambda s, w: (
                deep_filter(s, w[:, :1].expand_as(w))
            ),
            "the weights are not conjugated: both numbers are multiplied as they are": lambda s, w: deep_filter(
                s, w.conj()
            ),
            "this multiplies one frame only; add up all K of them": lambda s, w: w[0] * s[: w.shape[1]],
        },
    ),
    "signal-to-noise ratio": Step(
        signal_to_noise,
        lambda g: [(some(g, 1, 50), 3 * some(g, 1, 50)), (some(g, 20), some(g, 20))],
        {
            "the noise is what was added: noisy - clean": lambda s, y: (
                10 * torch.log10(s.square().sum() / y.square().sum())
            ),
            "the other way round: the signal stands above": lambda s, y: -signal_to_noise(s, y),
            "for energies it is 10 log10; 20 is for amplitudes": lambda s, y: 2 * signal_to_noise(s, y),
            "energy is a sum of squares, so square before you add": lambda s, y: (
                10 * torch.log10(s.abs().sum() / (y - s).abs().sum())
            ),
            "this is the natural logarithm; decibels take log10": lambda s, y: signal_to_noise(s, y) * math.log(10),
            "this is the ratio itself; decibels are 10 times its log10": lambda s, y: (
                10 ** (signal_to_noise(s, y) / 10)
            ),
        },
    ),
    "phases kept": Step(
        with_magnitudes,
        lambda g: [(spectra(g, 5, 4), some(g, 5, 4).abs()), (spectra(g, 1, 3), some(g, 1, 3).abs())],
        {
            "these are still the magnitudes that were found; put the wanted ones in their place": lambda z, m: z,
            "the magnitudes of both are multiplied; first divide by the found ones, or use the angle alone": (
                lambda z, m: m * z
            ),
            "the phases have turned round: no conjugate": lambda z, m: with_magnitudes(z, m).conj(),
            "this has no phases; the result is complex": lambda z, m: m,
            "only the phases are left; multiply with the magnitudes": lambda z, m: z / z.abs(),
            "the real part alone has lost half of the phase": lambda z, m: with_magnitudes(z, m).real,
        },
    ),
    "gain of the noise": Step(
        noise_gain,
        lambda g: [(0.02, 0.5, 10.0), (0.3, 0.1, -5.0), (1.0, 2.0, 0.0)],
        {
            "this is a ratio of powers; the samples are multiplied by its root": lambda s, n, snr: (
                noise_gain(s, n, snr) ** 2
            ),
            "a higher SNR needs less noise: mind the sign": lambda s, n, snr: noise_gain(s, n, -snr),
            "the powers stand the wrong way round: loud speech allows loud noise": lambda s, n, snr: noise_gain(
                n, s, snr
            ),
            "the noise has a power of its own; divide by it": lambda s, n, snr: noise_gain(s, 1.0, snr),
            "powers take 10 ** (dB / 10); 20 is for amplitudes, and the root comes on top": lambda s, n, snr: (
                noise_gain(s, n, snr / 2)
            ),
            "this is 10 ** (-dB / 10) as an amplitude: 15 dB become 30": lambda s, n, snr: noise_gain(s, n, 2 * snr),
        },
    ),
    "phase in turns": Step(
        phase_in_turns,
        lambda g: [
            (100 + 100 * torch.rand(2, 6, generator=g), 16_000, 256),
            (torch.tensor([[110.0, 220.0, 90.0]]), 8_000, 64),
        ],
        {
            "the first frame has the phase 0; the steps lie between frames": lambda f0, sr, hop: (
                ((f0.double() * hop / sr).cumsum(1)) % 1
            ),
            "between two frames the pitch moves; take the mean of both, not the later one": lambda f0, sr, hop: F.pad(
                (f0[:, 1:].double() * hop / sr).cumsum(1), (1, 0)
            ),
            "between two frames the pitch moves; take the mean of both, not the earlier one": lambda f0, sr, hop: F.pad(
                (f0[:, :-1].double() * hop / sr).cumsum(1), (1, 0)
            ),
            "each frame continues the one before; add the steps up": lambda f0, sr, hop: F.pad(
                (f0[:, 1:] + f0[:, :-1]).double() / 2 * hop / sr, (1, 0)
            ),
            "the phase is counted in turns, not in radians": lambda f0, sr, hop: F.pad(
                ((f0[:, 1:] + f0[:, :-1]).double() * math.pi * hop / sr).cumsum(1), (1, 0)
            ),
            "a frame lasts hop / sr seconds; Hz times seconds are turns": lambda f0, sr, hop: F.pad(
                ((f0[:, 1:] + f0[:, :-1]).double() / 2 / sr).cumsum(1), (1, 0)
            ),
        },
        on_the_circle,
    ),
    "mutual information": Step(
        mutual_information,
        lambda g: [(chances(g, 3, 4),), (torch.tensor([[0.5, 0.0], [0.25, 0.25]]),)],
        {
            "these are nats; for bits take log2": lambda joint: mutual_information(joint) * math.log(2),
            "the ratio stands upside down": lambda joint: -mutual_information(joint),
            "this is the entropy of both together; compare with what independent ones would have": lambda joint: (
                torch.special.entr(joint).sum() / math.log(2)
            ),
            "weigh each logarithm with its probability": lambda joint: (
                torch.where(joint > 0, joint / (joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)), 1.0).log2()
            ).sum(),
        },
    ),
    "magnitudes of a mel": Step(
        better_magnitudes,
        lambda g: [
            (some(g, 9, 4).abs(), some(g, 3, 4).abs(), with_a_gap(some(g, 3, 9).abs())),
            (some(g, 5, 1).abs(), some(g, 2, 1).abs(), some(g, 2, 5).abs()),
        ],
        {
            "the wanted stands above, the present below": lambda x, mel, bank: (
                x * (bank.T @ (bank @ x)) / (bank.T @ mel).clamp_min(1e-20)
            ),
            "each bin is multiplied by the ratio; this is the ratio alone": lambda x, mel, bank: (
                (bank.T @ mel) / (bank.T @ (bank @ x)).clamp_min(1e-20)
            ),
            "below stands the mel of the present magnitudes, brought back to the bins: B^T (B |X|)": (
                lambda x, mel, bank: x * (bank.T @ mel)
            ),
            "bring both back to the bins by B^T, then divide": lambda x, mel, bank: x * (bank.T @ (mel / (bank @ x))),
        },
    ),
    "step of a flow": Step(
        flow_step,
        lambda g: [(some(g, 2, 3), some(g, 2, 3), 0.2, 0.5), (some(g, 2, 3), some(g, 2, 3), 0.6, 1.0)],
        {
            "from t on, a length of 1 - t is left; a step of then - t is the share (then - t) / (1 - t) of it": (
                lambda x, end, t, then: x + (then - t) * (end - x)
            ),
            "the last step has to arrive: at then = 1 the result is `end`": lambda x, end, t, then: x + t * (end - x),
            "this jumps to the end at once; go a part of the way": lambda x, end, t, then: end,
        },
    ),
    "straight through": Step(
        straight_through,
        lambda g: [rounding(g, 2, 3), rounding(g, 5)],
        {
            "the value is right, but no gradient reaches x": lambda x, rounded: rounded.detach(),
            "the value is right, but its gradient goes to `rounded` instead of x": lambda x, rounded: rounded,
            "the value is right, but `rounded` gets a gradient as well; detach it": lambda x, rounded: (
                rounded + (x - x.detach())
            ),
            "this is x as it was; the value has to be that of `rounded`": lambda x, rounded: x,
        },
        with_gradients,
    ),
    "causal padding": Step(
        causal_padding,
        lambda g: [(some(g, 2, 3, 10), 7, 2, 1), (some(g, 1, 2, 10), 6, 1, 4)],
        {
            "the zeros stand behind the signal, and the output looks ahead; put them before it": (
                lambda x, kernel, dilation, stride: F.pad(
                    x, (-x.shape[-1] % stride, (kernel - 1) * dilation + 1 - stride)
                )
            ),
            "half of the zeros stand behind the signal: that looks ahead; put them all before it": (
                lambda x, kernel, dilation, stride: F.pad(
                    causal_padding(x, kernel, dilation, stride)[..., (cut := (kernel * dilation - dilation) // 2) :],
                    (0, cut),
                )
            ),
            "with a stride, stride - 1 zeros fewer stand before the signal": lambda x, kernel, dilation, stride: F.pad(
                x, ((kernel - 1) * dilation, -x.shape[-1] % stride)
            ),
            "a dilation spreads the taps: (kernel - 1) * dilation zeros": lambda x, kernel, dilation, stride: (
                causal_padding(x, kernel, 1, stride)
            ),
            "the last stride is cut short; zeros behind the signal fill it up": lambda x, kernel, dilation, stride: (
                F.pad(x, ((kernel - 1) * dilation + 1 - stride, 0))
            ),
        },
    ),
    "critic's loss": Step(
        critic_loss,
        lambda g: [(some(g, 4, 1, 6), some(g, 4, 1, 6)), (some(g, 3), some(g, 7))],
        {
            "the other way round: the critic should say 1 to real and 0 to made": lambda real, made: critic_loss(
                made, real
            ),
            "this is the generator's loss, which asks for a 1 for what is made": lambda real, made: (
                (1 - made).square().mean()
            ),
            "what is made has to cost something too, or the critic says 1 to everything": lambda real, made: (
                (1 - real).square().mean()
            ),
            "take the mean of the squares, not their sum": lambda real, made: (
                (1 - real).square().sum() + made.square().sum()
            ),
            "least squares: square the distances": lambda real, made: (1 - real).abs().mean() + made.abs().mean(),
        },
    ),
    "DDIM step": Step(
        ddim_step,
        lambda g: [(some(g, 2, 3), some(g, 2, 3), 0.3, 0.6, 0.0), (some(g, 2, 3), some(g, 2, 3), 0.1, 0.4, 0.5)],
        {
            "`now` and `then` are alpha-bar; the factors are their roots": lambda z_t, z0, now, then, sigma: (
                then * z0 + (1 - then - sigma**2) * (z_t - now * z0) / (1 - now)
            ),
            "this mixes for `now` again; the result has the noise of `then`": lambda z_t, z0, now, then, sigma: (
                ddim_step(z_t, z0, now, now, sigma)
            ),
            "sigma squared of the noise is drawn anew later; leave room for it": lambda z_t, z0, now, then, sigma: (
                ddim_step(z_t, z0, now, then)
            ),
            "the noise in z_t is (z_t - root(now) z0) / root(1 - now); divide": lambda z_t, z0, now, then, sigma: (
                math.sqrt(then) * z0 + math.sqrt(1 - then - sigma**2) * (z_t - math.sqrt(now) * z0)
            ),
        },
    ),
    "rotary": Step(
        turn,
        lambda g: [(some(g, 2, 5), some(g, 2, 5), some(g, 2, 5)), (some(g, 4), some(g, 4), 3 * some(g, 4))],
        {
            "this turns the other way round; the minus stands before b sin": lambda a, b, angle: turn(a, b, -angle),
            "the second part needs the old a, not the new one": lambda a, b, angle: (
                (new := turn(a, b, angle)[0]),
                new * angle.sin() + b * angle.cos(),
            ),
            "each part of a product of complex numbers mixes both of a and b": lambda a, b, angle: (
                a * angle.cos(),
                b * angle.sin(),
            ),
            "the angle is in radians already": lambda a, b, angle: turn(a, b, angle.deg2rad()),
        },
    ),
}

STEPS |= LATE


def plain(x: Any) -> Tensor:
    """Numbers, lists and tuples of them, arrays and tensors -> a tensor."""
    if isinstance(x, Tensor):
        return x.detach().cpu()
    if isinstance(x, np.ndarray):
        return torch.from_numpy(x)
    if isinstance(x, (list, tuple)):
        return torch.stack([plain(part) for part in x]) if len(x) else torch.empty(0)
    return torch.as_tensor(x)


def observed(step: Step, cases: list[tuple], answers: list) -> list[Tensor]:
    """What is compared of the answers to all cases, in a row."""
    return [plain(part) for answer, case in zip(answers, cases) for part in step.seen(answer, *case)]


def agree(mine: Iterable[Tensor], theirs: Iterable[Tensor]) -> bool:
    for a, b in zip(mine, theirs):
        if a.shape != b.shape:
            return False
        kind = torch.complex128 if a.is_complex() or b.is_complex() else torch.float64
        apart = (a.to(kind) - b.to(kind)).abs().max() if b.numel() else torch.tensor(0.0)
        if not apart <= CLOSE * max(1.0, b.abs().max().item()):  # also where it is not a number
            return False
    return True


def todo(name: str, mine: Callable) -> Callable:
    """Try a reader's function and say what is wrong with it -> the function to go on with."""
    if name not in STEPS:
        raise WavelldmError(f"there is no step called '{name}'; choose of {', '.join(STEPS)}")
    step, g = STEPS[name], torch.Generator().manual_seed(0)
    cases = step.arguments(g)
    theirs = observed(step, cases, [step.right(*case) for case in cases])
    try:
        answers = [mine(*case) for case in cases]
    except Exception as error:  # whatever a reader's code may raise
        print(f"✗ {name}: it stops with {type(error).__name__}: {error}")
        return step.right
    if all(answer is None for answer in answers):
        print(f"… {name}: your turn; until then the notebook goes on with the finished one")
        return step.right
    try:
        answers = observed(step, cases, answers)
    except (TypeError, ValueError, RuntimeError):
        print(f"✗ {name}: it returns {type(answers[0]).__name__}; return numbers, a list of them, or a tensor")
        return step.right
    if agree(answers, theirs):
        print(f"✓ {name}: right; the notebook goes on with yours")
        return mine
    print(f"✗ {name}: {_hint(step, cases, answers, theirs)}")
    return step.right


def _hint(step: Step, cases: list[tuple], answers: list[Tensor], theirs: list[Tensor]) -> str:
    for hint, slip in step.slips.items():
        if agree(answers, observed(step, cases, [slip(*case) for case in cases])):
            return hint
    for a, b in zip(answers, theirs):
        if a.shape != b.shape:
            return f"the result has the shape {tuple(a.shape)}, and should have {tuple(b.shape)}"
        if not torch.isfinite(torch.view_as_real(a) if a.is_complex() else a).all():
            return "there are NaN or infinite values in the result"
    size = [
        (a.abs().double().norm() / b.abs().double().norm().clamp_min(1e-12)).item() for a, b in zip(answers, theirs)
    ]
    if max(size) - min(size) < 1e-3 and abs(size[0] - 1) > 1e-3:
        return f"the result is {size[0]:.3g} times as large as it should be"
    return "the result has the right shape and other values"
