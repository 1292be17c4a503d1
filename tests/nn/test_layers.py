import pytest
import torch

from wavelldm.errors import WavelldmError
from wavelldm.nn.attention import RotaryAttention, rotary
from wavelldm.nn.layers import Chain, ChannelNorm, Conv1d, ConvNeXtBlock, ConvTranspose1d, Residual, count_parameters

torch.set_num_threads(1)

STREAMING = {
    "conv": lambda: Conv1d(8, 6, 7, causal=True),
    "conv, one tap": lambda: Conv1d(8, 6, 1, causal=True),
    "conv, dilated": lambda: Conv1d(8, 6, 3, dilation=5, causal=True),
    "conv, strided": lambda: Conv1d(8, 6, 7, stride=4, causal=True),
    "conv, stride of its length": lambda: Conv1d(8, 6, 4, stride=4, causal=True),
    "transposed": lambda: ConvTranspose1d(8, 6, 8, 4, causal=True),
    "transposed, long": lambda: ConvTranspose1d(8, 6, 11, 2, causal=True),
    "transposed, no overlap": lambda: ConvTranspose1d(8, 6, 4, 4, causal=True),
    "convnext": lambda: ConvNeXtBlock(8, causal=True),
    "attention": lambda: RotaryAttention(8, 2, causal=True),
    "attention, window": lambda: RotaryAttention(8, 2, window=5, causal=True),
    "chain": lambda: Chain(
        Conv1d(8, 12, 4, stride=2, causal=True),
        ChannelNorm(12),
        Residual(ChannelNorm(12), RotaryAttention(12, 2, window=6, causal=True)),
        ConvTranspose1d(12, 8, 6, 3, causal=True),
    ),
}


def build(name):
    torch.manual_seed(0)
    return STREAMING[name]().eval()


