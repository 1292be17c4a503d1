from dataclasses import replace

import numpy as np
import pytest
import torch

from wavelldm import weights
from wavelldm.audio import files
from wavelldm.codec.model import Codec
from wavelldm.data import corpora
from wavelldm.data.clips import Clips
from wavelldm.data.corpora import Corpus
from wavelldm.denoise.mask import MaskConfig, MaskNet, band_edges, banks
from wavelldm.errors import WavelldmError
from wavelldm.training import loop
from wavelldm.training.mask import MaskOptions, MaskTask, si_sdr, spectral_loss
from wavelldm.training.net2net import widen_from

SMALL = MaskConfig(width=16, blocks=1)


def make(config=SMALL, seed=0):
    torch.manual_seed(seed)
    return MaskNet(config).eval()


def test_bands_cover_every_bin_once_and_widen():
    c = MaskConfig()
    edges = band_edges(c)
    widths = [b - a for a, b in zip(edges, edges[1:])]
    assert edges[0] == c.low and edges[-1] == c.n_fft // 2 + 1 and len(widths) == c.bands - c.low
    assert min(widths) >= 1 and sum(widths[-10:]) > 2 * sum(widths[:10])
    into, back = banks(c)
    assert torch.equal(back.sum(0), torch.ones(257)) and torch.allclose(into.sum(0), torch.ones(c.bands))
    assert torch.allclose((torch.ones(257) @ into) @ back, torch.ones(257))


