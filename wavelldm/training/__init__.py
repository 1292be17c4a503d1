"""How every network is trained. Read first `loop` (the task, the plan, `fit`), then one network's file: `codec`,
`looks`, `diffusion`, `mask`, `prior`, `segan`, `waveform`, `speech_latent` and `filler` for what restores, or `ladder`
for the four of the ladder. Text to sound is `text_recipe` (one YAML file), which trains `contrastive`, `sound_latent`
and `text2audio` on `captioned` sounds.

`options` and `presets` are the numbers that one can change, `recipes` those that made the weights that ship; `parallel`
lets several processes train together; `mixtures` and `latents` are what is trained on; `net2net` enlarges a network.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .loop import Task

NETWORKS = {  # a network's name -> the module here that trains it, its task, what it is
    "codec": ("codec", "CodecTask", "the neural codec"),
    "diffusion": ("diffusion", "DiffusionTask", "the latent diffusion over a codec's latents"),
    "looks": ("looks", "LooksTask", "the looks with which the codec's encoder corrects its codes"),
    "mask": ("mask", "MaskTask", "the mask network, alone or guided by a diffusion"),
    "latent": ("speech_latent", "SpeechLatentTask", "the latent for generating, which gaps are filled in"),
    "filler": ("filler", "FillerTask", "the network that fills gaps, in one step or in several"),
    "prior": ("prior", "PriorTask", "the diffusion prior of clean speech, for refining"),
    "segan": ("segan", "SeganTask", "SEGAN, a denoiser that learns from a critic"),
    "waveform": ("waveform", "WaveTask", "the denoiser on the waveform that knows its noise level"),
    "vocoder": ("ladder", "VocoderTask", "the vocoder: mel to sound"),
    "vae": ("ladder", "VAETask", "the variational autoencoder of mels"),
    "refinement": ("ladder", "RefinementTask", "the network that repairs a VAE's mels"),
    "autoencoder": ("ladder", "AutoencoderTask", "the autoencoder that keeps phase"),
}


def task_of(network: str) -> "type[Task]":
    """The task that trains a network; its module, and torch, are imported only now."""
    module, task, _ = NETWORKS[network]
    return getattr(import_module(f".{module}", __name__), task)
