"""Mask networks as graphs that an exporter can see: real numbers for complex ones, states as inputs and outputs.

    wav, states -> frames -> spectrum (a matrix product) -> network -> spectrum -> frames -> overlap-add -> wav, states

`Stream` takes the next samples of a sound that arrives, `Recording` the next seconds of one that is on disk, and
`Whole` a recording at once. All take samples and give samples of one channel, with the weights of a `MaskNet`.

Nothing here is new to `denoise/mask.py` and `denoise/chain.py`, and the results are equal. But a small graph is fast
where its nodes are few: constants are merged, and a complex product is `real * z + imag * turned(z)` of both parts at
once. Channels lie first as convolutions want them; of a single frame, last as the recurrence wants them.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..denoise.mask import PAST, Block, MaskNet
from ..errors import WavelldmError

Run = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]


def bases(window: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """The Fourier transform of a windowed frame as a matrix (n_fft, 2 * bins), and its windowed inverse (2 * bins,
    n_fft): cosines first, then sines. `window` (n_fft,), `numbers`: 0 to n_fft - 1. A graph computes them as it is
    loaded, which takes no room in the file."""
    n_fft = len(window)
    k = numbers[: n_fft // 2 + 1]
    angle = torch.remainder(numbers[:, None] * k, n_fft) * (2 * math.pi / n_fft)
    both = torch.cat([angle.cos(), -angle.sin()], dim=1)  # (n_fft, 2 * bins)
    ends = (k == 0).float() + (k == n_fft // 2).float()
    weight = ((2 - ends) / n_fft).repeat(2)  # all other bins stand for two, the second conjugate
    return window[:, None] * both, (weight * both).T * window


def turned(spec: Tensor) -> Tensor:
    """A spectrum (2, ...), real and imaginary part, times the imaginary unit."""
    return torch.cat([-spec[1:], spec[:1]])


class FrequencyMix(nn.Module):
    """The first half of a mask network's block, x (T, C, F) -> the same."""

    def __init__(self, block: Block):
        super().__init__()
        self.near = nn.Conv1d(*block.near.weight.shape[:1] * 2, 5, padding=2, groups=len(block.near.weight))
        self.near.weight.data, self.near.bias.data = block.near.weight.data[:, :, 0], block.near.bias.data
        self.register_buffer("far", (block.far.weight.detach() + torch.eye(len(block.far.weight))).T.contiguous())
        self.register_buffer("far_bias", block.far.bias.detach())
        self.register_buffer("mix", block.mix.weight.detach())
        self.register_buffer("mix_bias", block.mix.bias.detach()[:, None])
        self.norm = across(block.norm)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.near(x) @ self.far + self.far_bias)
        return x + self.norm(self.mix @ y + self.mix_bias)


class FrameMix(nn.Module):
    """The same of a single frame, x (F, C) -> the same. Both mixtures of bands are one product: what the convolution's
    k-th tap takes from the k-th neighbour, `far` takes from there."""

    def __init__(self, block: Block):
        super().__init__()
        bands = len(block.far.weight)
        self.register_buffer("taps", block.near.weight.detach()[:, 0, 0].T.contiguous()[:, None])  # (5, 1, C)
        self.register_buffer("near_bias", block.near.bias.detach())
        self.register_buffer("itself", torch.eye(bands))
        self.far, self.mix, self.norm = block.far, block.mix, block.norm

    def matrices(self) -> tuple[Tensor, Tensor]:
        """(F, 5 * F), and what is added (F, C). A graph computes them as it is loaded."""
        far, bands = self.far.weight + self.itself, len(self.itself)
        padded = F.pad(far, (2, 2))
        both = torch.cat([padded[:, 4 - k : 4 - k + bands] for k in range(5)], dim=1)
        return both, far.sum(1, keepdim=True) * self.near_bias + self.far.bias[:, None]

    def forward(self, x: Tensor) -> Tensor:
        both, bias = self.matrices()
        y = F.silu(both @ (x * self.taps).flatten(0, 1) + bias)
        return x + self.norm(y @ self.mix.weight.T + self.mix.bias)


def across(norm: nn.LayerNorm) -> nn.LayerNorm:
    """A norm over (bands, channels) as one over (channels, bands)."""
    turned_over = nn.LayerNorm(norm.normalized_shape[::-1], norm.eps)
    turned_over.weight.data = norm.weight.data.T.contiguous()
    turned_over.bias.data = norm.bias.data.T.contiguous()
    return turned_over


