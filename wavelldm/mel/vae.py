"""The mel VAE: log-mel (B, M, F) -> latent (B, D, F / 4, M / 4) and back. AudioLDM2's, if built as large, with its
weights.

Latent diffusion's autoencoder (arXiv 2112.10752, appendix G.1) on a picture of one channel: diffusers' AutoencoderKL,
name for name (`our_key`), with equal outputs. Further, if the config asks for it: attention at a finer resolution,
shortcuts around each change of resolution (DC-AE, arXiv 2410.10733, section 3.2), and words as side information for
the decoder.
"""

import re
import zlib
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio.mel import MELS, LogMel, MelConfig
from ..errors import WavelldmError
from .published import fetch


@dataclass(frozen=True)
class VAEConfig:
    """The mel VAE; with widths 128, 256, 512, depth 2 and 32 groups it is AudioLDM2's (vae.py)."""

    mel: MelConfig = MELS["audioldm2"]
    widths: tuple = (
        16,
        32,
        48,
    )  # channels at each resolution, each half as fine as the one before in time and frequency
    depth: int = 1  # residual blocks at each resolution
    latent: int = 8  # channels of the latent
    groups: int = 8  # of the group norms
    attention: bool = False  # at the second coarsest resolution too, not only at the coarsest; slow on long clips
    shortcut: bool = False  # each change of resolution passes the numbers themselves on, beside its convolution
    words: int = 0  # entries of the table that words of side information are looked up in; 0: none
    shift: float = -5.0  # the network sees (mel - shift) / scale
    scale: float = 3.0
    kl: float = 1e-4  # weights of the losses: KL,
    stft: float = 0.0  # multi-resolution STFT,
    features: float = 0.0  # what the codec's encoder hears


LOGVAR = (-30.0, 20.0)


class Block(nn.Module):
    """x + two convolutions, each after group norm and SiLU; a 1 x 1 convolution where the width changes."""

    def __init__(self, a: int, b: int, groups: int):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, a, 1e-6), nn.Conv2d(a, b, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(groups, b, 1e-6), nn.Conv2d(b, b, 3, padding=1)
        self.skip = nn.Conv2d(a, b, 1) if a != b else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        return y + (x if self.skip is None else self.skip(x))


class Attention(nn.Module):
    """x + attention of every place to every other, one head."""

    def __init__(self, width: int, groups: int):
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, 1e-6)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x).flatten(2).transpose(1, 2)  # (B, places, C)
        y = self.out(F.scaled_dot_product_attention(self.q(y), self.k(y), self.v(y)))
        return x + y.transpose(1, 2).unflatten(2, x.shape[2:])


class Down(nn.Module):
    """Half as fine: a strided convolution, one row and column of zeros beyond the end.

    `shortcut`: plus means of 2 x 2 places.
    """

    def __init__(self, width: int, shortcut: bool):
        super().__init__()
        self.conv, self.shortcut = nn.Conv2d(width, width, 3, 2), shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(F.pad(x, (0, 1, 0, 1)))
        return y + F.avg_pool2d(x, 2) if self.shortcut else y


class Up(nn.Module):
    """Twice as fine: every number four times, then a convolution.

    `shortcut`: plus four channels woven into one, as 2 x 2 places.
    """

    def __init__(self, width: int, shortcut: bool):
        super().__init__()
        self.conv, self.shortcut = nn.Conv2d(width, width, 3, padding=1), shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(F.interpolate(x, scale_factor=2.0))
        return y + F.pixel_shuffle(x, 2).repeat_interleave(4, dim=1) if self.shortcut else y


def _middle(width: int, groups: int) -> nn.ModuleList:
    return nn.ModuleList([Block(width, width, groups), Attention(width, groups), Block(width, width, groups)])


