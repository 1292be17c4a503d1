import numpy as np
import pytest
import torch

from wavelldm.audio import blocks
from wavelldm.light.resample import Resampler


@pytest.mark.parametrize("rates", [(48_000, 16_000), (16_000, 44_100), (8_000, 16_000), (44_101, 16_000), (9, 9)])
def test_arrays_and_tensors_give_the_same_however_they_are_cut(rates):
    rates = tuple(max(r, 16_000) if r < 4_000 else r for r in rates)
    rng = np.random.default_rng(0)
    wav = rng.standard_normal((2, 5_000)).astype(np.float32)
    theirs = blocks.Resampler(*rates, 2)
    whole = torch.cat([theirs.push(torch.from_numpy(wav)), theirs.finish()], dim=1).numpy()
    mine = Resampler(*rates, 2)
    cuts = np.sort(rng.integers(0, 5_000, 6))
    parts = [mine.push(block) for block in np.split(wav, cuts, axis=1)]
    out = np.concatenate([*parts, mine.finish()], axis=1)
    assert out.shape == whole.shape == (2, -(-5_000 * rates[1] // rates[0]))
    assert np.abs(out - whole).max() < 2e-6
    assert [part.shape[1] for part in parts] == np.diff(mine.ready(np.array([0, *cuts, 5_000]))).tolist()
