"""What a supernet shares: channels layer by layer, operations of a layer, and averaged layers."""

import pytest
import torch
from latkit.devices.errors import UsageError
from latkit.latency.ops import Conv, Linear
from latkit.latency.torch_model import TorchModel, activate
from latkit.search.spaces.heads import mobilenet_v3_head
from latkit.search.spaces.layers import Properties
from latkit.search.spaces.staged import Stage, StagedSpace, Stem
from latkit.search.supernet import Supernet
from latkit.search.training import set_threads
from torch.func import functional_call
from torch.nn import functional

LAYERS = Properties(kernels=(3, 5), expansions=(2, 6), squeeze_excite=(False, True))
SPACE = StagedSpace(
    "shared",
    resolutions=(8,),
    stem=Stem((8, 16), 1),
    stages=[
        Stage((8, 16), 2, 1, LAYERS, activation="hard_swish"),
        Stage((16,), 2, 2, LAYERS, may_skip=True),
    ],
    head_widths={"head.hidden.width": (16, 24), "head.pooled.width": (8, 16)},
    make_head=mobilenet_v3_head(4),
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


def architecture_of(chosen):
    """The first option everywhere, but for those given by the name of their choice."""
    options = [0] * len(SPACE.choices)
    for name, option in chosen.items():
        position = SPACE.position(name)
        options[position] = SPACE.choices[position].options.index(option)
    return SPACE.architecture(options)


def perturbed_supernet():
    """A supernet whose biases and batch norms are not at their neutral initial values."""
    supernet = Supernet(SPACE, seed=1).double()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=random).double())
    return supernet


NARROW = {f"stage{n}.layer1.squeeze_excite": True for n in (1, 2)}
"""The smallest widths and expansions, with squeeze-excite so that there are all kinds of layers."""


def masked(shared, op, value, outputs):
    """The layer at full width, reading zeros where there is no input, times zeros at the end."""
    weight = shared.weight
    depthwise = isinstance(op, Conv) and op.groups > 1
    missing = (len(weight) if depthwise else weight.shape[1]) - value.shape[1]
    value = functional.pad(value, (*(0, 0) * (value.ndim - 2), 0, missing))
    if isinstance(op, Linear):
        value = functional.linear(value, weight, shared.bias)
    else:
        groups = len(weight) if depthwise else 1
        value = functional.conv2d(value, weight, shared.bias, op.stride, op.padding, groups=groups)
        if shared.norm_weight is not None:
            gain, shift = shared.norm_weight, shared.norm_bias
            value = functional.batch_norm(value, None, None, gain, shift, training=True)
        value = activate(op.activation, value)
    mask = (torch.arange(len(weight)) < outputs).to(value.dtype)
    return value * mask.view(-1, *[1] * (value.ndim - 2))


@pytest.mark.parametrize(
    ("kind", "narrower"),
    [
        ("conv", 2),
        ("expand", 4),
        ("depthwise", 4),
        ("squeeze", 2),
        ("excite", 2),
        ("project", 4),
        ("pooled", 1),
        ("classifier", 1),
    ],
)
def test_sliced_layer_is_the_masked_one_in_values_and_gradients(kind, narrower):
    """Of each kind of layer; `narrower` of them use a part of their weight."""
    supernet = perturbed_supernet()
    architecture = architecture_of(NARROW)
    model = TorchModel(SPACE.network(architecture)).double().train()
    ops = {
        f"{node.prefix.replace('.', '_')}{node.op.name}": node.op
        for node in model.graph.nodes
        if isinstance(node.op, Conv | Linear)
    }
    tried = 0
    for layer in supernet.lent_layers(architecture, model):
        op, shared = ops[layer.name], supernet.layers[layer.shared]
        if op.name != kind:
            continue
        linear = isinstance(op, Linear)
        inputs, outputs = (
            (op.in_features, op.out_features) if linear else (op.in_channels, op.out_channels)
        )
        value = torch.randn(5, inputs, *() if linear else (6, 6), dtype=torch.float64)
        own = {
            name.removeprefix(f"layers.{layer.name}."): weight
            for name, weight in supernet.weights([layer]).items()
        }
        found = functional_call(model.layers[layer.name], own, (value,))
        whole = masked(shared, op, value, outputs)
        assert not whole[:, outputs:].any()
        torch.testing.assert_close(found, whole[:, :outputs], rtol=1e-9, atol=1e-11)
        parameters = dict(shared.named_parameters())
        one, other = (
            torch.autograd.grad(result.square().sum(), parameters.values())
            for result in (found, whole)
        )
        for name, sliced, full in zip(parameters, one, other, strict=True):
            torch.testing.assert_close(sliced, full, rtol=1e-8, atol=1e-10, msg=name)
        tried += outputs < len(shared.weight) or inputs < shared.weight.shape[1]
    assert tried >= narrower


