"""Programs by others that repair speech; each is a function (1, N) -> (1, N), or is named as missing.

Not here: speexdsp has no concealment of its own (that is in the Speex codec), and no package has WebRTC's NetEq.
"""

import ctypes
import ctypes.util
import importlib.util
import shutil
import subprocess
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from wavelldm.audio.files import fit
from wavelldm.audio.stft import istft, stft

BLOCK, CONTEXT = 160, 6  # of tPLCNet: 10 ms, of which it sees six


def tplcnet(path: str) -> Callable[[Tensor, Tensor], Tensor]:
    """tPLCNet (Westhausen and Meyer 2022), published as a tflite file, at 16 kHz -> function (damaged, gaps).

    Blocks overlap by half under a Hann window. Where one of the two newest blocks is lost the network draws both of
    them, from these two, three older ones as they came, and its own last output.
    """
    from ai_edge_litert.interpreter import Interpreter

    network = Interpreter(model_path=str(path), num_threads=1)
    network.allocate_tensors()
    into, out_of = network.get_input_details()[0]["index"], network.get_output_details()[0]["index"]
    window = np.hanning(2 * BLOCK + 1)[:-1].astype(np.float32)

    def run(damaged: Tensor, gaps: Tensor) -> Tensor:
        length = damaged.shape[-1]
        whole = -(-length // BLOCK)
        x = np.zeros((whole + 2, BLOCK), np.float32)  # an empty block at either end
        x[1:-1].reshape(-1)[:length] = damaged[0].numpy()
        lost = np.zeros(whole * BLOCK, bool)
        lost[:length] = gaps[0].numpy()
        lost = np.pad(lost.reshape(whole, BLOCK).any(1), 1)
        x[lost] = 0.0
        seen = np.zeros((1, CONTEXT, BLOCK), np.float32)
        done, tail = np.zeros((whole + 1, BLOCK), np.float32), np.zeros(BLOCK, np.float32)
        for k in range(whole + 1):
            seen = np.roll(seen, -1, 1)
            seen[0, -3] = done[k - 1] if k else 0.0
            seen[0, -2:] = x[k : k + 2]
            if lost[k] or lost[k + 1]:
                network.set_tensor(into, seen)
                network.invoke()
                both = network.get_tensor(out_of).reshape(-1)  # (2 * BLOCK,), under its window already
            else:
                both = x[k : k + 2].reshape(-1) * window
            done[k], tail = tail + both[:BLOCK], both[BLOCK:]
        return torch.from_numpy(done[1:].reshape(-1)[:length].copy())[None]

    return run


def libopus() -> str | None:
    """The library, in the package opuscodec or on the system."""
    found = importlib.util.find_spec("opuscodec")
    return found.origin if found else ctypes.util.find_library("opus")


def opus(sr: int, kbits: int = 64) -> Callable[[Tensor, Tensor], Tensor]:
    """The concealment of Opus's decoder (RFC 6716, section 4.4; SILK at `kbits`) -> function (clean, gaps).

    Whole packets of 20 ms are encoded, and those that touch a gap do not reach the decoder. The delay of the codec is
    filled up to a whole packet, so that packets which are lost on that grid stay what they are.
    """
    lib, floats = ctypes.CDLL(libopus()), ctypes.POINTER(ctypes.c_float)
    for name in ("encoder", "decoder"):
        getattr(lib, f"opus_{name}_create").restype = ctypes.c_void_p
        getattr(lib, f"opus_{name}_destroy").argtypes = [ctypes.c_void_p]
    size, voip, bitrate, mode, lookahead, silk = sr // 50, 2048, 4002, 11002, 4027, 1000

    def run(clean: Tensor, gaps: Tensor) -> Tensor:
        encoder = ctypes.c_void_p(lib.opus_encoder_create(sr, 1, voip, None))
        decoder = ctypes.c_void_p(lib.opus_decoder_create(sr, 1, None))
        late = ctypes.c_int()
        asked = ((bitrate, ctypes.c_int(1000 * kbits)), (mode, ctypes.c_int(silk)), (lookahead, ctypes.byref(late)))
        if any(lib.opus_encoder_ctl(encoder, what, value) for what, value in asked):
            raise RuntimeError("libopus refuses a setting")
        length, more = clean.shape[-1], -late.value % size  # samples that go in before the sound
        x = np.zeros((-(-(length + late.value + more) // size), size), np.float32)
        x.reshape(-1)[more : more + length] = clean[0].numpy()
        lost = np.zeros(x.size, bool)
        lost[more + late.value :][:length] = gaps[0].numpy()
        packet, y = ctypes.create_string_buffer(4000), np.zeros_like(x)
        for row, out, gone in zip(x, y, lost.reshape(x.shape).any(1)):
            count = lib.opus_encode_float(encoder, row.ctypes.data_as(floats), size, packet, len(packet))
            sent = (None, 0) if gone else (packet, count)
            if count < 0 or lib.opus_decode_float(decoder, *sent, out.ctypes.data_as(floats), size, 0) != size:
                raise RuntimeError("libopus failed")
        lib.opus_encoder_destroy(encoder)
        lib.opus_decoder_destroy(decoder)
        return torch.from_numpy(y.reshape(-1)[more + late.value :][:length].copy())[None]

    return run


def ffmpeg() -> str | None:
    """The program, from the system or from the package imageio-ffmpeg."""
    if importlib.util.find_spec("imageio_ffmpeg"):
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    return shutil.which("ffmpeg")


def adeclip(sr: int) -> Callable[[Tensor], Tensor]:
    """ffmpeg's `adeclip`: autoregression in short windows (Janssen et al. 1986). It looks for the ceiling itself."""
    raw = ["-f", "f32le", "-ar", str(sr), "-ac", "1"]
    command = [ffmpeg(), "-v", "error", "-threads", "1", *raw, "-i", "-", "-af", "adeclip", *raw, "-"]

    def run(damaged: Tensor) -> Tensor:
        done = subprocess.run(command, input=damaged.numpy().astype(np.float32).tobytes(), capture_output=True)
        if done.returncode:
            raise RuntimeError(f"ffmpeg failed: {done.stderr.decode()}")
        return fit(torch.from_numpy(np.frombuffer(done.stdout, np.float32).copy())[None], damaged.shape[-1])

    return run


def weighted_prediction(damaged: Tensor) -> Tensor:
    """nara-wpe: late echoes predicted from what came before, and subtracted (Nakatani et al. 2010)."""
    from nara_wpe.wpe import wpe

    spectrum = stft(damaged, 512, 128, 512, "center").numpy()  # (1, bins, F)
    dry = wpe(spectrum.transpose(1, 0, 2).astype(np.complex128), taps=10, delay=3, iterations=3)
    dry = torch.from_numpy(dry.transpose(1, 0, 2).astype(np.complex64))
    return istft(dry, 512, 128, 512, "center", damaged.shape[-1])