@pytest.mark.parametrize("sizes", [[1] * 40, [40], [3] * 13 + [1], [7, 0, 1, 16, 2, 14], [0, 39, 1]], ids=str)
@pytest.mark.parametrize("name", STREAMING)
def test_streaming_equals_the_whole_signal(name, sizes):
    layer, x = build(name), torch.randn(2, 8, 40, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole, parts, state = layer(x), [], layer.initial_state(len(x))
        for chunk in x.split(sizes, dim=-1):
            y, state = layer.step(chunk, state)
            parts.append(y)
    joined = torch.cat(parts, dim=-1)
    assert joined.shape == whole.shape
    wrong = (joined - whole).abs().amax((0, 1)) > 1e-5
    assert not wrong.any(), f"{name}: first wrong frame {int(wrong.int().argmax())} of {len(wrong)} with chunks {sizes}"


@pytest.mark.parametrize("name", STREAMING)
def test_causal_layers_see_the_past_and_not_the_future(name):
    layer, x = build(name), torch.randn(1, 8, 40, requires_grad=True)
    y = layer(x)
    at = y.shape[-1] // 2
    (grad,) = torch.autograd.grad(y[0, :, at].square().sum(), x)
    reached = grad[0].abs().sum(0).nonzero().flatten()
    end = (at + 1) * 40 // y.shape[-1] if y.shape[-1] < 40 else at * 40 // y.shape[-1] + 1  # first sample of the future
    if name == "chain":  # works in frames of 2: 20 frames, 60 samples out, so sample 30 belongs to frame 10
        end = 22
    assert reached.max() == end - 1, f"{name}: output {at} sees input {int(reached.max())}"
    if name not in ("conv, one tap", "transposed, no overlap", "conv, stride of its length"):
        assert reached.min() < at * 40 // y.shape[-1]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 9, 31])
@pytest.mark.parametrize("causal", [False, True])
def test_lengths(n, causal):
    x = torch.randn(1, 4, n)
    assert Conv1d(4, 4, 7, causal=causal)(x).shape[-1] == n
    assert Conv1d(4, 4, 5, stride=4, causal=causal)(x).shape[-1] == -(-n // 4)
    assert ConvTranspose1d(4, 4, 16, 8, causal=causal)(x).shape[-1] == 8 * n
    assert ConvNeXtBlock(4, causal=causal)(x).shape == RotaryAttention(4, 2, causal=causal)(x).shape == x.shape


def test_convolutions_by_hand():
    x = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    for causal, want in ((False, [3.0, 6.0, 9.0, 7.0]), (True, [1.0, 3.0, 6.0, 9.0])):
        conv = Conv1d(1, 1, 3, causal=causal)
        torch.nn.init.ones_(conv.weight), torch.nn.init.zeros_(conv.bias)
        assert conv(x).flatten().tolist() == want
    up = ConvTranspose1d(1, 1, 3, 2, causal=True)  # each input adds 1, 10, 100 times itself from its own place on
    up.weight.data, up.bias.data = torch.tensor([[[1.0, 10.0, 100.0]]]), torch.zeros(1)
    assert up(x[..., :3]).flatten().tolist() == [1, 10, 102, 20, 203, 30]


def test_convnext_block_by_hand():
    torch.manual_seed(2)
    block, x = ConvNeXtBlock(8, expansion=3), torch.randn(2, 8, 20)
    y = torch.nn.functional.conv1d(x, block.depthwise.weight, block.depthwise.bias, padding=3, groups=8)
    y = (y - y.mean(1, keepdim=True)) / (y.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    y = block.widen.weight @ y + block.widen.bias[:, None]
    y = block.narrow.weight @ torch.nn.functional.gelu(y) + block.narrow.bias[:, None]
    assert torch.allclose(block(x), x + 0.1 * y, atol=1e-5)
    assert count_parameters(block) == 8 * 8 + 2 * 8 + (8 * 24 + 24) + (24 * 8 + 8) + 8


def test_every_parameter_of_the_block_learns():
    block = ConvNeXtBlock(8)
    block(torch.randn(2, 8, 20)).square().sum().backward()
    assert all((p.grad != 0).any() for p in block.parameters())


def test_rotary_is_multiplication_by_a_unit_complex_number():
    x = torch.randn(3, 10, 8, generator=torch.Generator().manual_seed(3))
    speed = 10_000.0 ** (-torch.arange(4) / 4)
    angle = (torch.arange(10)[:, None] + 5) * speed
    want = torch.complex(x[..., :4], x[..., 4:]) * torch.polar(torch.ones_like(angle), angle)
    assert torch.allclose(rotary(x, start=5), torch.cat([want.real, want.imag], -1), atol=1e-5)


def test_rotary_products_depend_on_distance_only():
    q, k = torch.randn(1, 8), torch.randn(1, 8)
    near, far = rotary(q, 7) @ rotary(k, 3).T, rotary(q, 104) @ rotary(k, 100).T
    assert torch.allclose(near, far, atol=1e-4)
    assert not torch.allclose(near, rotary(q, 8) @ rotary(k, 3).T, atol=1e-3)


@pytest.mark.parametrize("window, causal", [(None, False), (None, True), (4, True), (4, False)])
def test_attention_equals_the_sum_written_out(window, causal):
    torch.manual_seed(4)
    layer, x = RotaryAttention(8, 2, window, causal), torch.randn(1, 8, 12)
    q, k, v = (layer.qkv.weight @ x[0]).reshape(3, 2, 4, 12)  # (heads, d, T) each
    q, k = rotary(q.transpose(1, 2)), rotary(k.transpose(1, 2))
    want = torch.zeros(8, 12)
    for t in range(12):
        first = 0 if window is None else max(0, t - window + 1)
        last = t if causal else 11 if window is None else min(11, t + window - 1)
        for h in range(2):
            weights = torch.softmax(k[h, first : last + 1] @ q[h, t] / 2, 0)  # sqrt(4) = 2
            want[h * 4 : h * 4 + 4, t] = v[h, :, first : last + 1] @ weights
    assert torch.allclose(layer(x)[0], layer.out.weight @ want, atol=1e-5)


def test_a_windowed_stream_keeps_a_bounded_state():
    layer = RotaryAttention(8, 2, window=5, causal=True)
    state = layer.initial_state(1)
    for _ in range(20):
        _, state = layer.step(torch.randn(1, 8, 3), state)
    assert state[0].shape == state[1].shape == (1, 2, 4, 4)


@pytest.mark.parametrize("name", STREAMING)
def test_a_state_is_not_changed_and_can_be_used_again(name):
    layer, x = build(name), torch.randn(2, 8, 24)
    with torch.no_grad():
        _, state = layer.step(x[..., :12], layer.initial_state(2))
        first, _ = layer.step(x[..., 12:], state)
        assert torch.equal(first, layer.step(x[..., 12:], state)[0])


@pytest.mark.parametrize("name", STREAMING)
def test_everything_stays_on_its_device(name):
    """`meta` tensors have no values: whatever leaves their device fails."""
    layer = build(name).to("meta")
    y, state = layer.step(torch.zeros(2, 8, 12, device="meta"), layer.initial_state(2))
    y, _ = layer.step(torch.zeros(2, 8, 12, device="meta"), state)
    assert y.device.type == layer(torch.zeros(2, 8, 24, device="meta")).device.type == "meta"


def test_errors_say_what_to_do():
    for layer in (Conv1d(4, 4, 3), ConvTranspose1d(4, 4, 4, 2), ConvNeXtBlock(4), RotaryAttention(4, 2)):
        with pytest.raises(WavelldmError, match="causal=True"):
            layer.initial_state(1)
    with pytest.raises(WavelldmError, match="stride 4"):
        Conv1d(4, 4, 3, stride=4)
    with pytest.raises(WavelldmError, match="stride 4"):
        ConvTranspose1d(4, 4, 3, 4)
    with pytest.raises(WavelldmError, match="heads"):
        RotaryAttention(10, 4)