def test_operations_of_a_layer_share_their_1x1_convolutions_and_nothing_between_kernels():
    supernet = perturbed_supernet()
    small = architecture_of({})
    large = architecture_of({"stage1.layer1.kernel": 5, "stage1.layer1.expansion": 6})
    lent = {}
    for architecture in (small, large):
        layers = supernet.lent_layers(architecture, TorchModel(SPACE.network(architecture)))
        lent[architecture] = {
            layer.shared: supernet.weights([layer])
            for layer in layers
            if layer.shared.startswith("1_")
        }
    shared = set(lent[small]) & set(lent[large])
    assert shared == {"1_expand_1", "1_project_1"}
    assert set(lent[small]) ^ set(lent[large]) == {"1_depthwise_3", "1_depthwise_5"}
    for name in shared:
        for key, weight in lent[small][name].items():
            first = tuple(slice(0, size) for size in weight.shape)
            assert torch.equal(lent[large][name][key][first], weight)
    supernet(torch.randn(4, 3, 8, 8).double(), small).square().sum().backward()
    layers = supernet.layers
    middle = len(layers["1_depthwise_3"].weight)
    assert layers["1_expand_1"].weight.grad[:16].any()
    assert not layers["1_expand_1"].weight.grad[16:].any() and middle == 96
    assert layers["1_depthwise_3"].weight.grad is not None
    assert layers["1_depthwise_5"].weight.grad is None


def blocks_of(model, value, first, last):
    """A part of a chain of blocks, run by itself: those from `first` up to `last`, not with it."""
    values, read = {}, None
    for index, node in enumerate(model.graph.nodes):
        block = int(node.prefix.split(".")[0])
        if first <= block < last:
            if read is None:
                read = node.inputs[0]
                values[read] = value
            values[index + 1] = value = model._run(node, [values[i] for i in node.inputs])
    return value


KERNELS = [{"stage2.layer2": "keep", "stage2.layer2.kernel": kernel} for kernel in (3, 5)]
SKIPPED = {"stage2.layer2": "skip"}


@pytest.mark.parametrize(
    ("names", "candidates"),
    [
        (["stage2.layer2"], [KERNELS[0], SKIPPED]),
        (["stage2.layer2.kernel"], KERNELS),
        # Whether the layer is kept is chosen first: it is left out half of the time.
        (["stage2.layer2", "stage2.layer2.kernel"], [*KERNELS, SKIPPED, SKIPPED]),
        (
            ["stage2.layer2.squeeze_excite"],
            [KERNELS[0], KERNELS[0] | {"stage2.layer2.squeeze_excite": True}],
        ),
    ],
    ids=lambda given: "+".join(given) if isinstance(given[0], str) else "",
)
def test_averaged_layer_is_the_mean_of_its_candidates_run_apart(names, candidates):
    supernet = perturbed_supernet()
    images = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    architecture = architecture_of({"stage1.layer2.kernel": 5})
    outputs = []
    for chosen in candidates:
        model = supernet.extract(architecture_of({"stage1.layer2.kernel": 5, **chosen})).train()
        before = blocks_of(model, images, 0, 4)
        outputs.append(before if chosen == SKIPPED else blocks_of(model, before, 4, 5))
    whole = supernet.extract(architecture).train()
    with torch.no_grad():
        expected = blocks_of(whole, torch.stack(outputs).mean(0), 5, 6)
        found = supernet(images, architecture, averaged=[SPACE.position(name) for name in names])
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
    assert not torch.allclose(found, supernet(images, architecture), rtol=1e-3)


def test_averaging_trains_every_candidate():
    supernet = perturbed_supernet()
    architecture = architecture_of({})
    averaged = [SPACE.position("stage1.layer1.kernel")]
    supernet(torch.randn(4, 3, 8, 8).double(), architecture, averaged=averaged).sum().backward()
    for kernel in (3, 5):
        name = f"1_depthwise_{kernel}"
        assert supernet.layers[name].weight.grad[:16].any()
        assert supernet.active[f"layers.{name}.weight"][0] == slice(0, 16)
    assert supernet.layers["2_depthwise_5"].weight.grad is None


def test_averaging_over_a_layer_that_is_off_changes_nothing():
    supernet = perturbed_supernet()
    images = torch.randn(4, 3, 8, 8).double()
    architecture = architecture_of(SKIPPED)
    averaged = [SPACE.position("stage2.layer2.kernel")]
    torch.testing.assert_close(
        supernet(images, architecture, averaged=averaged), supernet(images, architecture)
    )


def test_averaged_candidates_have_no_statistics_of_one_architecture():
    with pytest.raises(UsageError, match="batch's statistics"):
        Supernet(SPACE)(torch.randn(4, 3, 8, 8), architecture_of({}), {}, averaged=[0])


def test_candidates_of_different_shapes_have_no_mean():
    width = SPACE.position("stem.width")
    with pytest.raises(UsageError, match="different shapes"):
        Supernet(SPACE)(torch.randn(4, 3, 8, 8), architecture_of({}), averaged=[width])
