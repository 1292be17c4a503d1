"""Numbers of the reconstruction ladder's networks: vocoder, mel VAE, refinement, and the autoencoder that keeps phase."""

from dataclasses import dataclass


@dataclass(frozen=True)
class VocoderConfig:
    """The small vocoder: what a mel leaves open between its bands, and the phases, by Griffin-Lim (vocoder.py)."""

    width: int = 160  # channels
    depth: int = 4  # ConvNeXt blocks
    expansion: int = 2
    rounds: int = 32  # of Griffin-Lim


@dataclass(frozen=True)
class VAEConfig:
    """The mel VAE; with widths 128, 256, 512, depth 2 and 32 groups it is AudioLDM2's (vae.py)."""

    widths: tuple = (16, 32, 48)  # channels at each resolution, each half as fine as the one before in time and frequency
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


@dataclass(frozen=True)
class RefinementConfig:
    """The network that repairs the VAE's mel (refinenet.py)."""

    width: int = 128
    depth: int = 3
    expansion: int = 2


@dataclass(frozen=True)
class AutoencoderConfig:
    """The autoencoder that keeps phase: MDCT, a uniform quantiser, a learned decoder, a learned entropy (autoencoder.py)."""

    hop: int = 320  # coefficients per frame
    width: int = 128
    depth: int = 2  # ConvNeXt blocks of each of its two networks
    expansion: int = 2
    finest: float = 0.3  # step of the quantiser, as a share of the coefficients' root mean square: what it is trained on,
    coarsest: float = 3.0  # from here to there
    follow: float = 0.0  # 0: one step for the whole recording, the best SNR; 1: steps follow the level of each frame, weak ones sound better
    tilt: float = 0.0  # 0: all steps alike, the best SNR; above: finer ones where speech is weak, that is at high frequencies
