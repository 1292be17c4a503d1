"""HTS-AT (Chen et al., arXiv 2202.00874): a transformer that hears a spectrogram through windows.

The log-mel is cut in time, and the pieces are laid one under the other, so that it becomes a square picture (section
2.2); patches become tokens. In each group tokens attend to those in the same window of 8 x 8, and every
second block shifts the windows (Swin, arXiv 2103.14030, eq. 3); between groups 2 x 2 tokens become one of twice the
width. The token-semantic head is a convolution over the last tokens, so each class has a curve over time (section
2.3); the mean of the last tokens is the embedding.
"""

import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio.mel import MELS, LogMel, MelConfig
from ..errors import WavelldmError

DB = 8.685889638  # decibels of a factor of e in magnitude


@dataclass(frozen=True)
class HTSATConfig:
    """The small one. `PUBLISHED` has the size of MS-CLAP 2023's and LAION-CLAP's tiny."""

    mel: MelConfig = MELS["audioldm2"]
    side: int = 128  # of the square picture: side // bands pieces of side frames each
    patch: int = 8  # frames and bands of a token
    width: int = 48  # of the first group
    depths: tuple = (2, 2)
    heads: tuple = (4, 8)
    window: int = 8
    classes: int = 17
    slower: int = 2  # frames that are averaged into one


# HTS-AT at 32 kHz (MS-CLAP 2023); LAION's has the same shape at 48 kHz and a hop of 480.
PUBLISHED = HTSATConfig(
    MelConfig(sr=32_000, hop=320, n_mels=64, fmin=50.0, fmax=14_000.0, power=2.0, floor=1e-10, padding="center"),
    side=256, patch=4, width=96, depths=(2, 2, 6, 2), heads=(4, 8, 16, 32), classes=527, slower=1,
)  # fmt: skip


def windows(x: Tensor, size: int) -> Tensor:
    """(B, H, W, C) -> the windows' tokens (B windows, size size, C)."""
    x = x.unflatten(2, (-1, size)).unflatten(1, (-1, size))  # (B, H / s, s, W / s, s, C)
    return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)


