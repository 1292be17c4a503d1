"""torchaudio for comparisons: the installed one if it loads, else its pure-Python part.

Its wheels hold a compiled extension linked to CUDA, so beside a CPU build of torch `import torchaudio` ends in an
OSError, although the transforms compared here are plain Python. In that case this puts a stand-in where torchaudio
looks for the extension, one that says what torchaudio says when built without it: nothing compiled is available.
"""

import sys
import types

__all__ = ["torchaudio"]


class _NoExtension(types.ModuleType):
    def __getattr__(self, name: str):
        if name.startswith("_IS_"):  # _IS_TORCHAUDIO_EXT_AVAILABLE and its kin in other versions
            return False
        if name.startswith("fail_if_no"):  # decorators of functions that need the extension
            return lambda function: function
        raise AttributeError(name)


try:
    import torchaudio
except OSError:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchaudio"]:
        del sys.modules[name]  # what the failed import left behind
    sys.modules["torchaudio._extension"] = _NoExtension("torchaudio._extension")
    import torchaudio
