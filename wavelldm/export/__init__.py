"""Networks for other programs: phones, browsers, and machines without PyTorch.

`graphs` holds the mask networks as an exporter can see them, `codec` the codec, `talk` one that streams, `latents` the
latent diffusion and what fills gaps; `write` makes ONNX files of them, and checks these; `beside` leaves the weights of
those that ship in their own files; `pte` makes ExecuTorch files of denoisers.
"""