@torch.library.custom_op("wavelldm::gru", mutates_args=())
def gru(x: Tensor, state: Tensor, weight: Tensor, recurrence: Tensor, bias: Tensor) -> Tensor:
    """x (T, F, C), state (1, F, C) -> (T, F, C): one direction of a GRU, with weights in the order of ONNX (update,
    reset, new). An exporter takes PyTorch's own only with a fixed number of frames."""
    size, net = state.shape[-1], nn.GRU(x.shape[-1], state.shape[-1])
    order = torch.arange(3 * size).view(3, size)[[1, 0, 2]].flatten()
    net.weight_ih_l0.data, net.weight_hh_l0.data = weight[0, order], recurrence[0, order]
    net.bias_ih_l0.data, net.bias_hh_l0.data = (part[order] for part in bias[0].chunk(2))
    return net(x, state)[0].detach()


@gru.register_fake
def _(x: Tensor, state: Tensor, weight: Tensor, recurrence: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], x.shape[1], state.shape[-1])


class Recurrence(nn.Module):
    """One direction of a GRU."""

    def __init__(self, net: nn.GRU, ending: str):
        super().__init__()
        order = torch.arange(3 * net.hidden_size).view(3, -1)[[1, 0, 2]].flatten()
        parts = [
            getattr(net, name + ending).detach()[order] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        ]
        self.register_buffer("weight", parts[0][None])  # (1, 3 * C, C)
        self.register_buffer("recurrence", parts[1][None])
        self.register_buffer("bias", torch.cat(parts[2:])[None])  # (1, 6 * C)

    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        return gru(x, state, self.weight, self.recurrence, self.bias)


