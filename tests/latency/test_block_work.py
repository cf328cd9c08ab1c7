"""Multiply-adds, FLOPs and parameters of every kind of block, against sums written out by hand."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from latkit.latency import blocks
from latkit.latency.blocks import BLOCK_KINDS, Block
from latkit.latency.counts import block_counts
from latkit.latency.network import block_graph
from latkit.latency.ops import multiply_adds
from latkit.latency.torch_model import TorchModel


@dataclass(frozen=True)
class Work:
    """What a block costs, by hand.

    `products`: multiply-adds of convolutions and linear layers. `scaled`: values that a gate
    multiplies; papers count each as a multiply-add, `Counts` as one FLOP. `others`: FLOPs of the
    rest, which papers leave out. `weights`: everything trained but the scale and shift of the
    `normed` channels, whose batch norms the exported form folds to a bias, and but the `clips`,
    which are scalars there.
    """

    block: Block
    products: int = 0
    scaled: int = 0
    others: int = 0
    weights: int = 0
    normed: int = 0
    clips: int = 0


WORK = [
    Work(
        blocks.ConvBlock(3, 16, 12, out_channels=8, stride=2),
        products=(8 * 3 * 3 * 3) * (8 * 6),
        others=8 * 8 * 6,  # the activation
        weights=8 * 3 * 3 * 3,
        normed=8,
    ),
    Work(
        blocks.Depthwise(12, 9, 8, kernel=5, stride=2, activation="none"),
        products=(12 * 1 * 5 * 5) * (5 * 4),
        weights=12 * 1 * 5 * 5,
        normed=12,
    ),
    Work(
        blocks.Pointwise(6, 5, 7, out_channels=10, activation="relu"),
        products=(10 * 6) * (5 * 7),
        others=10 * 5 * 7,
        weights=10 * 6,
        normed=10,
    ),
    Work(
        blocks.MBConv(8, 6, 5, out_channels=8, expanded_channels=24),
        products=(24 * 8 + 24 * 3 * 3 + 8 * 24) * (6 * 5),
        others=(24 + 24) * (6 * 5) + 8 * 6 * 5,  # two activations and the residual
        weights=24 * 8 + 24 * 3 * 3 + 8 * 24,
        normed=24 + 24 + 8,
    ),
    Work(  # no expansion, and no residual; 8 squeezed channels
        blocks.MBConv(
            *(16, 8, 8), out_channels=12, expanded_channels=16, stride=2, squeeze_excite=True
        ),
        products=(16 * 3 * 3) * (4 * 4) + 8 * 16 + 16 * 8 + (12 * 16) * (4 * 4),
        scaled=16 * 4 * 4,
        others=16 * 4 * 4 + 16 * 4 * 4 + 8 + 16,  # activation, mean, ReLU, hard sigmoid
        weights=16 * 3 * 3 + (8 * 16 + 8) + (16 * 8 + 16) + 12 * 16,
        normed=16 + 12,
    ),
    Work(blocks.Pooling(4, 8, 6), others=(4 * 4 * 3) * (3 * 3)),
    Work(
        blocks.LinearBlock(in_features=20, out_features=10),
        products=20 * 10,
        weights=20 * 10 + 10,
    ),
    Work(blocks.Skip(4, 8, 6)),
    Work(blocks.Sum(4, 8, 6), others=4 * 8 * 6),
    Work(
        blocks.Head(8, 4, 3, hidden_channels=32, classes=10),
        products=(32 * 8) * (4 * 3) + 32 * 10,
        others=32 * 4 * 3 + 32 * 4 * 3,  # activation and mean
        weights=32 * 8 + (32 * 10 + 10),
        normed=32,
    ),
    Work(
        blocks.PooledHead(8, 4, 3, hidden_channels=24, pooled_features=32, classes=10),
        products=(24 * 8) * (4 * 3) + 24 * 32 + 32 * 10,
        others=24 * 4 * 3 + 24 * 4 * 3 + 32,  # activation, mean, activation
        weights=24 * 8 + (24 * 32 + 32) + (32 * 10 + 10),
        normed=24,
    ),
    Work(  # 8 channels pass; the other 8 become 16
        blocks.ShuffleUnit(16, 8, 7, out_channels=24, middle_channels=12, kernel=5),
        products=(12 * 8 + 12 * 5 * 5 + 16 * 12) * (8 * 7),
        others=(12 + 16) * (8 * 7),
        weights=12 * 8 + 12 * 5 * 5 + 16 * 12,
        normed=12 + 12 + 16,
    ),
    Work(  # both branches read all 16 channels; the main one gives 24
        blocks.ShuffleUnit(16, 8, 6, out_channels=40, middle_channels=12, stride=2),
        products=(12 * 16) * (8 * 6)
        + (12 * 3 * 3 + 24 * 12) * (4 * 3)  # main
        + (16 * 3 * 3 + 16 * 16) * (4 * 3),
        others=12 * 8 * 6 + (24 + 16) * (4 * 3),
        weights=(12 * 16 + 12 * 3 * 3 + 24 * 12) + (16 * 3 * 3 + 16 * 16),
        normed=(12 + 12 + 24) + (16 + 16),
    ),
    Work(
        blocks.ShuffleXception(16, 8, 7, out_channels=24, middle_channels=12),
        products=(8 * 9 + 12 * 8 + 12 * 9 + 12 * 12 + 12 * 9 + 16 * 12) * (8 * 7),
        others=(12 + 12 + 16) * (8 * 7),
        weights=8 * 9 + 12 * 8 + 12 * 9 + 12 * 12 + 12 * 9 + 16 * 12,
        normed=8 + 12 + 12 + 12 + 12 + 16,
    ),
    Work(
        blocks.ShuffleXception(8, 8, 6, out_channels=20, middle_channels=6, stride=2),
        products=(8 * 9 + 6 * 8 + 6 * 9 + 6 * 6 + 6 * 9 + 12 * 6) * (4 * 3)  # main
        + (8 * 9 + 8 * 8) * (4 * 3),
        others=(6 + 6 + 12 + 8) * (4 * 3),
        weights=(8 * 9 + 6 * 8 + 6 * 9 + 6 * 6 + 6 * 9 + 12 * 6) + (8 * 9 + 8 * 8),
        normed=(8 + 6 + 6 + 6 + 6 + 12) + (8 + 8),
    ),
    Work(
        blocks.CellConv(8, 9, 7, out_channels=16, kernel=3, stride=2),
        products=(16 * 8 * 3 * 3) * (5 * 4),
        others=8 * 9 * 7,
        weights=16 * 8 * 3 * 3,
        normed=16,
    ),
    Work(
        blocks.LooseEnd(6, 5, 7, out_channels=10),
        products=(10 * 6) * (5 * 7),
        others=6 * 5 * 7,
        weights=10 * 6,
    ),
    Work(
        blocks.FactorisedConv(8, 10, 6, out_channels=12, kernel=7, stride=2),
        products=(12 * 8 * 1 * 7 + 12 * 12 * 7 * 1) * (5 * 3),
        others=8 * 10 * 6 + 12 * 5 * 3,
        weights=12 * 8 * 1 * 7 + 12 * 12 * 7 * 1,
        normed=12 + 12,
    ),
    Work(
        blocks.SeparableConv(8, 10, 6, out_channels=12, kernel=5, stride=2),
        products=(8 * 5 * 5 + 8 * 8 + 8 * 5 * 5 + 12 * 8) * (5 * 3),
        others=8 * 10 * 6 + 8 * 5 * 3,
        weights=8 * 5 * 5 + 8 * 8 + 8 * 5 * 5 + 12 * 8,
        normed=8 + 12,
    ),
    Work(
        blocks.SeparableConv(8, 10, 6, out_channels=12, kernel=3, dilation=2, repeats=1),
        products=(8 * 3 * 3 + 12 * 8) * (10 * 6),
        others=8 * 10 * 6,
        weights=8 * 3 * 3 + 12 * 8,
        normed=12,
    ),
    Work(
        blocks.FactorisedReduce(8, 8, 6, out_channels=20),
        products=(10 * 8 + 10 * 8) * (4 * 3),
        others=8 * 8 * 6,
        weights=10 * 8 + 10 * 8,
        normed=10 + 10,
    ),
    Work(
        blocks.ResidualReduction(8, 8, 6, out_channels=12),
        products=(12 * 8 * 9 + 12 * 12 * 9 + 12 * 8) * (4 * 3),
        # ReLU before and between, 2x2 averages, and the sum
        others=8 * 8 * 6 + 12 * 4 * 3 + (8 * 4 * 3) * (2 * 2) + 12 * 4 * 3,
        weights=12 * 8 * 9 + 12 * 12 * 9 + 12 * 8,
        normed=12 + 12,
    ),
    Work(
        blocks.BottleneckConv(8, 9, 7, out_channels=12, kernel=5),
        products=(12 * 8 + 12 * 12 * 5 * 5) * (9 * 7),
        others=(12 + 12) * (9 * 7),
        weights=12 * 8 + 12 * 12 * 5 * 5,
        normed=12 + 12,
    ),
    Work(
        blocks.BottleneckConv(8, 9, 7, out_channels=12, separable=True),
        products=(12 * 8 + 12 * 3 * 3 + 12 * 12) * (9 * 7),
        others=(12 + 12) * (9 * 7),
        weights=12 * 8 + 12 * 3 * 3 + 12 * 12,
        normed=12 + 12,
    ),
    Work(
        blocks.BottleneckPool(8, 9, 7, out_channels=12, pool="average"),
        products=(12 * 8) * (9 * 7),
        others=12 * 9 * 7 + (12 * 9 * 7) * (3 * 3),
        weights=12 * 8,
        normed=12,
    ),
    Work(blocks.Nothing(4, 8, 6), others=4 * 8 * 6),  # exported as a product with 0
    Work(blocks.SumOf(4, 8, 6, inputs=3), others=2 * (4 * 8 * 6)),
    Work(  # a batch norm of its own stays a scale and a shift
        blocks.SumOf(4, 8, 6, inputs=2, norm=True),
        others=4 * 8 * 6 + 2 * (4 * 8 * 6),
        weights=4 + 4,
    ),
    Work(blocks.ConcatOf(4, 8, 6, inputs=3)),
    Work(blocks.PaddedConcat(shapes=((4, 8, 6), (2, 5, 6)))),
    Work(
        blocks.RectangularConv(6, 9, 8, out_channels=10, kernel_height=5, kernel_width=1, stride=2),
        products=(10 * 6 * 5 * 1) * (5 * 4),
        others=10 * 5 * 4,
        weights=10 * 6 * 5 * 1,
        normed=10,
    ),
    Work(  # clip, multiply, round, multiply; then the sum and its ReLU
        blocks.QuantisedResidual(8, 9, 7, out_channels=12, stride=2, weight_bits=2),
        products=(12 * 8 * 3 * 3 + 12 * 12 * 3 * 3 + 12 * 8) * (5 * 4),
        others=4 * (8 * 9 * 7) + 4 * (12 * 5 * 4) + 2 * (12 * 5 * 4),
        weights=12 * 8 * 3 * 3 + 12 * 12 * 3 * 3 + 12 * 8,
        normed=3 * 12,
        clips=2,
    ),
    Work(
        blocks.Classifier(8, 5, 4, classes=10, norm=True),
        products=8 * 10,
        others=2 * (8 * 5 * 4) + 8 * 5 * 4 + 8 * 5 * 4,  # scale and shift, ReLU, mean
        weights=(8 + 8) + (8 * 10 + 10),
    ),
]


def every_work(test):
    return pytest.mark.parametrize("work", WORK, ids=lambda work: str(work.block))(test)


def test_every_kind_of_block_has_its_work_written_out():
    assert {type(work.block).__name__ for work in WORK} == set(BLOCK_KINDS)


@every_work
def test_multiply_adds_are_those_by_hand(work):
    assert multiply_adds(block_graph(work.block)) == work.products + work.scaled


@every_work
def test_flops_are_two_a_product_and_one_a_value_otherwise(work):
    assert block_counts(work.block).flops == 2 * work.products + work.scaled + work.others


@every_work
def test_parameters_are_those_by_hand_in_training_and_in_export(work):
    trained = sum(values.numel() for values in TorchModel(work.block).parameters())
    assert trained == work.weights + 2 * work.normed + work.clips
    assert block_counts(work.block).parameters == work.weights + work.normed
