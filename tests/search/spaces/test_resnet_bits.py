"""The mixed-precision space: published sizes, shared weights, clip values of their own, BitOps."""

import numpy as np
import onnx
import pytest
import torch
from latkit.devices.errors import LatkitError, UsageError
from latkit.latency.bit_operations import bit_operations
from latkit.latency.blocks import ConvBlock, Pooling
from latkit.latency.cost import lay_out
from latkit.latency.network import block_graph
from latkit.latency.ops import multiply_adds
from latkit.latency.quantisers import Quantiser
from latkit.latency.torch_model import TorchModel
from latkit.search import export as export_module
from latkit.search.data import load_data
from latkit.search.learning import learn
from latkit.search.loading import BatchLoader
from latkit.search.recalibration import SupernetEvaluator
from latkit.search.settings import TrainingSettings
from latkit.search.sgd import SGD
from latkit.search.spaces import SMALL_IMAGES, Scale, resnet_bits
from latkit.search.spaces.resnet_bits import BITS
from latkit.search.strategies.evolution import Evolution
from latkit.search.supernet import Supernet
from latkit.search.trainers.single_path import SinglePath
from latkit.search.training import Trainer, set_threads
from onnx import numpy_helper

SPACE = resnet_bits(10, Scale(width=0.125, resolutions=(8,), unit_strides=2))

STEM, LAST = 7 * 7 * 3 * 64 * 112**2, 512 * 1000
WIDE = 3 * 3 * 64 * 64 * 56**2
"""Multiply-adds of a 3x3 convolution within any stage; one that halves the size has half."""
MATCH = 64 * 128 * 28**2


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


@pytest.fixture(scope="module")
def data():
    return load_data(image_size=8)


def all_of(space, bits):
    return space.architecture([[*BITS].index(bits)] * len(space.choices))


def weights(network):
    """Parameters without clip values."""
    module = TorchModel(network)
    clips = sum(isinstance(layer, Quantiser) for layer in module.modules())
    return sum(parameter.numel() for parameter in module.parameters()) - clips


