"""Relaxed supernets of staged spaces: operations and depths, weighted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from latkit.devices.errors import UsageError
from latkit.search.data import at_resolution, load_data
from latkit.search.export import export
from latkit.search.recalibration import calibration_batches, recalibrate
from latkit.search.relaxed import RelaxedSupernet
from latkit.search.spaces.layers import OneOf, Operation, Properties
from latkit.search.spaces.mobilenet_v3 import mobilenet_v3_like
from latkit.search.spaces.proxylessnas import proxylessnas
from latkit.search.spaces.scale import Scale
from latkit.search.spaces.tfnas import tfnas
from latkit.search.training import set_threads
from staged_cases import one_hot, small_space

SMALL = small_space()
SPACES = {
    "operations": SMALL,
    "one depth": small_space(layers=2, depths=(2,)),
    "some depths": small_space(layers=4, depths=(2, 4)),
    "one operation": small_space(choices=OneOf((Operation(3, 3),))),
    "properties": small_space(choices=Properties((3, 5), (3, 6), (False, True))),
    "alike": small_space(alike=True),
    "tfnas": tfnas(10, Scale(width=0.1, resolutions=(16,))),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


def images_of(space, count=4):
    generator = torch.Generator().manual_seed(0)
    size = space.resolutions[0]
    return torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64)


def batches_seen(supernet):
    """How many batches the batch norms of each candidate have seen."""
    return {
        name: max(int(v) for key, v in item.state_dict().items() if key.endswith("tracked"))
        for name, item in supernet.candidates.items()
    }


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_one_operation_and_depth_alone_are_the_architectures_network(space):
    supernet = RelaxedSupernet(space, seed=1).double().train()
    random = np.random.default_rng(0)
    for _ in range(3):
        architecture = space.sample(random)
        model = supernet.extract(architecture).train()
        found = supernet(images_of(space), one_hot(supernet, architecture))
        expected = model(images_of(space))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
        again = supernet.extract(architecture).state_dict()
        for name, value in model.state_dict().items():
            torch.testing.assert_close(again[name], value, rtol=1e-10, atol=1e-20)


def test_a_scaled_architecture_is_the_narrowed_supernets():
    supernet = RelaxedSupernet(SMALL, seed=1).double().train()
    architecture = SMALL.architecture([len(choice.options) - 1 for choice in SMALL.choices])
    modules = supernet.layers(architecture)
    assert len(modules) == 6
    for module in modules:
        module.narrow(module.block.expanded_channels - 8)
    widths = tuple(module.block.expanded_channels for module in modules)
    scaled = replace(architecture, expanded_channels=widths)
    model = supernet.extract(scaled).train()
    found = supernet(images_of(SMALL), one_hot(supernet, architecture))
    torch.testing.assert_close(found, model(images_of(SMALL)), rtol=1e-10, atol=1e-10)
    again = supernet.extract(scaled).state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(again[name], value, rtol=1e-10, atol=1e-20)
    # With the operations that another architecture has, nothing was narrowed.
    other = SMALL.architecture([0, 0, 0, 2, 0, 0, 0])
    kept = [module.kept for module in supernet.layers(other)[1:] if module is not None]
    assert kept == [None] * 4


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_the_strongest_operations_and_depths_are_kept(space):
    supernet = RelaxedSupernet(space)
    random = np.random.default_rng(1)
    for _ in range(10):
        architecture = space.sample(random)
        weights = {
            name: np.array(vector) + random.random(len(vector))
            for name, vector in one_hot(supernet, architecture).items()
        }
        assert space.discretise(weights) == architecture


def test_a_path_runs_one_operation_of_each_layer_that_is_kept():
    supernet = RelaxedSupernet(SMALL).double().train()
    weights = {name: [0.0, 1.0, 0.0] for name in supernet.counts}
    supernet(images_of(SMALL), weights | {"stage2.depth": [1.0, 0.0], "stage3.depth": [0, 0.5, 0]})
    ran = {name for name, seen in batches_seen(supernet).items() if seen}
    # The stem, the first stage, one layer of the second, two of the third, the head.
    assert ran == {"0_0", "1_0", "2_1", "4_1", "5_1", "7_0"}


def test_a_sink_is_the_weighted_sum_of_its_stages_layers():
    supernet = RelaxedSupernet(SMALL).double().train()
    path = one_hot(supernet, SMALL.architecture([0] * len(SMALL.choices)))
    values = {}
    for name, candidate in supernet.candidates.items():
        candidate.register_forward_hook(
            lambda _, read, given, name=name: values.update({name: (read[0], given)})
        )
    depths = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    supernet(images_of(SMALL), path | {"stage2.depth": [0.5, 0.5], "stage3.depth": depths})
    expected = sum(
        share * values[name][1] for share, name in zip(depths, ("4_0", "5_0", "6_0"), strict=True)
    )
    torch.testing.assert_close(values["7_0"][0], expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(values["5_0"][0], values["4_0"][1])


def test_a_stage_without_a_depth_is_refused():
    supernet = RelaxedSupernet(SMALL).double()
    path = one_hot(supernet, SMALL.architecture([0] * len(SMALL.choices)))
    with pytest.raises(UsageError, match=r"stage2\.depth"):
        supernet(images_of(SMALL), path | {"stage2.depth": [0.0, 0.0]})


@pytest.mark.parametrize(
    ("space", "choice"),
    [(mobilenet_v3_like(), r"stem\.width"), (proxylessnas(), r"stage2\.layer2")],
    ids=["widths", "skips"],
)
def test_what_cannot_be_weighted_is_refused(space, choice):
    with pytest.raises(UsageError, match=choice):
        RelaxedSupernet(space)


def test_an_architecture_of_the_supernet_is_exported(tmp_path):
    data = load_data(image_size=8)
    supernet = RelaxedSupernet(SMALL)
    model = supernet.extract(SMALL.sample(np.random.default_rng(0)))
    recalibrate(model, calibration_batches(data, 2, 64, 0))
    exported = export(model, data, tmp_path)
    assert exported.onnx.exists() and exported.tflite.exists()


def test_images_are_brought_to_the_resolution_that_the_space_reads():
    supernet = RelaxedSupernet(SMALL).double().eval()
    larger = torch.randn(2, 3, 12, 10, dtype=torch.float64)
    weights = {name: [1.0] * count for name, count in supernet.counts.items()}
    assert torch.equal(supernet(larger, weights), supernet(at_resolution(larger, (8, 8)), weights))