class Encoder(nn.Module):
    """(B, 1, F, M) -> mean and logarithm of the variance, before their last mixing: (B, 2 D, F / 4, M / 4)."""

    def __init__(self, c: VAEConfig):
        super().__init__()
        w, last = c.widths, len(c.widths) - 1
        self.first = nn.Conv2d(1, w[0], 3, padding=1)
        self.levels = nn.ModuleList()
        for i, width in enumerate(w):
            blocks = [Block(w[max(0, i - 1)] if j == 0 else width, width, c.groups) for j in range(c.depth)]
            here = {"blocks": nn.ModuleList(blocks)}
            if c.attention and i == last - 1:
                here["attention"] = Attention(width, c.groups)
            if i < last:
                here["change"] = Down(width, c.shortcut)
            self.levels.append(nn.ModuleDict(here))
        self.middle = _middle(w[-1], c.groups)
        self.norm, self.last = nn.GroupNorm(c.groups, w[-1], 1e-6), nn.Conv2d(w[-1], 2 * c.latent, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = _through(self.levels, self.first(x))
        for layer in self.middle:
            x = layer(x)
        return self.last(F.silu(self.norm(x)))


class Decoder(nn.Module):
    """(B, D, F / 4, M / 4) -> (B, 1, F, M); `words_vector` (B, C) is added to every place before the first block."""

    def __init__(self, c: VAEConfig):
        super().__init__()
        w, last = c.widths[::-1], len(c.widths) - 1
        self.first = nn.Conv2d(c.latent, w[0], 3, padding=1)
        self.middle = _middle(w[0], c.groups)
        self.levels = nn.ModuleList()
        for i, width in enumerate(w):
            blocks = [Block(w[max(0, i - 1)] if j == 0 else width, width, c.groups) for j in range(c.depth + 1)]
            here = {"blocks": nn.ModuleList(blocks)}
            if c.attention and i == 1:
                here["attention"] = Attention(width, c.groups)
            if i < last:
                here["change"] = Up(width, c.shortcut)
            self.levels.append(nn.ModuleDict(here))
        self.norm, self.last = nn.GroupNorm(c.groups, w[-1], 1e-6), nn.Conv2d(w[-1], 1, 3, padding=1)

    def forward(self, z: Tensor, words_vector: Tensor | None = None) -> Tensor:
        x = self.first(z)
        if words_vector is not None:
            x = x + words_vector[:, :, None, None]
        for layer in self.middle:
            x = layer(x)
        return self.last(F.silu(self.norm(_through(self.levels, x))))


def _through(levels: nn.ModuleList, x: Tensor) -> Tensor:
    for level in levels:
        for block in level["blocks"]:
            x = block(x)
        for name in ("attention", "change"):
            if name in level:
                x = level[name](x)
    return x


def kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL divergence from N(mean, exp(logvar)) to N(0, 1) in nats (arXiv 1312.6114, appendix B), mean over the
    latent's numbers."""
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()


def reparameterise(mean: Tensor, logvar: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """mean + deviation * eps: a draw through which gradients flow (arXiv 1312.6114, section 2.4)."""
    eps = torch.randn(mean.shape, generator=generator).to(mean)
    return mean + (0.5 * logvar).exp() * eps


def words_of(item: Any) -> str:
    """What is known about a file (data.corpora.Item), as words without digits: those of its folder and its label.

    "libri-103" becomes "libri", "f3" becomes "f".
    """
    return " ".join(re.findall(r"[a-z]+", f"{item.path.parent.name} {item.label}".lower()))


def words_to_entries(texts: list[str], entries: int) -> tuple[Tensor, Tensor]:
    """Texts -> which rows of the table their words stand for, in one row, and where each text begins in it (see
    nn.EmbeddingBag).

    A word's row is its CRC: no vocabulary to keep, any word goes. An empty text says nothing, and adds nothing."""
    found = [[zlib.crc32(word.encode()) % entries for word in re.findall(r"[\w-]+", text.lower())] for text in texts]
    starts = [sum(map(len, found[:i])) for i in range(len(found))]
    return torch.tensor(sum(found, []), dtype=torch.long), torch.tensor(starts)


class MelVAE(nn.Module):
    """Encoder, decoder, the Gaussian between them; mels of any length come back as long as they were."""

    Config = VAEConfig

    def __init__(self, config: VAEConfig):
        super().__init__()
        c = self.config = config
        self.mel, self.shrink = LogMel(c.mel), 2 ** (len(c.widths) - 1)
        if c.mel.n_mels % self.shrink or any(width % c.groups for width in c.widths):
            raise WavelldmError(
                f"{c.mel.n_mels} bands must be a multiple of {self.shrink}, and widths {c.widths} of {c.groups} "
                "groups; change mel.n_mels, widths or groups"
            )
        self.encoder, self.decoder = Encoder(c), Decoder(c)
        self.mix = nn.Conv2d(2 * c.latent, 2 * c.latent, 1)
        self.unmix = nn.Conv2d(c.latent, c.latent, 1)
        self.words = nn.EmbeddingBag(c.words, c.widths[-1], mode="mean") if c.words else None
        if c.words:
            nn.init.zeros_(self.words.weight)

    @property
    def floats_per_second(self) -> float:
        """Numbers of the latent for a second of sound."""
        m = self.config.mel
        return self.config.latent * (m.n_mels // self.shrink) * m.frame_rate / self.shrink

    def encode(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """(B, M, F) -> mean and log-variance, each (B, D, ceil(F / 4), M / 4); the last frame fills what is missing."""
        c = self.config
        x = ((log_mel - c.shift) / c.scale).transpose(1, 2)[:, None]  # (B, 1, F, M)
        x = F.pad(x, (0, 0, 0, -x.shape[2] % self.shrink), mode="replicate")
        mean, logvar = self.mix(self.encoder(x)).chunk(2, dim=1)
        return mean, logvar.clamp(*LOGVAR)

    def decode(self, z: Tensor, frames: int | None = None, texts: list[str] | None = None) -> Tensor:
        """Latent (B, D, T, M / 4) -> log-mel (B, M, frames).

        `texts`: what is known about each item beside its latent.
        """
        words_vector = None
        if texts is not None:
            if self.words is None:
                raise WavelldmError("this VAE takes no side information; train one with words=1024")
            entries, starts = words_to_entries(texts, self.config.words)
            words_vector = self.words(entries.to(z.device), starts.to(z.device))
        x = self.decoder(self.unmix(z), words_vector)[:, 0].transpose(1, 2)
        return x[..., :frames] * self.config.scale + self.config.shift

    def forward(self, log_mel: Tensor, texts: list[str] | None = None) -> Tensor:
        """What comes back through the latent's mean: (B, M, F) -> (B, M, F)."""
        return self.decode(self.encode(log_mel)[0], log_mel.shape[-1], texts)


RENAMED = (  # of diffusers' names, in turn
    (r"quant_conv", "mix"),
    (r"post_mix", "unmix"),
    (r"(down|up)_blocks\.(\d+)\.resnets\.", r"levels.\2.blocks."),
    (r"(down|up)_blocks\.(\d+)\.(down|up)samplers\.0\.", r"levels.\2.change."),
    (r"mid_block\.resnets\.0", "middle.0"),
    (r"mid_block\.attentions\.0", "middle.1"),
    (r"mid_block\.resnets\.1", "middle.2"),
    (r"group_norm|conv_norm_out", "norm"),
    (r"conv_shortcut", "skip"),
    (r"conv_in", "first"),
    (r"conv_out", "last"),
    (r"to_([qkv])\.", r"\1."),
    (r"to_out\.0", "out"),
)


def our_key(theirs: str) -> str:
    """Name of a parameter of diffusers' AutoencoderKL -> ours."""
    for pattern, name in RENAMED:
        theirs = re.sub(pattern, name, theirs)
    return theirs


def from_diffusers(config: Any, weights: dict[str, Tensor]) -> MelVAE:
    """An AutoencoderKL's config and state_dict -> ours, equal in every output.

    Mels go in as they are, as AudioLDM2 does it.
    """
    ours = VAEConfig(
        MELS["audioldm2"], tuple(config.block_out_channels), config.layers_per_block, config.latent_channels,
        config.norm_num_groups, shift=0.0, scale=1.0,
    )  # fmt: skip
    if config.in_channels != 1 or config.out_channels != 1:
        raise WavelldmError(
            f"this VAE takes pictures of {config.in_channels} channels; a mel has one: choose an AudioLDM"
        )
    model = MelVAE(ours)
    model.load_state_dict({our_key(name): value for name, value in weights.items()})
    return model.eval()


def load_published(name: str) -> MelVAE:
    """A published VAE, by the name of its pipeline on the hub (cvssp/audioldm2) or as a folder."""
    theirs = fetch("diffusers", "AutoencoderKL", name, "vae")
    return from_diffusers(theirs.config, theirs.state_dict())
