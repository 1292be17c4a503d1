import importlib.util

import numpy as np
import pytest
import torch

from wavelldm import weights
from wavelldm.cli.main import main
from wavelldm.denoise.mask import MaskConfig, MaskNet
from wavelldm.errors import WavelldmError
from wavelldm.export import graphs, pte

THERE = importlib.util.find_spec("executorch") is not None
needed = pytest.mark.skipif(not THERE, reason="ExecuTorch is not installed")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Weights of a small network, of one's own."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "own.safetensors"
    return str(weights.save(path, MaskNet(MaskConfig(width=8, blocks=1)), licence="CC0"))


@pytest.mark.parametrize("single", [True, False])
def test_a_recurrence_of_steps_is_a_gru(single):
    torch.manual_seed(0)
    net, state = torch.nn.GRU(5, 5), torch.randn(1, 4, 5)
    x = torch.randn(1 if single else 7, 4, 5)
    steps = pte.Steps(graphs.Recurrence(net, "_l0"), single)
    with torch.no_grad():
        assert torch.allclose(steps(x, state), net(x, state)[0], atol=1e-6)


@needed
def test_a_stream_is_written_for_executorch_checked_and_run(small, tmp_path):
    target = tmp_path / "own.pte"
    main(["export", small, "-o", str(target), "--streaming"])
    net = weights.load(small, MaskNet)
    graph = graphs.Stream(net).eval()
    with pte.silent():
        ready = pte.Runner(target, graph)
    assert (ready.facts.form, ready.facts.hash, ready.facts.licence) == ("stream", net.hash, "CC0")
    mine, theirs = ready.silence(), dict(zip(graph.inputs, graph.silence()))
    for k in range(40):
        sound = 0.1 * np.random.default_rng(k).standard_normal((1, 256)).astype(np.float32)
        now = {"inside": np.float32([k > 0]), "strength": np.float32([1.5])}
        cleaned, _ = ready(mine, sound=sound, **now)
        theirs |= {"sound": torch.from_numpy(sound)} | {name: torch.from_numpy(x) for name, x in now.items()}
        with torch.no_grad():
            found = dict(zip(graph.outputs, graph(*theirs.values())))
        theirs |= {name: found[f"{name}_out"] for name in mine}
        assert np.abs(cleaned - found["cleaned"][0].numpy()).max() < 1e-5
        for name, x in mine.items():
            assert np.abs(x - theirs[name].numpy()).max() < 1e-4, name


@needed
def test_a_file_that_differs_is_not_written(small, tmp_path, monkeypatch):
    monkeypatch.setattr(pte.Steps, "step", lambda self, state, new: state + 0.1 * new.chunk(3, -1)[0])
    with pytest.raises(WavelldmError, match="differs from the network by"):
        pte.export_pte(small, tmp_path / "own.pte", streaming=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(THERE, reason="ExecuTorch is installed")
def test_without_executorch_one_sentence_says_what_to_install(small, tmp_path):
    with pytest.raises(WavelldmError, match=r"pip install 'wavelldm\[executorch\]'"):
        pte.export_pte(small, tmp_path / "own.pte", streaming=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("others", [["voice16k", "--part", "encoder"], ["base16k", "--int8"]])
def test_only_denoisers_in_floats_become_pte_files(others, tmp_path, capsys):
    assert main(["export", *others, "-o", str(tmp_path / "own.pte")]) != 0
    assert "a .pte file holds a denoiser in floats" in capsys.readouterr().err


@pytest.mark.parametrize("others", [["base16k"], ["studio16k", "--streaming"]])
def test_graphs_without_a_fixed_length_are_refused(others, tmp_path, capsys):
    assert main(["export", *others, "-o", str(tmp_path / "own.pte")]) != 0
    assert "take base16k and add --streaming" in capsys.readouterr().err
