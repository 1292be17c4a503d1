"""What needs no PyTorch: sound files and other rates as arrays, and cleaning with onnxruntime alone.

Read `files` and `resample` first: all other packages stand on them. `levels` measures how loud speech is; `denoiser`
cleans recordings and streams with the graphs that `export` writes, `live` what a microphone hears. `shards` reads and
writes tar files of samples.
"""
