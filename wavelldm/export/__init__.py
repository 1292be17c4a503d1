"""Networks for other programs: phones, browsers, and machines without PyTorch.

`graphs` holds the mask networks as an exporter can see them, `codec` the codec, `latents` the latent diffusion and what
fills gaps; `write` makes ONNX files of them, and checks these; `pte` makes ExecuTorch files of denoisers.
"""
