"""The codec: recordings to codes and back.

Read `model` first (the whole codec and its config), then `fsq` (the quantiser), `decoders` and `pulse` (three
decoders), `losses` and `search`; `container` is the .wll file, `compress` files of any length."""

from .compress import compress_file, decompress_file
from .model import Codec, CodecConfig

__all__ = ["Codec", "CodecConfig", "compress_file", "decompress_file"]
