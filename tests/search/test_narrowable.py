"""Inverted residual blocks that run with some of their middle channels."""

import pytest
import torch
from latkit.devices.errors import UsageError
from latkit.latency.blocks import MBConv
from latkit.latency.torch_model import TorchModel
from latkit.search.narrowable import Narrowable

PLAIN = MBConv(in_channels=8, out_channels=8, expanded_channels=48, height=6, width=6)
GATED = MBConv(
    in_channels=16,
    out_channels=24,
    expanded_channels=96,
    height=6,
    width=6,
    kernel=5,
    stride=2,
    squeeze_excite=True,
)
BLOCKS = {"plain": PLAIN, "squeeze-excite": GATED}


def made(block, seed=0):
    torch.manual_seed(seed)
    return Narrowable(block).double().train()


def images_of(block, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, *block.input_shapes[0], generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS)
@pytest.mark.parametrize("training", [True, False])
def test_channels_left_out_are_as_if_nothing_read_them(block, training):
    narrow = made(block)
    narrow.narrow(40)
    full = TorchModel(block).double()
    full.load_state_dict(narrow.state_dict())
    out = sorted(set(range(block.expanded_channels)) - set(narrow.kept.tolist()))
    with torch.no_grad():
        full.layers["project"].conv.weight[:, out] = 0
        if block.squeeze_excite:
            assert narrow.block.squeezed_channels < block.squeezed_channels
            full.layers["squeeze"].conv.weight[:, out] = 0
            full.layers["excite"].conv.weight[:, narrow.block.squeezed_channels :] = 0
    images = images_of(block)
    for _ in range(2):
        found = narrow.train()(images)
        torch.testing.assert_close(found, full.train()(images), rtol=1e-10, atol=1e-10)
    narrow.train(training)
    full.train(training)
    torch.testing.assert_close(narrow(images), full(images), rtol=1e-10, atol=1e-10)


def test_those_with_the_largest_kernels_are_kept_and_the_others_learn_nothing():
    narrow = made(PLAIN)
    with torch.no_grad():
        narrow.layers["depthwise"].conv.weight[1::2] *= 100
    narrow.narrow(24)
    assert narrow.kept.tolist() == list(range(1, 48, 2))
    before = narrow.layers["depthwise"].norm.running_mean.clone()
    narrow(images_of(PLAIN)).square().sum().backward()
    slope = narrow.layers["depthwise"].conv.weight.grad.abs().sum((1, 2, 3))
    assert (slope[::2] == 0).all() and (slope[1::2] > 0).all()
    moved = narrow.layers["depthwise"].norm.running_mean != before
    assert moved[1::2].all() and not moved[::2].any()


def test_channels_come_back_with_their_weights():
    narrow = made(PLAIN).eval()
    expected = narrow(images_of(PLAIN))
    narrow.narrow(24)
    assert narrow.block.expanded_channels == 24
    assert not torch.allclose(narrow(images_of(PLAIN)), expected)
    narrow.narrow(48)
    assert narrow.block == PLAIN
    assert torch.equal(narrow(images_of(PLAIN)), expected)


def test_a_width_without_the_first_convolution_is_refused():
    with pytest.raises(UsageError, match="first convolution"):
        made(PLAIN).narrowed_to(8)