@pytest.mark.parametrize(
    ("depth", "blocks", "billion", "million"),
    [(18, (2, 2, 2, 2), 1.814, 11.69), (34, (3, 4, 6, 3), 3.664, 21.80)],
)
def test_networks_are_resnets(depth, blocks, billion, million):
    """He et al. 2016, table 1: 1.8 and 3.6 billion multiply-adds."""
    space = resnet_bits(depth=depth)
    assert space.size() == 6 ** sum(blocks)
    network = space.network(all_of(space, "w4 a4"))
    inside = 2 * sum(blocks) * WIDE + 3 * (MATCH - WIDE // 2)
    assert multiply_adds(network.graph()) == STEM + inside + LAST
    assert multiply_adds(network.graph()) / 1e9 == pytest.approx(billion, abs=5e-4)
    assert weights(network) / 1e6 == pytest.approx(million, abs=5e-3)


def test_other_depths_are_refused():
    with pytest.raises(UsageError, match="50 layers"):
        resnet_bits(depth=50)


def test_small_images_keep_their_size_in_the_stem():
    stem, *rest = resnet_bits(10, SMALL_IMAGES).blocks()
    assert isinstance(stem, ConvBlock) and (stem.kernel, stem.stride) == (3, 1)
    assert not any(isinstance(block, Pooling) for block in rest)
    stem, pool, *_ = resnet_bits().blocks()
    assert (stem.kernel, stem.stride) == (7, 2)
    assert pool == Pooling(64, 112, 112, pool="max", kernel=3, stride=2)


def test_bit_operations_price_the_space():
    space = resnet_bits()
    cost = lay_out(space, lambda block: float(bit_operations(block_graph(block))))
    inside = 16 * WIDE + 3 * (MATCH - WIDE // 2)
    full = (STEM + LAST) * 32 * 32
    assert cost.minimum() == (full + inside * 1 * 2, all_of(space, "w1 a2").choices)
    assert cost.maximum() == (full + inside * 4 * 4, all_of(space, "w4 a4").choices)
    target = full + inside * 2 * 2
    search = Evolution(space, cost, target, population=10, rounds=2, parents=5)
    asked = search.ask(10)
    assert len(set(asked)) == 10
    assert max(cost.latency_ms(space.encode(asked))) <= target


def test_bits_share_weights_and_each_activation_width_has_its_clip_value():
    supernet = Supernet(SPACE)
    names = {name for name in supernet.layers if name.startswith("1_")}
    clips = {"1_read_2", "1_read_4", "1_middle_2", "1_middle_4"}
    assert names == clips | {"1_first_3", "1_second_3"}
    coarse, fine = (supernet.extract(all_of(SPACE, bits)) for bits in ("w1 a4", "w4 a4"))
    one, other = (model.layers["1_first"].conv for model in (coarse, fine))
    assert one.weight.equal(other.weight) and one.weight.equal(supernet.layers["1_first_3"].weight)
    assert len(one.used_weight().unique()) == 2
    assert 4 < len(other.used_weight().unique()) <= 16


def test_a_step_moves_the_clip_values_of_the_bits_that_it_took(data):
    supernet = Supernet(SPACE)
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():
            if name.endswith(".clip"):
                parameter.fill_(0.5)  # low enough for values to be clipped
    before = {name: value.detach().clone() for name, value in supernet.named_parameters()}
    settings = TrainingSettings(epochs=1, batch_size=16, warmup_share=0, weight_decay=0)
    trainer = Trainer(supernet, data, settings, subject="bits")
    loss = trainer.step(SinglePath(supernet))
    assert np.isfinite(loss)
    taken = {name for name in supernet.active if name.endswith(".clip")}
    for block in range(1, 9):
        for place in ("read", "middle"):
            both = {f"layers.{block}_{place}_{bits}.clip" for bits in (2, 4)}
            assert len(both & taken) == 1
    assert {name[-6] for name in taken} == {"2", "4"}, "this step's path has both"
    for name, value in supernet.named_parameters():
        rests = name.endswith(".clip") and name not in taken
        assert value.equal(before[name]) == rests, name


def test_few_bits_learn_a_batch(data):
    supernet = Supernet(SPACE)
    settings = TrainingSettings(epochs=1, batch_size=16, learning_rate=0.05, label_smoothing=0)
    batch = BatchLoader(data, 1, 16, seed=0, shift=0, flip=False, label_smoothing=0).batch(0)
    trainer = Trainer(supernet, data, settings, subject="bits")
    taken = all_of(SPACE, "w2 a4")

    def one_path(batch):
        return learn(batch.loss(supernet(batch.inputs, taken)))

    losses = [trainer.step(one_path, batch) for _ in range(25)]
    assert losses[-1] < losses[0] / 3


def test_export_bears_values_that_are_rounded_the_other_way_and_no_other_network(
    data, tmp_path, monkeypatch
):
    evaluator = SupernetEvaluator(Supernet(SPACE), data, batches=2)
    model = evaluator.calibrated(all_of(SPACE, "w4 a4"))

    def spoil(images):
        """Other outputs for so many images, as if something in them had been rounded otherwise."""
        run = export_module._run_onnx

        def run_otherwise(*given):
            logits = run(*given)
            logits[:images] *= 1.3
            return logits

        monkeypatch.setattr(export_module, "_run_onnx", run_otherwise)

    spoil(5)
    exported = export_module.export(model, data, tmp_path / "few")
    assert max(exported.differences.values()) < 0.05
    weights = [item for item in onnx.load(exported.onnx).graph.initializer if len(item.dims) == 4]
    levels = [len(np.unique(row)) for item in weights[1:] for row in numpy_helper.to_array(item)]
    assert len(levels) > 100 and max(levels) <= 16
    spoil(12)
    with pytest.raises(LatkitError, match=r"onnxruntime gives other outputs.*0\.05 is allowed"):
        export_module.export(model, data, tmp_path / "most")
    assert not (tmp_path / "most").exists()


def test_weight_decay_reaches_clip_values():
    quantiser = Quantiser(4)
    optimiser = SGD(dict(quantiser.named_parameters()), momentum=0, weight_decay=0.1, active={})
    quantiser(torch.zeros(1, 2, 3, 3)).sum().backward()
    optimiser.step(0.5)
    assert quantiser.clip.item() == pytest.approx(6 * (1 - 0.1 * 0.5))
