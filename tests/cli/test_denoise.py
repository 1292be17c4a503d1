import json
import os
import subprocess
import sys

import pytest
import torch

from wavelldm import weights
from wavelldm.audio import files
from wavelldm.denoise.mask import MaskNet
from wavelldm.training.presets import preset

SR = 16_000


def test_denoise_keeps_what_it_was_given_and_never_overwrites(cli, tmp_path, noise):
    files.save(tmp_path / "a.flac", noise(0.7, 44_100, 2), 44_100)
    code, out, err = cli("denoise", tmp_path / "a.flac")
    assert code == 0 and "a.denoised.flac" in out and "model studio16k" in out and not err
    assert files.info(tmp_path / "a.denoised.flac") == files.info(tmp_path / "a.flac")
    before = (tmp_path / "a.denoised.flac").read_bytes()
    code, out, err = cli("denoise", tmp_path / "a.flac")
    assert code == 1 and "--force" in err and "Traceback" not in err
    assert (tmp_path / "a.denoised.flac").read_bytes() == before
    assert cli("denoise", tmp_path / "a.flac", "--force")[0] == 0


def test_denoise_a_folder_as_json(cli, tmp_path, folders):
    code, out, _ = cli("denoise", folders / "noise", "-o", tmp_path / "out", "--json")
    rows = json.loads(out)
    assert code == 0 and [r["seconds"] for r in rows] == [1.0] * 3 and [r["error"] for r in rows] == [None] * 3
    assert sorted(os.listdir(tmp_path / "out")) == ["n0.wav", "n1.wav", "n2.wav"]


@pytest.mark.parametrize("json_asked", [False, True])
def test_one_damaged_file_does_not_end_a_folder(cli, tmp_path, noise, json_asked):
    for name in ("a", "c"):
        files.save(tmp_path / "in" / f"{name}.wav", noise(), SR)
    (tmp_path / "in" / "b.wav").write_text("no audio" * 50)
    (tmp_path / "in" / "d.flac").write_bytes(b"")
    code, out, err = cli("denoise", tmp_path / "in", "-o", tmp_path / "out", *["--json"] * json_asked)
    assert code == 1 and sorted(os.listdir(tmp_path / "out")) == ["a.wav", "c.wav"]
    assert "b.wav cannot be read as sound" in err and "d.flac is empty" in err
    assert "2 of 4 files were not cleaned" in err and "Traceback" not in err
    if json_asked:
        rows = json.loads(out)
        assert [bool(row["error"]) for row in rows] == [False, True, False, True]
        assert [row["seconds"] for row in rows] == [1.0, None, 1.0, None]


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_a_fault_in_one_file_does_not_end_a_folder_either(cli, tmp_path, noise, monkeypatch, backend):
    from wavelldm.denoise import denoiser
    from wavelldm.light import denoiser as light

    Denoiser = {"torch": denoiser, "onnx": light}[backend].Denoiser
    before = Denoiser.enhance_file

    def sometimes(self, source, *rest, **more):
        if source.name == "a.wav":
            raise RuntimeError("not enough memory")
        return before(self, source, *rest, **more)

    monkeypatch.setattr(Denoiser, "enhance_file", sometimes)
    for name in ("a", "b"):
        files.save(tmp_path / f"{name}.wav", noise(), SR)
    code, out, err = cli("denoise", tmp_path, "-o", tmp_path / "out", "--json", "--backend", backend)
    assert code == 3 and "not enough memory" in json.loads(out)[0]["error"] and json.loads(out)[1]["error"] is None
    assert "a.wav" in err and os.listdir(tmp_path / "out") == ["b.wav"]


def test_settings_that_fit_no_file_are_refused_once(cli, tmp_path, noise):
    for name in ("a", "b"):
        files.save(tmp_path / "in" / f"{name}.wav", noise(), SR)
    code, _, err = cli("denoise", tmp_path / "in", "-o", tmp_path / "out", "--model", "logmmse", "--strength", 2)
    assert code == 1 and len(err.splitlines()) == 1


def test_standard_error_is_silent_where_nobody_looks(tmp_path, noise):
    """Progress bars are for terminals: in a pipe, standard error holds errors alone."""
    files.save(tmp_path / "long.wav", torch.cat([noise(60.0)] * 3, dim=1), SR)
    command = [sys.executable, "-m", "wavelldm", "denoise", str(tmp_path / "long.wav"), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0 and json.loads(done.stdout)[0]["seconds"] == 180


def test_refine_takes_what_another_program_made(cli, tmp_path, folders):
    noisy = folders / "speech" / "s0.wav"
    assert cli("denoise", noisy, "-o", tmp_path / "e.wav", "--model", "logmmse")[0] == 0
    code, out, _ = cli("refine", noisy, tmp_path / "e.wav", "-o", tmp_path / "r.wav", "--steps", 2, "--json")
    assert code == 0 and json.loads(out)["output"] == str(tmp_path / "r.wav")
    assert files.info(tmp_path / "r.wav").frames == files.info(noisy).frames


def test_memory_stays_small_after_a_file_with_many_channels(tmp_path, noise):
    torch.manual_seed(0)
    model = weights.save(tmp_path / "mask", MaskNet(preset("tiny").mask))
    files.save(tmp_path / "in" / "a.wav", noise(), SR)
    files.save(tmp_path / "in" / "b.wav", noise(4.0, SR, 64), SR)
    code = (
        "import resource, sys; from wavelldm.cli import main\n"
        "argv = ['denoise', '--model', sys.argv[1], '--json', '--force', '-o', sys.argv[2]]\n"
        "peaks = []\n"
        "for name in sys.argv[3:]:\n"
        "    assert main.main([*argv, name]) == 0\n"
        "    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        "print((peaks[1] - peaks[0]) // 1024, file=sys.stderr)"
    )
    paths = [str(path) for path in (model, tmp_path / "out", tmp_path / "in" / "a.wav", tmp_path / "in" / "b.wav")]
    (tmp_path / "out").mkdir()
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=True)
    assert int(done.stderr) < 250  # MB


def test_streams_have_a_denoiser_that_answers_soon(cli, tmp_path, noise):
    files.save(tmp_path / "a.wav", noise(0.5, 16_000, 1), 16_000)
    for more, name in (
        ((), "studio16k"),
        (("--stream",), "base16k"),
        (("--stream", "--model", "studio16k"), "studio16k"),
    ):
        code, out, _ = cli("denoise", tmp_path / "a.wav", "-o", tmp_path / "b.wav", "--force", "--json", *more)
        assert code == 0 and json.loads(out)[0]["model"] == name


def test_the_backend_is_chosen_by_what_is_asked(cli, tmp_path, noise):
    files.save(tmp_path / "a.wav", noise(), SR)
    for option in (["--restore", "--steps", "2"], ["--steps", "2"], ["--sampler", "ddim"]):
        code, _, err = cli("denoise", tmp_path / "a.wav", "--backend", "onnx", *option)
        assert code == 1 and f"{option[-2]} needs PyTorch" in err
    code, _, err = cli("denoise", tmp_path / "a.wav", "--backend", "onnx", "--model", "segan")
    assert code == 1 and "without PyTorch" in err
    for i, backend in enumerate(["auto", "torch", "onnx"]):
        code, _, _ = cli("denoise", tmp_path / "a.wav", "-o", tmp_path / f"{i}.wav", "--backend", backend)
        assert code == 0
    auto, theirs, mine = (files.load(tmp_path / f"{i}.wav")[0] for i in range(3))
    assert torch.equal(auto, mine) and (mine - theirs).abs().max() < 1e-4  # in 16 bits
