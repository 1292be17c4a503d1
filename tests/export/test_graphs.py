import pytest
import torch

from wavelldm.denoise.mask import MaskConfig, MaskNet
from wavelldm.errors import WavelldmError
from wavelldm.export.graphs import Recording, Stream, Whole, bases

SMALL = MaskConfig(width=8, blocks=2)
BOTH = MaskConfig(width=8, blocks=2, both_ways=True, full=True, ahead=4)


def network(config):
    torch.manual_seed(0)
    net = MaskNet(config).eval()
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return net


def sound(n=5_000):
    return 0.1 * torch.randn(1, n, generator=torch.Generator().manual_seed(0))


def test_the_matrices_are_the_transform_and_its_inverse():
    window = torch.hann_window(512).sqrt()
    there, back = bases(window, torch.arange(512.0))
    x = sound(512)
    spec = torch.fft.rfft(x * window)
    assert (x @ there - torch.cat([spec.real, spec.imag], dim=1)).abs().max() < 1e-5
    assert (torch.cat([spec.real, spec.imag], dim=1) @ back - x * window.square()).abs().max() < 1e-6


@torch.no_grad()
@pytest.mark.parametrize("config", [SMALL, BOTH], ids=["one way", "both ways"])
@pytest.mark.parametrize("n", [1, 256, 1_000, 5_000])
def test_a_whole_recording_comes_out_as_from_the_network(config, n):
    net, wav = network(config), sound(n)
    assert (Whole(net)(wav)[0] - net(wav[:, None])[0]).abs().max() < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 3])
def test_a_stream_comes_out_as_from_the_network(chunk):
    net, wav = network(SMALL), sound()
    graph, c = Stream(net, chunk), SMALL
    states = dict(zip(graph.inputs, graph.silence()))
    padded = torch.nn.functional.pad(wav, (c.hop // 2, 8 * c.hop))
    states["past"], out, frames = padded[:, : c.hop], [], -(-wav.shape[1] // c.hop)
    for call in range(24 // chunk):
        first = call * chunk
        states["sound"] = padded[:, (first + 1) * c.hop : (first + 1 + chunk) * c.hop]
        states["inside"] = torch.tensor([float(0 <= first - 1 + i < frames) for i in range(chunk)])
        found = dict(zip(graph.outputs, graph(*states.values())))
        states |= {name: found[f"{name}_out"] for name in states if f"{name}_out" in found}
        out.append(found["cleaned"])
    mine = torch.cat(out, dim=1)[:, c.hop + c.hop // 2 :][:, : wav.shape[1]]
    assert (mine - net(wav[:, None])[0]).abs().max() < 1e-5


def test_what_no_graph_can_be_made_of_is_refused():
    with pytest.raises(WavelldmError, match="choose base16k"):
        Stream(network(BOTH))
    with pytest.raises(WavelldmError, match="without a guide"):
        Recording(network(MaskConfig(width=8, blocks=2, latent_dim=4)))