@pytest.mark.parametrize("n", [1, 255, 256, 257, 5_000])
def test_a_mask_of_ones_gives_the_sound_back(n):
    net, wav = make(), torch.randn(2, 1, n)
    spec = net.spectrum(wav)
    assert spec.shape == (2, -(-n // 256), 257)
    assert (net.wave(spec, n) - wav).abs().max() < 1e-4


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_a_frame_sees_all_before_it_and_so_many_after_it(ahead):
    net = make(replace(SMALL, ahead=ahead))
    spec = torch.randn(1, 12, 257, dtype=torch.complex64).requires_grad_()
    (cleaned, _), _ = net.step(spec, net.initial_state(1))
    cleaned[:, 6].abs().sum().backward()
    last = 7 + ahead
    assert spec.grad[:, last:].abs().max() == 0 and (spec.grad[:, :last].abs().sum((0, 2)) > 0).all()


@pytest.mark.parametrize("n", [1, 3_000, 4_096])
def test_a_cleaned_sample_depends_on_one_window_and_the_frames_ahead(n):
    net = make()
    wav = (0.1 * torch.randn(1, 1, n)).requires_grad_()
    out = net(wav)
    assert out.shape == wav.shape
    at = n // 2
    out[..., at].sum().backward()
    seen = wav.grad[0, 0].nonzero().max().item()
    assert at <= seen < min(n, at + net.config.n_fft + net.config.ahead * net.config.hop)


def test_the_filter_adds_what_its_weights_say_of_other_frames():
    net, spec = make(), torch.randn(2, 9, 257, dtype=torch.complex64)
    taps, low = net.config.taps, net.config.low
    with torch.no_grad():
        net.last.weight.zero_()
        net.last.bias.zero_()  # a mask of one half
        net.last.bias[3 + 1] = 2.0  # real part of the second tap
        net.last.bias[3 + taps + 3] = 6.0  # imaginary part of the fourth
        net.last.bias[3 + 2 * taps + 1] = 5.0  # imaginary part of the frame ahead
        (out, mask), _ = net.step(spec, net.initial_state(2))
    others, now = torch.zeros_like(spec), spec[:, :-1]
    others[:, 2:, :low] += 2 * spec[:, :-2, :low]
    others[:, 4:, :low] += 6j * spec[:, :-4, :low]
    others[:, :-1, :low] += 5j * spec[:, 1:, :low]
    assert torch.allclose(mask, torch.full_like(mask, 0.5)) and torch.allclose(
        out, 0.5 * (now + others[:, :-1]), atol=1e-5
    )


@pytest.mark.parametrize("ahead", [0, 1, 2])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_streaming_equals_the_whole(size, ahead):
    """Every step answers what the frames so far allow: `ahead` frames late."""
    net = make(replace(SMALL, latent_dim=8, ahead=ahead))
    torch.nn.init.normal_(net.guide_out.weight, std=0.3)
    spec, latent = torch.randn(2, 13 + ahead, 257, dtype=torch.complex64), torch.randn(2, 8, 13)
    with torch.no_grad():
        (whole, mask), _ = net.step(spec, net.initial_state(2), latent)
        sound, state, tail, parts, masks, sounds = net.wave(whole, 13 * 256), net.initial_state(2), None, [], [], []
        for i in range(0, 13 + ahead, size):
            first, last = max(0, i - ahead), min(i + size, 13 + ahead) - ahead
            (part, piece), state = net.step(spec[:, i : i + size], state, latent[..., first : max(first, last)])
            assert part.shape[1] == max(0, last - first)
            out, tail = net.overlap(part, tail)
            parts.append(part), masks.append(piece), sounds.append(out)
    assert (torch.cat(parts, dim=1) - whole).abs().max() < 1e-5 and (torch.cat(masks, dim=1) - mask).abs().max() < 1e-5
    assert (torch.cat(sounds, dim=1)[:, net.side :] - sound[:, 0, : 13 * 256 - net.side]).abs().max() < 1e-4


def test_frames_that_do_not_count_are_not_there():
    net, spec = make(), torch.randn(2, 9, 257, dtype=torch.complex64)
    valid = torch.arange(9) < torch.tensor([[9], [5]])
    out, (tail, envelope) = net.overlap(spec, valid=valid)
    short, (end, edge) = net.overlap(spec[1:, :5])
    assert torch.allclose(out[1:, : 5 * 256], short)
    last = out[1, 5 * 256 : 6 * 256]
    assert torch.allclose(last, (end / edge.clamp_min(1e-3))[0, :256]) and not out[1, 6 * 256 :].any()
    assert torch.equal(out[:1], net.overlap(spec[:1])[0])


def test_a_state_is_on_the_networks_device():
    """On the meta device tensors have shapes and no values: whatever stayed on the CPU would be refused."""
    net = make().to("meta")
    (cleaned, mask), state = net.step(
        torch.zeros(2, 5, 257, dtype=torch.complex64, device="meta"), net.initial_state(2)
    )
    sound, _ = net.overlap(cleaned)
    assert cleaned.shape == mask.shape == (2, 4, 257) and sound.device.type == "meta" and sound.shape == (2, 4 * 256)
    assert net(torch.zeros(2, 1, 5_000, device="meta")).shape == (2, 1, 5_000)


def test_a_new_guide_changes_nothing_and_a_learnt_one_does():
    alone, guided = make(), make(replace(SMALL, latent_dim=8))
    guided.load_state_dict(alone.state_dict(), strict=False)
    wav, latent = torch.randn(1, 1, 4_000), torch.randn(1, 8, 16)
    with torch.no_grad():
        assert torch.equal(alone(wav), guided(wav, latent))
        torch.nn.init.normal_(guided.guide_out.weight)
        assert (alone(wav) - guided(wav, latent)).abs().max() > 1e-3
    with pytest.raises(WavelldmError, match="needs latent"):
        guided(wav)
    with pytest.raises(WavelldmError, match="takes no latent"):
        alone(wav, latent)


def test_a_deeper_network_goes_on_where_a_shallower_one_was_and_learns():
    shallow, deep = make(), make(replace(SMALL, blocks=SMALL.blocks + 2))
    wav = torch.randn(1, 1, 4_000)
    with torch.no_grad():
        assert (shallow(wav) - deep(wav)).abs().max() > 1e-3
        widen_from(deep, shallow)
        assert torch.equal(shallow(wav), deep(wav))
    deep(wav).square().sum().backward()
    assert deep.blocks[-1].norm.weight.grad.abs().max() > 0, "from zero on, the new blocks must be able to leave it"
    with pytest.raises(WavelldmError, match="has more blocks"):
        widen_from(shallow, deep)


def test_a_network_with_taps_goes_on_where_one_without_was_and_learns():
    mask, taps = make(replace(SMALL, taps=0, ahead=0)), make()
    wav = torch.randn(1, 1, 4_000)
    with torch.no_grad():
        widen_from(taps, mask)
        assert (mask(wav) - taps(wav)).abs().max() < 1e-6
    taps(wav).square().sum().backward()
    assert (taps.last.bias.grad[3:].abs() > 0).all()
    with pytest.raises(WavelldmError, match="other taps"):
        widen_from(mask, taps)


@pytest.mark.parametrize("ahead", [1, 2])
def test_a_network_that_sees_ahead_goes_on_where_one_that_does_not_was_and_learns(ahead):
    now, then = make(replace(SMALL, ahead=0)), make(replace(SMALL, ahead=ahead))
    wav = torch.randn(1, 1, 4_000)
    with torch.no_grad():
        widen_from(then, now)
        assert (now(wav) - then(wav)).abs().max() < 1e-6
    then(wav).square().sum().backward()
    later = 3 + 2 * SMALL.taps
    assert (then.last.bias.grad[later:].abs() > 0).all() and (
        then.first.weight.grad[:, 9:].abs().sum((0, 2, 3)) > 0
    ).all()
    with pytest.raises(WavelldmError, match="more frames ahead"):
        widen_from(now, then)
    with pytest.raises(WavelldmError, match="other taps"):
        widen_from(then, make(replace(SMALL, taps=0)))


@pytest.mark.parametrize("times", [2, 3])
def test_a_wider_network_goes_on_where_a_narrower_one_was_and_its_copies_part(times):
    narrow, wide = make(), make(replace(SMALL, width=SMALL.width * times), 1)
    wav = torch.randn(1, 1, 4_000)
    with torch.no_grad():
        widen_from(wide, narrow)
        assert (narrow(wav) - wide(wav)).abs().max() < 1e-5
    wide(wav).square().sum().backward()
    for weight in (wide.blocks[0].mix.weight, wide.blocks[0].gru.weight_hh_l0, wide.up.weight):  # what each copy writes
        copies = weight.grad.unflatten(
            1 if weight is wide.up.weight else 0, (-1, SMALL.width if weight.dim() == 2 else SMALL.width // 2)
        )
        first, second = copies.unbind(1 if weight is wide.up.weight else 0)[:2]
        assert (first - second).norm() > 0.05 * first.norm()
    with pytest.raises(WavelldmError, match="16 channels.*multiple"):
        widen_from(make(replace(SMALL, width=24)), narrow)


def test_a_network_that_hears_both_ways_goes_on_where_one_that_does_not_was_and_learns():
    one = make(replace(SMALL, blocks=2))
    both = make(replace(one.config, both_ways=True, full=True, ahead=4), 1)
    wav = torch.randn(1, 1, 4_000)
    with torch.no_grad():
        widen_from(both, one)
        assert (one(wav) - both(wav)).abs().max() < 1e-6
    both(wav).square().sum().backward()
    assert both.reach.grad[SMALL.low :].abs().max() > 0
    assert both.blocks[0].out.weight.grad[:, SMALL.width :].abs().max() > 0
    with pytest.raises(WavelldmError, match="both ways"):
        widen_from(one, both)
    with pytest.raises(WavelldmError, match="time one way"):
        make(replace(SMALL, both_ways=True, latent_dim=8))


def test_with_both_ways_a_frame_sees_all_others():
    net = make(replace(SMALL, both_ways=True))
    spec = torch.randn(1, 12, 257, dtype=torch.complex64).requires_grad_()
    (cleaned, _), _ = net.step(spec, net.initial_state(1))
    cleaned[:, 5].abs().sum().backward()
    assert (spec.grad.abs().sum((0, 2)) > 0).all()


def test_a_full_filter_reaches_the_highest_bins():
    net, spec = make(replace(SMALL, full=True)), torch.randn(1, 9, 257, dtype=torch.complex64)
    with torch.no_grad():
        net.last.weight.zero_()
        net.last.bias.zero_()  # a mask of one half
        net.last.bias[3] = 2.0  # real part of the first tap
        net.reach[-1] = 0.5  # the highest band
        (out, _), _ = net.step(spec, net.initial_state(1))
    expected = spec[:, 1:-1] + 2 * spec[:, :-2]
    top = band_edges(net.config)[-2]
    assert torch.allclose(out[:, 1:, :top], 0.5 * expected[..., :top], atol=1e-5)
    assert torch.allclose(out[:, 1:, top:], 0.5 * (spec[:, 1:-1] + spec[:, :-2])[..., top:], atol=1e-5)


def test_training_leaves_the_hissy_recordings_out(tmp_path):
    rng = np.random.default_rng(0)
    for i, hiss in enumerate((1e-4, 1e-3, 1e-2, 3e-2)):
        wav = hiss * rng.standard_normal(16_000) + np.repeat([0.0, 1.0, 1.0], 16_000 // 3 + 1)[:16_000] * 0.2
        files.save(tmp_path / f"{i}.wav", torch.from_numpy(wav)[None].float(), 16_000)
    items = corpora.folder(tmp_path)
    clips = Clips(items, 16_000, tmp_path / "cache")
    floors = clips.floors()
    assert (np.diff(floors) < -3).all() and abs(floors[2] - 20 * np.log10(0.2 / 1e-2)) < 2
    clips.draw_from(floors > np.quantile(floors, 0.5))
    assert {clips.draw(rng) for _ in range(50)} == {0, 1}
    with pytest.raises(WavelldmError, match="no recording is left"):
        clips.draw_from(floors > 1_000)


def test_a_voice_with_four_times_the_speech_is_drawn_twice_as_often(tmp_path, two_recordings):
    for i, name in enumerate(("little/0", "much/0", "much/1", "much/2", "much/3")):
        path = tmp_path / "voices" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        files.save(path, 0.1 * torch.sin(torch.arange(8_000) / (5.0 + i))[None], 16_000)
    items = corpora.folder(tmp_path / "voices")
    assert [item.label for item in items] == ["little"] + 4 * ["much"]
    clips, rng = Clips(items, 16_000, tmp_path / "cache"), np.random.default_rng(0)
    for even, share in ((False, 1 / 5), (True, 1 / 3)):
        clips.draw_from(np.ones(5, bool), even)
        assert abs(np.mean([clips.draw(rng) == 0 for _ in range(4_000)]) - share) < 0.03
    clips.draw_from(np.arange(5) > 0, even=True)
    assert {clips.draw(rng) for _ in range(50)} == {1, 2, 3, 4}

    drawn = []
    for even in (False, True):
        task = MaskTask(SMALL, MaskOptions(batch_size=32, seconds=0.25, even=even))
        task.read(Corpus(items, items, two_recordings[1], two_recordings[1], False))
        drawn.append(next(iter(task.batches(0)))[1])
    assert not torch.equal(*drawn), "the option reaches the loader"


def test_training_varies_the_voices_it_is_told_to(two_recordings):
    speech, held_out = two_recordings
    first, held = {}, {}
    for share in (0.0, 1.0):
        task = MaskTask(SMALL, MaskOptions(batch_size=2, seconds=0.25, varied=share))
        task.read(Corpus(speech, speech, held_out, held_out, False))
        first[share], held[share] = next(iter(task.batches(0)))[1], task.valid[0][1]
    assert not torch.allclose(first[0.0], first[1.0], atol=1e-3)
    assert torch.equal(held[0.0], held[1.0]), "held-out voices stay as they are"


def test_losses_are_zero_for_the_same_and_grow_with_the_error():
    net, clean = make(), torch.randn(2, 1, 4_000)
    assert spectral_loss(net, clean, clean) < 1e-8
    near, far = (clean + x * torch.randn(clean.shape) for x in (0.1, 0.5))
    assert 0 < spectral_loss(net, near, clean) < spectral_loss(net, far, clean)
    assert torch.allclose(si_sdr(3 * near, clean), si_sdr(near, clean), atol=1e-3)
    error = torch.tensor([1.0, -1.0]).repeat(50)[None, None]
    assert torch.allclose(
        si_sdr(torch.ones(1, 1, 100) + 0.1 * error, torch.ones(1, 1, 100)), torch.tensor(20.0), atol=1e-2
    )


def test_one_batch_is_overfitted_and_goes_round_as_weights(tmp_path):
    g = torch.Generator().manual_seed(0)
    t = torch.arange(8_000) / 16_000
    clean = 0.2 * torch.sin(2 * torch.pi * torch.tensor([200.0, 310.0])[:, None, None] * t)
    noisy = clean + 0.1 * torch.randn(clean.shape, generator=g)
    task = MaskTask(SMALL).with_data(lambda start: iter([(noisy, clean)] * 99), [(noisy, clean)])
    before = task.validate(task.networks["model"])
    plan = loop.Plan(steps=60, lr=5e-3, warmup=5, valid_every=60, ema=0.8)
    loop.fit(task, plan, tmp_path, progress=False)
    after = task.validate(task.networks["model"])
    assert after["valid_si_sdr"] > before["valid_si_sdr"] + 6 and after["valid_spectral"] < before["valid_spectral"]
    path = weights.save(tmp_path / "m", task.networks["model"], steps=60)
    back = weights.load(path, MaskNet)
    with torch.no_grad():
        assert (back(noisy) - task.networks["model"](noisy)).abs().max() < 1e-2
    with pytest.raises(WavelldmError, match="weights of a MaskNet, not of a Codec"):
        weights.load(path, Codec)
