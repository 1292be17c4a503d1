"""Restoration: what is lost of a recording is found and put back, and the rest stays as it is.

Read `gaps` (lost stretches without any network: shares, straight lines, Griffin-Lim between known samples), `latent`
(48 numbers and a pitch for every 16 ms), `filler` (the network that expects or draws them), `clip` (clipped peaks) and
`bend` (peaks that a soft overload bent), both without a network, `find` (what is damaged) and `restorer` (recordings of
any length). What needs no PyTorch of it lies in `light`, and is called from here. What one calls is the command
`wavelldm restore`, or a denoiser with `Settings(restore=True)`.
"""
