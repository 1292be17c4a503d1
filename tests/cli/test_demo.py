import json
import os
import re
from pathlib import Path

import pytest
import torch

from wavelldm.audio import files
from wavelldm.cli import demo
from wavelldm.metrics import scores

SR = 16_000


def test_the_demo_writes_sounds_a_picture_and_figures(cli, tmp_path, noise):
    code, out, _ = cli("demo", "-o", tmp_path / "demo", "--json")
    facts = json.loads(out)
    assert code == 0
    assert set(os.listdir(tmp_path / "demo")) == {"clean.wav", "noisy.wav", "denoised.wav", "before_after.png"}
    clean, noisy, denoised = (
        files.load(tmp_path / "demo" / f"{name}.wav")[0] for name in ("clean", "noisy", "denoised")
    )
    lost = demo.drop(torch.ones_like(clean), SR) == 0
    before, after = (scores.si_sdr(clean[~lost], wav[~lost], SR) for wav in (noisy, denoised))
    assert after > before + 3  # where something is left, the noise is taken away
    wanted, found = (wav[lost].square().mean().log10() for wav in (clean, denoised))
    # where nothing is left, something of a voice's loudness is put
    assert not noisy[lost].any() and found > wanted - 1.5
    assert facts["scores"]["denoised"]["si_sdr"] > facts["scores"]["noisy"]["si_sdr"]
    assert facts["scores"]["denoised"]["pesq_wb"] > facts["scores"]["noisy"]["pesq_wb"]
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    for who, row in facts["scores"].items():
        shown = re.search(rf"^{who} +([\d. ]+)$", readme, re.M)[1].split()
        assert [float(x) for x in shown] == pytest.approx(list(row.values()), abs=0.03), "the README shows another demo"
    files.save(tmp_path / "mine.wav", noise(3.0, 22_050, 2), 22_050)
    code, out, _ = cli("demo", "--input", tmp_path / "mine.wav", "-o", tmp_path / "demo2")
    assert code == 0 and "dnsmos" in out and "pesq" not in out
