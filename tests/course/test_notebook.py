import contextlib
import re

import numpy as np
import pytest
import torch

from wavelldm.course import notebook
from wavelldm.errors import WavelldmError


def test_check_tells_exact_from_close_from_different(capsys):
    x = torch.arange(4.0)
    notebook.check("a", x, x.clone())
    notebook.check("b", x, x + 1e-5)
    notebook.check("c", x, x + 0.5)
    notebook.check("d", x, x[:3])
    notebook.check("e", x, x * float("nan"))
    lines = capsys.readouterr().out.splitlines()
    assert [line[0] for line in lines] == list("✓✓✗✗✗")
    assert "exact" in lines[0] and "close" in lines[1] and "0.5" in lines[2]


def test_check_sees_a_difference_in_the_imaginary_part(capsys):
    z = torch.tensor([1 + 1j])
    notebook.check("phase", z, z.conj())
    assert capsys.readouterr().out.startswith("✗")


def test_an_exercise_waits_for_its_answer(capsys):
    notebook.exercise("a", None, 1.0)
    notebook.exercise("b", 1.0, 1.0)
    notebook.exercise("c", 2.0, 1.0)
    assert [line[0] for line in capsys.readouterr().out.splitlines()] == list("…✓✗")


def test_pick_follows_the_profile(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WAVELLDM_PROFILE", "quick")
    session = notebook.start("99_test")
    assert session.pick(quick=1, cpu=2) == 1 and session.pick(cpu=2, gpu=3) == 2
    with pytest.raises(WavelldmError, match="cpu at least"):
        session.pick(quick=1)
    monkeypatch.setenv("WAVELLDM_PROFILE", "fast")
    with pytest.raises(WavelldmError, match="quick, cpu, gpu"):
        notebook.start("99_test")


def test_start_makes_runs_repeatable(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    draws = [(notebook.start("99_test", seed=s), torch.rand(3))[1] for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_the_end_says_how_long_it_took_and_how_much_of_that_was_computing(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    session = notebook.start("99_test")
    session.began -= 300
    session.done()
    assert re.search(
        r"99_test: 5\.0 minutes in profile '\w+' on \w+, \d+\.\d of them computing", capsys.readouterr().out
    )


def test_a_player_plays_what_it_was_given():
    """The whole sound, not a sample changed beyond 16 bits, and labelled as what it is."""
    pytest.importorskip("IPython")
    shown = []
    import IPython.display as d

    wav = 0.1 * torch.randn(1, 16_000 * 9, generator=torch.Generator().manual_seed(0))
    real, d.display = d.display, shown.append
    try:
        notebook.hear(wav, 16_000, "noise")
        notebook.hear(wav, 16_000, seconds=2)
    finally:
        d.display = real
    import io

    import soundfile as sf

    played, sr = sf.read(io.BytesIO(shown[1].data), dtype="float32")
    assert sr == 16_000 and played.shape == (16_000 * 9,)
    assert (torch.from_numpy(played) - wav[0]).abs().max() < 1 / 32_768
    assert "data:audio/flac;base64," in shown[1]._repr_html_()
    assert len(sf.read(io.BytesIO(shown[2].data))[0]) == 32_000


def test_sixteen_bit_samples_are_played_at_their_level(monkeypatch):
    import soundfile

    played = []
    monkeypatch.setattr(soundfile, "write", lambda file, wav, sr, **more: played.append(wav))
    for wav in (torch.tensor([0.5, -0.25]), torch.tensor([16_384, -8_192], dtype=torch.int16)):
        with contextlib.suppress(ValueError):  # there is nothing to play
            notebook.player(wav, 16_000)
    assert (played[0] == played[1]).all() and played[0].tolist() == [0.5, -0.25]


@pytest.mark.parametrize(
    "answer",
    [[1.0, 2.0], (1.0, 2.0), np.array([1.0, 2.0]), torch.tensor([1.0, 2.0]), [torch.tensor(1.0), np.float64(2.0)]],
    ids=("list", "tuple", "array", "tensor", "mixed"),
)
def test_an_answer_may_be_a_list_a_tuple_an_array_or_a_tensor(answer, capsys):
    notebook.exercise("a", answer, [1.0, 2.0])
    notebook.exercise("b", answer, torch.tensor([1.0, 2.5]))
    notebook.exercise("c", [answer, answer], torch.tensor([[1.0, 2.0]] * 2))
    assert [line[0] for line in capsys.readouterr().out.splitlines()] == list("✓✗✓")