class Graph(nn.Module):
    """What all graphs of a mask network share. T frames that are answered, two of them over each other."""

    axes = {}  # of those inputs that may have any length, the axis

    def __init__(self, net: MaskNet, single: bool = False):
        """`single`: one frame at a time, with fewer nodes."""
        super().__init__()
        c, self.single = net.config, single
        self.config = c
        if c.latent_dim or c.n_fft != 2 * c.hop:
            raise WavelldmError(
                "only a mask network without a guide, whose frames lie half over each other, can be exported"
            )
        self.register_buffer("window", net.window)
        self.register_buffer("numbers", torch.arange(c.n_fft, dtype=torch.float32))
        self.register_buffer("square", net.window.cpu().square().view(2, c.hop))  # of the window, in halves
        self.register_buffer("bins", net.back)  # (bands, bins), zeros and ones
        sees, w = PAST + 1 + c.ahead, c.width
        order = torch.arange(3 * sees).view(sees, 3).T.flatten()  # parts first, then frames
        self.first = nn.Conv2d(3 * sees, w // 2, (1, 5), (1, 2), (0, 2))
        self.first.weight.data, self.first.bias.data = net.first.weight.data[:, order], net.first.bias.data
        self.second, self.up = net.second, net.up
        turn = (lambda norm: norm) if single else across
        self.norm = turn(net.norm)
        self.mixes = nn.ModuleList((FrameMix if single else FrequencyMix)(block) for block in net.blocks)
        self.there = nn.ModuleList(Recurrence(block.gru, "_l0") for block in net.blocks)
        self.back = nn.ModuleList(Recurrence(block.gru, "_l0_reverse") for block in net.blocks if c.both_ways)
        self.outs = nn.ModuleList(block.out for block in net.blocks)
        self.norms = nn.ModuleList(turn(block.norm_time) for block in net.blocks)
        # rows: three of the mask; real, then imaginary parts of the filter in the order of time, 0 for the frame itself
        taps, ahead = c.taps, c.ahead
        real = [3 + taps - 1 - i for i in range(taps)] + [-1] + [3 + 2 * taps + i for i in range(ahead)]
        imag = [3 + 2 * taps - 1 - i for i in range(taps)] + [-1] + [3 + 2 * taps + ahead + i for i in range(ahead)]
        rows = torch.tensor([0, 1, 2, *real, *imag])
        there = (rows >= 0).float()
        self.last = nn.ConvTranspose2d(w, len(rows), (1, 4), (1, 2), (0, 1))
        self.last.weight.data = net.last.weight.data[:, rows] * there[:, None, None]
        self.last.bias.data = net.last.bias.data[rows] * there
        if c.full:
            self.register_buffer("reach", net.reach.detach())

    def bases(self) -> tuple[Tensor, Tensor]:
        """The transform of a frame and its inverse, as matrices."""
        return bases(self.window, self.numbers)

    def spectrum(self, wav: Tensor) -> Tensor:
        """wav (1, (T + 1) * hop) -> (2, T, bins): real and imaginary part."""
        halves = wav.reshape(-1, self.config.hop)  # (T + 1, hop)
        frames = torch.cat([halves[:-1], halves[1:]], dim=1)  # (T, n_fft)
        return (frames @ self.bases()[0]).unflatten(1, (2, -1)).transpose(0, 1)

    def features(self, spec: Tensor) -> Tensor:
        """spec (2, T, bins) -> (3, T, bands): what MaskNet.features gives."""
        size = spec.square().sum(0, keepdim=True).sqrt()  # (1, T, bins)
        return (torch.cat([size, spec]) * size.clamp_min(1e-4) ** (self.config.power - 1)) @ (
            self.bins / self.bins.sum(1, keepdim=True)
        ).T

    def windows(self, x: Tensor, sees: int) -> Tensor:
        """Rows of frames x (R, sees - 1 + T, K) -> what each of the T frames sees of them (R, sees, T, K)."""
        if self.single:
            return x[:, :, None]
        count = x.shape[1] - sees + 1
        return torch.stack([x[:, i : i + count] for i in range(sees)], dim=1)

    def estimate(self, features: Tensor, recurrent: Tensor, run: Run) -> tuple[Tensor, Tensor]:
        """As MaskNet.estimate: features (3, PAST + T + ahead, bands), states (blocks, F, C) -> rows (R, T, bands),
        states. `run(i, x, state)` runs the recurrence of block i."""
        x = self.windows(features, PAST + 1 + self.config.ahead)  # (3, sees, T, bands)
        x = x.flatten(0, 1).transpose(0, 1)[:, :, None]  # (T, 3 * sees, 1, bands)
        one = F.silu(self.first(x))  # (T, w / 2, 1, bands / 2)
        x = two = self.norm(self.second(one)[:, :, 0])  # (T, w, bands / 4)
        after = []
        states = recurrent.split(1)
        for i, (mix, out, norm, state) in enumerate(zip(self.mixes, self.outs, self.norms, states)):
            x = mix(x)
            y, state = run(i, x.transpose(1, 2), state)  # (T, F, C)
            after.append(state)
            x = x + norm(out(y).transpose(1, 2))
        x = F.silu(self.up(torch.cat([x, two], dim=1)[:, :, None]))
        x = self.last(torch.cat([x, one], dim=1))  # (T, R, 1, bands)
        return x[:, :, 0].transpose(0, 1), torch.cat(after)

    def filtered(self, rows: Tensor, seen: Tensor, strength: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mask and filter on the frames `seen` (2, taps + T + ahead, bins) -> cleaned (2, T, bins), and the mean gain
        of the highest quarter of the band (T,). As MaskNet.filtered, and what chain.strengthened does."""
        c, half = self.config, self.config.taps + 1 + self.config.ahead
        if c.full:
            mask, weights = rows[:3] @ self.bins, (rows[3:] * self.reach) @ self.bins  # (R, T, bins)
        else:
            mask, weights = rows[:3] @ self.bins, rows[3:, :, : c.low]
        size = torch.sigmoid(mask[:1])  # (1, T, bins)
        real, imag = size * (1 + mask[1:2]), size * mask[2:]
        rotated = turned(seen)
        now = slice(c.taps, c.taps + 1) if self.single else slice(c.taps, seen.shape[1] - c.ahead)
        alone = real * seen[:, now] + imag * rotated[:, now]  # (2, T, bins)
        bins = weights.shape[-1]
        near, far = (self.windows(z[..., :bins], half) for z in (seen, rotated))  # (2, half, T, bins)
        others = size[..., :bins] * (weights[:half] * near + weights[half:] * far).sum(1)
        if bins < real.shape[-1]:
            others = F.pad(others, (0, real.shape[-1] - bins))
        gain = (real.square() + imag.square()).sqrt()
        if strength is None:
            return alone + others, gain[0, :, -c.n_fft // 8 :].mean(1).clamp(max=1)
        less = strength.clamp(max=1.0)
        angle = (imag / (gain + real).clamp_min(1e-12)).atan()  # half of it
        factor, turn = gain.clamp_min(1e-4) ** (strength - 1), (2 * less - 2) * angle
        kept = alone + less * others
        cleaned = (factor * turn.cos()) * kept + (factor * turn.sin()) * turned(kept)
        top = (gain * factor)[0, :, -c.n_fft // 8 :].mean(1).clamp(max=1)
        return cleaned, top

    def frames(self, spec: Tensor) -> Tensor:
        """spec (2, T, bins) -> windowed frames in halves (T, 2, hop)."""
        return (spec.transpose(0, 1).flatten(1) @ self.bases()[1]).reshape(-1, 2, self.config.hop)


class Stream(Graph):
    """The next `chunk` frames of a sound that arrives, for a network that hears time one way.

    `past` of the first call: `side` zeros, and the first samples, up to a hop. Frames come out `ahead` late. In as many
    first calls `inside` is 0, and so it is for frames that begin behind the end of the sound.
    """

    inputs = ("sound", "inside", "strength", "past", "spec", "features", "recurrent", "tail")
    outputs = ("cleaned", "top", "past_out", "spec_out", "features_out", "recurrent_out", "tail_out")

    def __init__(self, net: MaskNet, chunk: int = 1):
        super().__init__(net, single=chunk == 1)
        if net.config.both_ways or net.config.ahead != 1:
            raise WavelldmError(
                "this network hears far ahead, so it cannot answer while somebody speaks; choose base16k"
            )
        self.chunk = chunk

    def silence(self) -> tuple[Tensor, ...]:
        """The inputs of a first call."""
        c = self.config
        return (
            torch.zeros(1, self.chunk * c.hop),
            torch.ones(self.chunk),
            torch.ones(1),
            torch.zeros(1, c.hop),
            torch.zeros(2, c.taps + c.ahead, c.n_fft // 2 + 1),
            torch.zeros(3, PAST + c.ahead, c.bands),
            torch.zeros(c.blocks, c.bands // 4, c.width),
            torch.zeros(2, c.hop),
        )

    def forward(
        self,
        sound: Tensor,
        inside: Tensor,
        strength: Tensor,
        past: Tensor,
        spec: Tensor,
        features: Tensor,
        recurrent: Tensor,
        tail: Tensor,
    ) -> tuple[Tensor, ...]:
        new = self.spectrum(torch.cat([past, sound], dim=1))
        seen = torch.cat([spec, new], dim=1)  # (2, taps + ahead + T, bins)
        known = torch.cat([features, self.features(new)], dim=1)  # (3, PAST + ahead + T, bands)
        first = inside[:1]

        def run(i: int, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            one = self.there[i](x[:1], state)  # a frame before the first leaves no trace
            others = self.there[i](x[1:], one * first)
            return torch.cat([one, others]), others[-1:]

        if self.single:
            rows, after = self.estimate_one(known, recurrent)
            after = after * first
        else:
            rows, after = self.estimate(known, recurrent, run)
        cleaned, top = self.filtered(rows, seen, strength)
        if self.single:
            both = torch.cat([self.frames(cleaned), self.square[None]]) * inside  # (2, 2, hop): sound and window
            total, late = both[:, 0] + tail, both[:, 1]  # (2, hop)
        else:
            weight = inside[:, None, None]
            both = torch.stack([self.frames(cleaned) * weight, self.square * weight])  # (2, T, 2, hop)
            total = both[:, :, 0].flatten(1) + torch.cat([tail[:, None], both[:, :-1, 1]], dim=1).flatten(1)
            late = both[:, -1, 1]
        wav = total[:1] / total[1:].clamp_min(1e-3)  # (1, T * hop)
        count, hop = self.chunk, self.config.hop
        return wav, top, sound[:, -hop:], seen[:, count:], known[:, count:], after, late

    def estimate_one(self, features: Tensor, recurrent: Tensor) -> tuple[Tensor, Tensor]:
        """As `estimate`, of a single frame: features (3, sees, bands) -> rows (R, 1, bands), states."""
        one = F.silu(self.first(features.reshape(1, -1, 1, self.config.bands)))  # (1, w / 2, 1, bands / 2)
        x = two = self.norm(self.second(one).flatten(0, 2).T)  # (F, C): bands / 4 by w
        after = []
        for mix, there, out, norm, state in zip(self.mixes, self.there, self.outs, self.norms, recurrent.split(1)):
            x = mix(x)
            y = there(x[None], state).flatten(0, 1)  # (F, C)
            after.append(y)
            x = x + norm(y @ out.weight.T + out.bias)
        x = torch.cat([x, two], dim=1).T[None, :, None]  # (1, 2 * w, 1, bands / 4)
        x = torch.cat([F.silu(self.up(x)), one], dim=1)
        return self.last(x).reshape(-1, 1, self.config.bands), torch.cat(after).unflatten(0, (len(after), -1))


class Recording(Graph):
    """The next seconds of a recording, for a network that hears time both ways.

    `sound` begins `taps` frames before the first that is answered and ends `ahead` frames after the last. The first
    frame of a recording begins `side` samples before it; what lies before is anything, and `begun` is 0. Of T frames
    `keep` count; those after them are heard on the way back alone.
    """

    axes = {"sound": 1}
    inputs = ("sound", "begun", "keep", "strength", "recurrent", "tail")
    outputs = ("cleaned", "top", "recurrent_out", "tail_out")

    def silence(self, count: int = 8) -> tuple[Tensor, ...]:
        c = self.config
        return (
            torch.zeros(1, (c.taps + count + c.ahead + 1) * c.hop),
            torch.zeros(1),
            torch.tensor([count]),
            torch.ones(1),
            torch.zeros(c.blocks, c.bands // 4, c.width),
            torch.zeros(2, c.hop),
        )

    def forward(
        self, sound: Tensor, begun: Tensor, keep: Tensor, strength: Tensor | None, recurrent: Tensor, tail: Tensor
    ) -> tuple[Tensor, ...]:
        c, last = self.config, keep - 1
        seen = self.spectrum(sound)  # (2, taps + T + ahead, bins)
        seen = torch.cat([seen[:, : c.taps] * begun, seen[:, c.taps :]], dim=1)
        known = self.features(seen[:, c.taps - PAST :])

        def run(i: int, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
            y = self.there[i](x, state)
            after = y.index_select(0, last)
            if c.both_ways:
                backwards = self.back[i](x.flip(0), torch.zeros_like(state))  # begins anew
                y = torch.cat([y, backwards.flip(0)], dim=-1)
            return y, after

        rows, after = self.estimate(known, recurrent, run)
        cleaned, top = self.filtered(rows, seen, strength)
        frames = self.frames(cleaned)  # (T, 2, hop)
        late = torch.cat([tail[:1], frames[:, 1]])  # (T + 1, hop)
        envelope = self.square.sum(0) + 0 * frames[:, 0]
        first = torch.cat([tail[1:] + self.square[:1], envelope[1:]])  # (T, hop)
        wav = (frames[:, 0] + late[:-1]) / first.clamp_min(1e-3)
        return wav.reshape(1, -1), top, after, torch.cat([frames.index_select(0, last)[:, 1], self.square[1:]])


class Whole(Recording):
    """A recording at once: wav (1, N) -> (1, N)."""

    inputs, outputs, axes = ("wav",), ("cleaned",), {"wav": 1}

    def silence(self, count: int = 8) -> tuple[Tensor, ...]:
        return (torch.zeros(1, count * self.config.hop + 10),)

    def forward(self, wav: Tensor) -> tuple[Tensor, ...]:
        c, size = self.config, wav.shape[1]
        side, count = (c.n_fft - c.hop) // 2, (size + c.hop - 1) // c.hop
        before = c.taps * c.hop + side
        sound = F.pad(wav, (before, (c.taps + count + c.ahead + 1) * c.hop - before - size))
        _, begun, _, _, states, tail = super().silence()
        cleaned, _, _, tail = super().forward(sound, begun, torch.tensor([count]), None, states, tail)
        whole = torch.cat([cleaned, tail[:1] / tail[1:].clamp_min(1e-3)], dim=1)
        return (whole[:, side : side + size],)
