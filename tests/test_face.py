"""The public face of the module: there, and imported only when it is asked for."""

import subprocess
import sys

import pytest

import wavelldm
from wavelldm.denoise import denoiser

FAST = """
import sys, time
began = time.perf_counter()
import wavelldm
took = time.perf_counter() - began
heavy = [name for name in ("torch", "numpy", "scipy", "soundfile") if name in sys.modules]
assert not heavy, heavy
print(took)
"""


def test_importing_it_imports_nothing_heavy():
    runs = [subprocess.run([sys.executable, "-c", FAST], capture_output=True, text=True, check=True) for _ in range(3)]
    assert min(float(run.stdout) for run in runs) < 0.05


@pytest.mark.parametrize("name", wavelldm.__all__)
def test_every_name_is_there(name):
    found = getattr(wavelldm, name)
    assert callable(found) and found.__doc__ and name in dir(wavelldm)


def test_the_names_are_those_of_the_packages():
    assert wavelldm.load is denoiser.load and wavelldm.Settings is denoiser.Settings
    assert wavelldm.load_codec().name == "voice16k"
    with pytest.raises(AttributeError, match="no attribute 'magic'"):
        wavelldm.magic  # noqa: B018
    with pytest.raises(wavelldm.WavelldmError, match="no device"):
        wavelldm.load_codec(device="magic")
