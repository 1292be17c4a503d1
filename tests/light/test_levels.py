import numpy as np
import pytest
import torch
from signals import speechlike

from wavelldm.audio import levels as tensors
from wavelldm.light import levels


@pytest.mark.parametrize("n", [1, 159, 16_000, 40_001])
def test_the_level_is_that_which_tensors_have(n):
    wav = speechlike(3.0)[:n].astype(np.float32)
    theirs = float(tensors.active_power(torch.from_numpy(wav), 16_000))
    assert levels.active_power(wav, 16_000) == pytest.approx(theirs, rel=1e-4)


def test_silence_has_no_level():
    assert levels.active_power(np.zeros(1_000, np.float32), 16_000) == 0
