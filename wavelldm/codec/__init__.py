"""The codec: recordings to codes and back.

Read `model` first (the whole codec and its config), then `fsq` (the quantiser), `decoders` and `pulse` (three
decoders), `losses`, `search` and `look` (better codes); `container` is the .wll file, `compress` files of any
length, `talk` a codec that streams (the packets stand in `light.packets`)."""

from .compress import compress_file, decompress_file
from .model import Codec, CodecConfig

__all__ = ["Codec", "CodecConfig", "compress_file", "decompress_file"]