def back(x: Tensor, size: int, height: int, width: int) -> Tensor:
    """The inverse of `windows`: (B windows, size size, C) -> (B, H, W, C)."""
    x = x.unflatten(1, (size, size)).unflatten(0, (-1, height // size, width // size))
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def differences(size: int) -> Tensor:
    """For every two places of a window, the row of the bias table that belongs to their distance: (s s, s s)."""
    place = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")).flatten(1)
    apart = place[:, :, None] - place[:, None] + size - 1  # (2, s s, s s)
    return apart[0] * (2 * size - 1) + apart[1]


class WindowAttention(nn.Module):
    """Attention within a window, with a learnt bias for each distance between two tokens."""

    def __init__(self, width: int, heads: int, size: int):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * size - 1) ** 2, heads))
        self.register_buffer("relative_position_index", differences(size), persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (windows, heads, s s, d)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)  # (heads, s s, s s)
        if mask is not None:  # (windows of one picture, s s, s s)
            bias = (bias + mask[:, None]).repeat(len(x) // len(mask), 1, 1, 1)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))
        return self.proj(y.transpose(1, 2).flatten(-2))


class Mlp(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SwinBlock(nn.Module):
    """Attention in windows, which are shifted by `shift` tokens, then an MLP."""

    def __init__(self, width: int, heads: int, side: int, window: int, shift: int):
        super().__init__()
        self.side, self.window = side, min(side, window)
        self.shift = shift if side > window else 0
        self.norm1, self.attn = nn.LayerNorm(width), WindowAttention(width, heads, self.window)
        self.norm2, self.mlp = nn.LayerNorm(width), Mlp(width)
        self.register_buffer("attn_mask", self.strangers() if self.shift else None, persistent=False)

    def strangers(self) -> Tensor:
        """-100 where two tokens meet in a shifted window only because the picture was rolled around its edge."""
        edges = (slice(0, -self.window), slice(-self.window, -self.shift), slice(-self.shift, None))
        region = torch.zeros(1, self.side, self.side, 1)
        for i, rows in enumerate(edges):
            for j, columns in enumerate(edges):
                region[:, rows, columns] = 3 * i + j
        region = windows(region, self.window)[..., 0]  # (windows, s s)
        return torch.where(region[:, :, None] == region[:, None], 0.0, -100.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x).unflatten(1, (self.side, self.side))  # (B, H, W, C)
        if self.shift:
            y = y.roll((-self.shift, -self.shift), (1, 2))
        y = back(self.attn(windows(y, self.window), self.attn_mask), self.window, self.side, self.side)
        if self.shift:
            y = y.roll((self.shift, self.shift), (1, 2))
        x = x + y.flatten(1, 2)
        return x + self.mlp(self.norm2(x))


class Merge(nn.Module):
    """2 x 2 tokens become one of twice the width."""

    def __init__(self, width: int, side: int):
        super().__init__()
        self.side, self.norm = side, nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(1, (self.side, self.side))
        x = torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)  # (B, H / 2, W / 2, 4 C)
        return self.reduction(self.norm(x.flatten(1, 2)))


class Group(nn.Module):
    def __init__(self, c: HTSATConfig, i: int, side: int):
        super().__init__()
        width = c.width * 2**i
        self.blocks = nn.ModuleList(
            SwinBlock(width, c.heads[i], side, c.window, (k % 2) * (c.window // 2)) for k in range(c.depths[i])
        )
        self.downsample = Merge(width, side) if i < len(c.depths) - 1 else None

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class Patches(nn.Module):
    def __init__(self, width: int, patch: int):
        super().__init__()
        self.proj, self.norm = nn.Conv2d(1, width, patch, patch), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).flatten(2).transpose(1, 2))  # (B, tokens, C)


class HTSAT(nn.Module):
    """Log-mel (B, M, F) -> embedding (B, C) and curves of the classes (B, classes, times)."""

    Config = HTSATConfig

    def __init__(self, config: HTSATConfig):
        super().__init__()
        c = self.config = config
        self.pieces = c.side // c.mel.n_mels
        sides = [c.side // c.patch // 2**i for i in range(len(c.depths))]
        if c.side % c.mel.n_mels or any(s % min(s, c.window) for s in sides) or len(c.heads) != len(c.depths):
            raise WavelldmError(
                f"a picture of {c.side} must be a multiple of {c.mel.n_mels} bands, and its {sides} tokens of windows "
                f"of {c.window}; change side, window or depths"
            )
        self.frames = c.side * self.pieces  # that it sees at once, after averaging
        self.mel = LogMel(c.mel)
        self.bn0 = nn.BatchNorm2d(c.mel.n_mels)
        self.patch_embed = Patches(c.width, c.patch)
        self.layers = nn.ModuleList(Group(c, i, side) for i, side in enumerate(sides))
        self.width, self.last = c.width * 2 ** (len(c.depths) - 1), sides[-1]
        self.norm = nn.LayerNorm(self.width)
        rows = self.last // self.pieces  # of tokens that one piece has left
        self.tscam_conv = nn.Conv2d(self.width, c.classes, (rows, 3), padding=(0, 1))
        self.rows = rows

    @property
    def seconds(self) -> float:
        """How much sound it sees at once."""
        return self.frames * self.config.slower / self.config.mel.frame_rate

    def square(self, log_mel: Tensor) -> Tensor:
        """(B, M, frames) in decibels -> the picture (B, 1, side, side): piece under piece, bands from top to bottom."""
        x = self.bn0((DB / self.config.mel.power * log_mel)[..., None])[..., 0]  # every band normalised
        return x.unflatten(2, (self.pieces, -1)).transpose(1, 2).flatten(1, 2)[:, None]

    def look(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """What it sees at once, (B, M, frames) -> embedding (B, C), logits (B, classes, times)."""
        x = self.patch_embed(self.square(log_mel))
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)  # (B, last last, C)
        embedding = x.mean(1)
        x = x.transpose(1, 2).unflatten(2, (self.pieces, self.rows, self.last))  # (B, C, pieces, rows, times)
        x = x.transpose(2, 3).flatten(3)  # (B, C, rows, pieces times): the pieces one after the other again
        return embedding, self.tscam_conv(x)[:, :, 0]

    def forward(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Sounds of any length: silence is added to short ones, and over long ones several looks are averaged."""
        x = log_mel
        if self.config.slower > 1:
            x = F.avg_pool1d(F.pad(x, (0, -x.shape[-1] % self.config.slower), mode="replicate"), self.config.slower)
        silence = float(torch.tensor(self.config.mel.floor).log())
        x = F.pad(x, (0, -x.shape[-1] % self.frames), value=silence)
        looks = [self.look(part) for part in x.split(self.frames, -1)]
        return torch.stack([e for e, _ in looks]).mean(0), torch.cat([curve for _, curve in looks], -1)


# --- published checkpoints ------------------------------------------------------------------------------------------

PREFIX = re.compile(r"^(module\.|audio_branch\.|audio_encoder\.base\.htsat\.|htsat\.|sed_model\.|model\.)+")
LEFT_OUT = re.compile(r"spectrogram_extractor|logmel_extractor|relative_position_index|attn_mask|^head\.|text_branch")


def our_key(theirs: str) -> str | None:
    """A name in a checkpoint of HTS-AT, MS-CLAP 2023 or LAION-CLAP -> ours, or None for what we compute ourselves."""
    name = PREFIX.sub("", theirs)
    return None if LEFT_OUT.search(name) else name


def from_published(tensors: dict[str, Tensor], config: HTSATConfig = PUBLISHED) -> HTSAT:
    """The audio encoder out of a checkpoint's tensors. What belongs to text and projections is left alone."""
    model = HTSAT(config)
    wanted, found = model.state_dict(), {}
    for theirs, value in tensors.items():
        name = our_key(theirs)
        if name in wanted:
            found[name] = value
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise WavelldmError(f"this checkpoint has no '{missing[0]}', which an HTS-AT has; give one of HTS-AT or CLAP")
    wrong = next((name for name in wanted if wanted[name].shape != found[name].shape), None)
    if wrong:
        raise WavelldmError(
            f"'{wrong}' is {tuple(found[wrong].shape)} in this checkpoint and {tuple(wanted[wrong].shape)} here; "
            "it is of another size"
        )
    model.load_state_dict(found)
    return model.eval()
