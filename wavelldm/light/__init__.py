"""What needs no PyTorch: sound files and other rates as arrays, cleaning and restoring with onnxruntime alone.

Read `files`, `resample` and `blocks` (overlapping windows) first: all other packages stand on them. `levels` measures
how loud speech is; `run` opens the graphs that `export` writes, `denoiser` cleans recordings and streams with them,
`live` what a microphone hears; `shards` reads and writes tar files of samples, `tables` Parquet files of them;
`packets` holds codes for talking, and `talk` runs the codec that makes them.

Restoring: `find` says what is damaged, lost stretches by `holes`; `gaps` puts lost stretches back together from their
magnitudes, told by `pitch` and with the same `noise` everywhere; `clip` brings back clipped peaks, `bend` peaks that a
soft overload bent; `restorer` does it all in recordings of any length.
"""
