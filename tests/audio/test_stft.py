import math

import pytest
import torch

from wavelldm.audio.stft import ConvISTFT, ConvSTFT, hann, istft, layout, overlap_add, stft
from wavelldm.errors import AudioError, WavelldmError

PADDINGS = ("center", "same", "causal")
SHAPES = ((1024, 256, 1024), (1024, 160, 1024), (2048, 512, 2048), (512, 128, 400))  # n_fft, hop, win


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def parts(spec):
    return torch.cat([spec.real, spec.imag], dim=1)


@pytest.mark.parametrize("n_fft,hop,win", SHAPES)
def test_center_is_torch_stft(n_fft, hop, win):
    wav = noise(2, 1, 9_001)
    theirs = torch.stft(wav[:, 0], n_fft, hop, win, torch.hann_window(win), return_complex=True)
    ours = stft(wav, n_fft, hop, win, "center")
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()
    back = istft(theirs, n_fft, hop, win, "center", 9_001)
    assert torch.allclose(back, torch.istft(theirs, n_fft, hop, win, torch.hann_window(win), length=9_001), atol=1e-5)


def test_same_is_the_hifigan_convention():
    wav = noise(1, 1, 256 * 20)
    padded = torch.nn.functional.pad(wav, (384, 384), mode="reflect")[:, 0]
    theirs = torch.stft(padded, 1024, 256, 1024, torch.hann_window(1024), center=False, return_complex=True)
    ours = stft(wav, 1024, 256, 1024, "same")
    assert ours.shape == theirs.shape == (1, 513, 20)
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_a_cosine_fills_its_bin():
    wav = torch.cos(2 * math.pi * 32 * torch.arange(4096) / 512)  # bin 32 of 512
    spec = stft(wav, 512, 128, 512, "center").abs()[:, 8:-8]
    assert torch.allclose(spec[32], torch.full_like(spec[32], 128.0), rtol=1e-4)  # sum of the window / 2
    assert torch.allclose(spec[31], torch.full_like(spec[31], 64.0), rtol=1e-3)  # Hann: the neighbours get half
    assert spec[40:].max() < 1e-2


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("n", (1, 255, 256, 257, 1000, 5000, 5120))
def test_number_of_frames(padding, n):
    frames = stft(noise(2, n), 1024, 256, 1024, padding).shape[-1]
    assert frames == layout(n, 1024, 256, padding)[2] == (1 + n // 256 if padding == "center" else math.ceil(n / 256))


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("n_fft,hop,win", SHAPES)
def test_round_trip_of_random_lengths(padding, n_fft, hop, win):
    lengths = torch.randint(1, 12_000, (6,), generator=torch.Generator().manual_seed(n_fft + hop)).tolist()
    for n in lengths + [hop * 20]:
        wav = noise(2, n, seed=n)
        back = istft(stft(wav, n_fft, hop, win, padding), n_fft, hop, win, padding, length=n)
        assert back.shape == wav.shape
        # Only the last samples of a causal spectrum lie under nothing but the end of a window.
        exact = n - n_fft // 30 - (n_fft - win) // 2 if padding == "causal" else n
        error = (back - wav)[:, : max(0, exact)].abs()
        assert error.numel() == 0 or error.max() < 1e-4, f"{padding}, {n} samples"
        assert back.abs().max() <= wav.abs().max() + 1e-3, "the end of a causal spectrum must fade, not blow up"


@pytest.mark.parametrize("padding", PADDINGS)
def test_default_length_covers_every_frame(padding):
    spec = stft(noise(1, 4096), 1024, 256, 1024, padding)
    wav = istft(spec, 1024, 256, 1024, padding)
    assert wav.shape == (1, 4096)
    assert stft(wav, 1024, 256, 1024, padding).shape == spec.shape


def test_leading_axes_are_kept_and_a_channel_axis_is_dropped():
    wav = noise(3, 2, 2000)
    spec = stft(wav, 256, 64, 256)
    assert spec.shape == (3, 2, 129, 32)
    assert torch.equal(stft(wav[2, 1], 256, 64, 256), spec[2, 1])
    assert torch.equal(stft(wav[:, :1], 256, 64, 256), spec[:, 0])
    assert torch.allclose(istft(spec, 256, 64, 256, length=2000), wav, atol=1e-5)


def test_overlap_add_by_hand():
    frames = torch.tensor([[1.0, 2, 3], [10, 20, 30], [100, 200, 300]])  # hop 2 does not divide 3
    assert overlap_add(frames, 2).tolist() == [1, 2, 13, 20, 130, 200, 300]
    assert overlap_add(frames, 1).tolist() == [1, 12, 123, 230, 300]


def test_causal_frames_see_the_past_and_not_the_future():
    for t in (0, 3, 9):
        wav = noise(1, 1, 2560).requires_grad_()
        stft(wav, 1024, 256, 1024, "causal")[..., t].abs().sum().backward()
        seen = wav.grad[0, 0].abs()
        assert seen[(t + 1) * 256 :].sum() == 0, f"frame {t} sees the future"
        assert (seen[max(0, (t + 1) * 256 - 1023) : (t + 1) * 256 - 1] > 0).all(), f"frame {t} misses some of its past"


def test_the_other_paddings_do_see_the_future():
    for padding in ("center", "same"):
        wav = noise(1, 1, 2560).requires_grad_()
        stft(wav, 1024, 256, 1024, padding)[..., 3].abs().sum().backward()
        assert wav.grad[0, 0, 4 * 256 :].abs().sum() > 0


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("n_fft,hop,win", SHAPES)
def test_convolution_form_equals_the_function(padding, n_fft, hop, win):
    wav = 0.05 * noise(2, 1, 7_001)  # as loud as speech
    spec = stft(wav, n_fft, hop, win, padding)
    ours = ConvSTFT(n_fft, hop, win, padding)(wav)
    assert ours.shape == (2, n_fft + 2, spec.shape[-1])
    assert (ours - parts(spec)).abs().max() < 1e-5
    if padding == "center":
        theirs = torch.stft(wav[:, 0], n_fft, hop, win, torch.hann_window(win), return_complex=True)
        assert (ours - parts(theirs)).abs().max() < 1e-5
    back = ConvISTFT(n_fft, hop, win, padding)(ours, length=7_001)
    assert (back[:, 0] - istft(spec, n_fft, hop, win, padding, 7_001)).abs().max() < 1e-5


def test_convolution_form_inverts_any_spectrum_as_torch_does():
    spec = torch.complex(noise(2, 513, 20), noise(2, 513, 20, seed=1))  # no sound's: DC and Nyquist are not real
    theirs = torch.istft(spec, 1024, 256, 1024, torch.hann_window(1024))
    assert (ConvISTFT(1024, 256, 1024, "center")(parts(spec))[:, 0] - theirs).abs().max() < 1e-5
    assert (istft(spec, 1024, 256, 1024, "center") - theirs).abs().max() < 1e-5


def test_convolution_form_has_no_weights_to_train_or_store():
    module = torch.nn.Sequential(ConvSTFT(256, 64, 256), ConvISTFT(256, 64, 256))
    assert not list(module.parameters()) and not module.state_dict()


def test_exported_graph_runs_at_other_lengths():
    module = torch.nn.Sequential(ConvSTFT(256, 64, 256), ConvISTFT(256, 64, 256)).eval()
    hops = torch.export.Dim("hops", min=8, max=10_000)
    graph = torch.export.export(module, (noise(1, 1, 64 * 20),), dynamic_shapes=[{2: 64 * hops}]).module()
    for n in (64 * 9, 64 * 50):
        assert torch.allclose(graph(noise(1, 1, n, seed=n)), noise(1, 1, n, seed=n), atol=1e-5)


def test_gradients_are_right_in_double_precision():
    wav = noise(1, 90, dtype=torch.float64).requires_grad_()
    for padding in PADDINGS:
        assert torch.autograd.gradcheck(
            lambda x, padding=padding: istft(stft(x, 32, 8, 32, padding).abs() + 0j, 32, 8, 32, padding, 90),
            wav,
            atol=1e-4,
        )


def test_windows_and_mistakes():
    assert torch.allclose(hann(4, 6), torch.tensor([0, 0, 0.5, 1, 0.5, 0]))
    for wrong in (
        lambda: stft(noise(1, 100), 64, 16, 128),  # window longer than the transform
        lambda: stft(noise(1, 100), 64, 16, 64, "valid"),
        lambda: stft(noise(1, 0), 64, 16, 64),
    ):
        with pytest.raises(WavelldmError):
            wrong()


def test_integer_samples_are_refused():
    with pytest.raises(AudioError, match="not int16; convert them with audio.as_float"):
        stft(torch.ones(1, 1, 4_000, dtype=torch.int16), 512, 128, 512)
