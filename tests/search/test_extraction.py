"""Extracted networks equal the supernet; scores with recalibrated batch norms."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.errors import LatkitError
from latkit.latency.blocks import MBConv
from latkit.latency.network import block_graph
from latkit.latency.ops import multiply_adds
from latkit.search.data import load_data
from latkit.search.elasticity import architecture_latency, scale
from latkit.search.recalibration import (
    SupernetEvaluator,
    accuracy,
    calibration_batches,
    recalibrate,
)
from latkit.search.relaxed import RelaxedSupernet
from latkit.search.settings import TrainingSettings
from latkit.search.space import Architecture
from latkit.search.spaces.bignas import bignas
from latkit.search.spaces.mobile import MobileSpace, mobile_stage
from latkit.search.spaces.mobilenet_v3 import mobilenet_v3_like
from latkit.search.spaces.nasbench201 import NasBench201Space
from latkit.search.spaces.proxylessnas import proxylessnas
from latkit.search.spaces.scale import Scale
from latkit.search.spaces.tfnas import tfnas
from latkit.search.supernet import Supernet
from latkit.search.trainers.path_dropout import PathDropout
from latkit.search.trainers.supernet import train_supernet
from latkit.search.training import Trainer, set_threads

STAGES = (mobile_stage((8, 16), 2, 1), mobile_stage((16, 24), 3, 2))
SPACE = MobileSpace(10, stages=STAGES, resolution=16, stem_channels=8, hidden_channels=24)
TINY = Scale(width=0.25, resolutions=(16,))
CELLS = NasBench201Space(10, TINY, cells=1)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


@pytest.fixture(scope="module")
def data():
    return load_data(image_size=16)


def scaled(architecture, share):
    """The architecture with this share of its middle channels kept."""
    widths = tuple(
        max(1, int(block.expanded_channels * share)) if isinstance(block, MBConv) else 0
        for block in SPACE.layers(architecture)
    )
    return Architecture(architecture.choices, widths)


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 10_000),
    share=st.sampled_from([None, 0.5, 0.8]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_extracted_network_equals_the_supernet(seed, share, dtype):
    supernet = Supernet(SPACE, seed).to(dtype)
    architecture = SPACE.sample(np.random.default_rng(seed))
    if share is not None:
        architecture = scaled(architecture, share)
    images = torch.randn(5, 3, 16, 16, dtype=dtype)
    model = supernet.extract(architecture)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    with torch.no_grad():
        in_training = supernet(images, architecture)
        assert torch.allclose(model.train()(images), in_training, rtol=tolerance, atol=tolerance)
        recalibrate(model, [torch.randn(8, 3, 16, 16, dtype=dtype) for _ in range(3)])
        found = model(images)
        expected = supernet(images, architecture, dict(model.named_buffers()))
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()
    assert not torch.allclose(found, in_training, rtol=1e-3)


def test_extracted_weights_are_a_copy():
    supernet = Supernet(SPACE)
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    model = supernet.extract(SPACE.sample(np.random.default_rng(0)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert all(value.equal(before[name]) for name, value in supernet.state_dict().items())


def test_scaling_keeps_the_strongest_depthwise_kernels_in_every_layer_they_pass():
    supernet = Supernet(SPACE)
    architecture = SPACE.architecture([1, 1, 4, 0, 2, 4, 4])
    model = supernet.extract(scaled(architecture, 0.5))
    shared = supernet.layers["1_depthwise_3"].weight.detach()
    norms = shared[:48].abs().sum((1, 2, 3)).tolist()
    kept = sorted(sorted(range(48), key=lambda channel: -norms[channel])[:24])
    assert kept != list(range(24))
    expand, depthwise, project = (
        model.layers[f"1_{name}"].conv.weight for name in ("expand", "depthwise", "project")
    )
    assert depthwise.equal(shared[kept])
    assert expand.equal(supernet.layers["1_expand_1"].weight[kept, :8])
    assert project.equal(supernet.layers["1_project_1"].weight[:16, kept])


def test_of_a_cropped_kernel_the_middle_alone_tells_which_channels_are_strongest():
    supernet = Supernet(SPACE, crops_kernels=True)
    architecture = SPACE.architecture([1, 1, 4, 0, 2, 4, 4])
    model = supernet.extract(scaled(architecture, 0.5))
    depthwise = model.layers["1_depthwise"].conv.weight
    assert depthwise.shape[-1] == 3
    shared = supernet.layers["1_depthwise"].weight.detach()
    assert shared.shape[-1] == 5
    norms = shared[:48, :, 1:4, 1:4].abs().sum((1, 2, 3))
    kept = norms.topk(24).indices.sort().values
    assert depthwise.equal(shared[kept, :, 1:4, 1:4])
    assert not kept.equal(shared[:48].abs().sum((1, 2, 3)).topk(24).indices.sort().values)


@pytest.mark.parametrize(
    "space",
    [
        proxylessnas(10, TINY),
        mobilenet_v3_like(10, TINY),
        bignas(10, TINY),
        tfnas(10, TINY),
    ],
    ids=lambda space: space.name,
)
def test_widths_of_any_strategys_architecture_are_scaled_and_its_strongest_channels_extracted(
    space,
):
    supernet = Supernet(space, crops_kernels=space.name == "bignas")
    latency_of = architecture_latency(space, lambda block: float(multiply_adds(block_graph(block))))
    architecture = space.sample(np.random.default_rng(0))
    found = scale(architecture, space, latency_of, 0.8 * latency_of(architecture), 8)
    assert found.expanded_channels is not None
    model = supernet.extract(found)
    whole_network = supernet.extract(architecture)
    narrower = 0
    blocks = space.network(found).blocks
    before = space.network(architecture).blocks
    for number, (block, old) in enumerate(zip(blocks, before, strict=True)):
        if block == old:
            continue
        narrower += 1
        whole = whole_network.layers[f"{number}_depthwise"].conv.weight
        kept = whole.abs().sum((1, 2, 3)).topk(block.expanded_channels).indices.sort().values
        assert model.layers[f"{number}_depthwise"].conv.weight.equal(whole[kept])
    assert narrower >= 2


def test_recalibrated_statistics_are_those_of_the_training_images(data):
    model = Supernet(SPACE).extract(SPACE.sample(np.random.default_rng(1)))
    batches = calibration_batches(data, 4, 32, seed=0)
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_mean.fill_(1e6)
    recalibrate(model, batches)
    values = model.layers["0_conv"].conv(torch.cat(batches))
    found = model.layers["0_conv"].norm
    assert torch.allclose(found.running_mean, values.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    assert torch.allclose(found.running_var, values.var((0, 2, 3)), rtol=0.05)
    assert not model.training and found.momentum == 0.1


def test_calibration_images_are_distinct_training_images(data):
    batches = calibration_batches(data, 4, 32, seed=0)
    assert [len(batch) for batch in batches] == [32] * 4
    rows = {
        image.numpy().tobytes()
        for image in data.inputs(data.train.read(range(len(data.train)))).contiguous()
    }
    drawn = {image.contiguous().numpy().tobytes() for image in torch.cat(batches)}
    assert drawn <= rows and len(drawn) > 120


class Unreadable:
    """Stands where images are that nobody may look at."""

    def __getattr__(self, name):
        raise AssertionError(f"{name} was read")

    def __len__(self):
        raise AssertionError("the images were counted")


def test_statistics_come_from_training_images_alone(data):
    hidden = replace(data, validation=Unreadable(), test=Unreadable())
    evaluator = SupernetEvaluator(Supernet(SPACE), hidden, batches=2)
    architecture = SPACE.sample(np.random.default_rng(0))
    found = evaluator.calibrated(architecture).state_dict()
    plain = SupernetEvaluator(Supernet(SPACE), data, batches=2).calibrated(architecture)
    assert all(value.equal(found[name]) for name, value in plain.state_dict().items())
    with pytest.raises(AssertionError, match="counted"):
        evaluator.accuracy(architecture)


@pytest.mark.parametrize("fails", [False, True])
def test_recalibration_changes_statistics_alone(data, fails):
    model = Supernet(SPACE).extract(SPACE.sample(np.random.default_rng(1)))
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    momenta = [(0.1, 0.03, None)[index % 3] for index in range(len(norms))]
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    before = {name: (value.clone(), value.requires_grad) for name, value in named(model)}
    batches = calibration_batches(data, 2, 32, seed=0)
    if fails:
        with pytest.raises(RuntimeError):
            recalibrate(model, [*batches, torch.zeros(4, 5, 16, 16)])
    else:
        recalibrate(model, batches)
    assert [norm.momentum for norm in norms] == momenta
    assert not any(module.training for module in model.modules())
    for name, value in named(model):
        assert value.equal(before[name][0]) and value.requires_grad == before[name][1]
        assert value.grad is None


def named(model):
    return list(model.named_parameters())


def mobile(data):
    supernet = Supernet(SPACE)
    # Untrained, every network gives one answer to all images, and all scores are equal.
    train_supernet(supernet, data, TrainingSettings(epochs=2))
    return supernet


def relaxed(data):
    supernet = RelaxedSupernet(CELLS)
    settings = TrainingSettings(epochs=2)
    Trainer(supernet, data, settings, subject="relaxed").run(PathDropout(supernet))
    return supernet


@pytest.mark.parametrize("trained", [mobile, relaxed])
def test_score_does_not_depend_on_what_was_scored_before(data, trained):
    supernet = trained(data)
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    active = dict(getattr(supernet, "active", {}))
    modes = [module.training for module in supernet.modules()]
    random = np.random.default_rng(0)
    architectures = [supernet.space.sample(random) for _ in range(4)]

    def evaluator():
        return SupernetEvaluator(supernet, data, batches=2, batch_size=32)

    one, other = evaluator(), evaluator()
    forward = [one.accuracy(architecture) for architecture in architectures]
    backward = [other.accuracy(architecture) for architecture in reversed(architectures)]
    alone = [evaluator().accuracy(architecture) for architecture in architectures]
    assert forward == backward[::-1] == alone
    assert len(set(forward)) > 1
    assert all(value.equal(before[name]) for name, value in supernet.state_dict().items())
    assert dict(getattr(supernet, "active", {})) == active
    assert [module.training for module in supernet.modules()] == modes


def test_accuracy_counts_right_answers_and_refuses_what_is_no_number(data):
    class Oracle(torch.nn.Module):
        def forward(self, images):
            start, self.seen = self.seen, self.seen + len(images)
            labels = data.validation.labels[start : self.seen].clone()
            labels[:3] = (labels[:3] + 1) % 10  # three wrong answers in each batch
            return torch.nn.functional.one_hot(labels, 10).float()

    oracle = Oracle()
    oracle.seen = 0
    count = len(data.validation)
    batches = -(-count // 64)
    assert accuracy(oracle, data, data.validation) == pytest.approx(1 - 3 * batches / count)
    broken = Supernet(SPACE).extract(SPACE.sample(np.random.default_rng(0)))
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    with pytest.raises(LatkitError, match="diverged"):
        accuracy(broken, data, data.validation)
