"""Text to sound: `bpe` (bytes to tokens), `encoder` (a transformer in GPT-2's layout), `htsat` (the audio encoder),
`contrastive` (the two in one space; tagging), `latent` (the VAE whose latents are generated), `conditioned` (the
diffusion that text steers), `text2audio` (a sentence in, a sound out).
"""

from .contrastive import TextAudioPair, tag

__all__ = ["TextAudioPair", "tag"]
