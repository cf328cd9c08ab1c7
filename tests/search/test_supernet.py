"""The weight-sharing supernet: slices equal masks, and a path that is not taken rests."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.errors import UsageError
from latkit.latency.blocks import ConvBlock, Head, MBConv
from latkit.search.sgd import SGD
from latkit.search.space import Architecture
from latkit.search.spaces.mobile import MobileSpace, mobile_stage
from latkit.search.supernet import Supernet
from latkit.search.training import set_threads
from torch.nn import functional

STAGES = (mobile_stage((8, 16), 2, 1), mobile_stage((16, 24), 3, 2))
SPACE = MobileSpace(4, stages=STAGES, resolution=16, stem_channels=8, hidden_channels=24)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


def largest():
    """Greatest width, kernel and expansion everywhere, no layer skipped."""
    return SPACE.architecture([1, 3, 3, 1, 3, 3, 3])


def masked_convolution(value, layer, outputs, *, stride=1, groups=False, act=True):
    """All channels are computed; those beyond `outputs` are multiplied by 0."""
    weight, channels = layer.weight, len(layer.weight)
    if value.shape[1] < (channels if groups else weight.shape[1]):
        missing = (channels if groups else weight.shape[1]) - value.shape[1]
        value = functional.pad(value, (0, 0, 0, 0, 0, missing))
    value = value[:, : channels if groups else weight.shape[1]]
    count = channels if groups else 1
    value = functional.conv2d(value, weight, None, stride, weight.shape[2] // 2, groups=count)
    value = functional.batch_norm(
        value, None, None, layer.norm_weight, layer.norm_bias, training=True
    )
    mask = (torch.arange(channels) < outputs).to(value.dtype)
    return (functional.relu6(value) if act else value) * mask[:, None, None]


def masked_forward(supernet, images, architecture):
    """The supernet as papers describe it: full weights, zeros for what is not chosen."""
    layers = supernet.layers
    pieces = iter(
        [0]
        + [index + 1 for index, block in enumerate(SPACE.layers(architecture)) if block]
        + [len(SPACE.pieces) - 1]
    )
    value = images
    for block in SPACE.network(architecture).blocks:
        piece = next(pieces)
        match block:
            case ConvBlock():
                layer = layers[f"{piece}_conv_3"]
                value = masked_convolution(value, layer, block.out_channels, stride=2)
            case MBConv():
                before, middle = value, block.expanded_channels
                value = masked_convolution(value, layers[f"{piece}_expand_1"], middle)
                value = masked_convolution(
                    value,
                    layers[f"{piece}_depthwise_{block.kernel}"],
                    middle,
                    stride=block.stride,
                    groups=True,
                )
                project = layers[f"{piece}_project_1"]
                value = masked_convolution(value, project, block.out_channels, act=False)
                if block.has_residual:
                    size = min(value.shape[1], before.shape[1])
                    assert not before[:, size:].any() and not value[:, size:].any()
                    value = value[:, :size] + before[:, :size]
            case Head():
                value = masked_convolution(value, layers[f"{piece}_conv_1"], 24)
                classifier = layers[f"{piece}_classifier"]
                value = functional.linear(value.mean((2, 3)), classifier.weight, classifier.bias)
    return value


def perturbed_supernet(dtype=torch.float64):
    """A supernet whose biases and batch norms are not at their neutral initial values."""
    supernet = Supernet(SPACE, seed=3).to(dtype)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in supernet.parameters():
            noise = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
            parameter.add_(0.1 * noise.to(dtype))
    return supernet


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_sliced_weights_equal_zero_masks_in_values_and_gradients(seed):
    supernet = perturbed_supernet()
    architecture = SPACE.sample(np.random.default_rng(seed))
    images = torch.randn(6, 3, 16, 16, dtype=torch.float64)
    found, expected = supernet(images, architecture), masked_forward(supernet, images, architecture)
    assert torch.allclose(found, expected, rtol=1e-9, atol=1e-10)
    parameters = dict(supernet.named_parameters())
    gradients = [
        torch.autograd.grad(value.square().sum(), parameters.values(), allow_unused=True)
        for value in (found, expected)
    ]
    for name, one, other in zip(parameters, *gradients, strict=True):
        assert (one is None) == (other is None), name
        assert one is None or torch.allclose(one, other, rtol=1e-7, atol=1e-9), name


def step(supernet, optimiser, architecture):
    supernet.active.clear()
    supernet(torch.randn(6, 3, 16, 16), architecture).square().sum().backward()
    optimiser.step(0.1)
    optimiser.clear_gradients()


def in_use(supernet, name):
    """Which elements of a parameter the last architecture used."""
    used = torch.zeros_like(dict(supernet.named_parameters())[name], dtype=torch.bool)
    if name in supernet.active:
        used[supernet.active[name]] = True
    return used


def test_path_not_taken_keeps_its_weights_and_its_momentum():
    supernet = perturbed_supernet(torch.float32)
    parameters = dict(supernet.named_parameters())
    optimiser = SGD(parameters, momentum=0.9, weight_decay=0.1, active=supernet.active)
    step(supernet, optimiser, largest())
    step(supernet, optimiser, SPACE.architecture([1, 1, 1, 1, 1, 1, 1]))
    before = {name: value.detach().clone() for name, value in parameters.items()}
    velocity = {name: value.clone() for name, value in optimiser.state_dict().items()}
    smallest = SPACE.architecture([0, 0, 4, 0, 2, 0, 4])
    step(supernet, optimiser, smallest)
    resting = moved = 0
    for name, value in parameters.items():
        used = in_use(supernet, name)
        assert value[~used].equal(before[name][~used]), name
        assert optimiser.state_dict()[name][~used].equal(velocity[name][~used]), name
        resting += int((velocity[name][~used] != 0).sum())
        moved += int((value[used] != before[name][used]).sum())
    assert resting > 1000, "the step before must have left momentum where this one did not go"
    assert moved > 1000


def test_kernel_sizes_have_weights_of_their_own_and_share_the_rest():
    supernet = Supernet(SPACE)
    names = {name for name in supernet.layers if name.startswith("1_")}
    assert names == {"1_expand_1", "1_depthwise_3", "1_depthwise_5", "1_project_1"}
    supernet(torch.randn(2, 3, 16, 16), SPACE.architecture([0, 0, 4, 0, 0, 4, 4]))
    used = {name.split(".")[1] for name in supernet.active}
    assert "1_depthwise_3" in used and "1_depthwise_5" not in used


def test_optimiser_is_torch_sgd_where_everything_is_active():
    weight = torch.nn.Parameter(torch.randn(4, 3))
    reference = torch.nn.Parameter(weight.detach().clone())
    ours = SGD({"weight": weight}, momentum=0.9, weight_decay=0.01, active={})
    theirs = torch.optim.SGD([reference], lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(4):
        for parameter in (weight, reference):
            parameter.grad = parameter.detach().sin()
        ours.step(0.1)
        theirs.step()
    assert torch.allclose(weight, reference, rtol=1e-6)


def test_same_seed_same_weights_other_seed_other_weights():
    one, same, other = (Supernet(SPACE, seed).state_dict() for seed in (0, 0, 1))
    assert all(one[name].equal(same[name]) for name in one)
    assert not one["layers.0_conv_3.weight"].equal(other["layers.0_conv_3.weight"])


def test_more_middle_channels_than_the_supernet_has_are_refused():
    architecture = largest()
    wide = tuple(10_000 for _ in SPACE.layers(architecture))
    with pytest.raises(UsageError, match="10000 middle channels"):
        Supernet(SPACE)(torch.randn(2, 3, 16, 16), Architecture(architecture.choices, wide))


def test_cropped_kernels_are_the_middle_of_the_largest():
    supernet = Supernet(SPACE, crops_kernels=True)
    names = [name for name in supernet.layers if name.startswith("1_")]
    assert names == ["1_expand", "1_depthwise", "1_project"]
    weight = supernet.layers["1_depthwise"].weight
    assert weight.shape[2:] == (5, 5)
    # Kernel 3 and kernel 5 in the first layer, elsewhere the same.
    small = SPACE.architecture([0, 0, 4, 0, 0, 4, 4])
    large = SPACE.architecture([0, 2, 4, 0, 0, 4, 4])
    models = [supernet.extract(architecture) for architecture in (small, large)]
    three, five = (model.layers["1_depthwise"].conv.weight for model in models)
    assert three.shape[2:] == (3, 3)
    assert five.shape[2:] == (5, 5)
    assert torch.equal(three, five[:, :, 1:4, 1:4])
    images = torch.randn(4, 3, 16, 16)
    supernet(images, small).sum().backward()
    assert supernet.active["layers.1_depthwise.weight"][2:] == (slice(1, 4), slice(1, 4))
    outside = weight.grad.clone()
    outside[:, :, 1:4, 1:4] = 0
    assert not outside.any()
    supernet(images, large)
    assert supernet.active["layers.1_depthwise.weight"][2:] == (slice(0, 5), slice(0, 5))
