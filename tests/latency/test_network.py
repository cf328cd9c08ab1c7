import numpy as np
import onnx
import pytest
from latkit.devices.errors import UsageError
from latkit.latency.blocks import (
    ConvBlock,
    Head,
    LinearBlock,
    MBConv,
    Pointwise,
    Pooling,
    Skip,
    Sum,
)
from latkit.latency.network import INPUT, Network, NetworkNode
from latkit.latency.onnx_model import build_onnx, parameter_shapes, random_parameters
from latkit.latency.torch_model import TorchModel

STEM = ConvBlock(in_channels=3, height=16, width=16, out_channels=8, stride=2)
BODY = MBConv(in_channels=8, height=8, width=8, out_channels=8, expanded_channels=24)
HEAD = Head(in_channels=8, height=8, width=8, hidden_channels=16, classes=10)
CHAIN = Network.chain([STEM, BODY, HEAD])


def branched(first=BODY):
    """Two branches after the stem that meet in a sum."""
    second = Pooling(in_channels=8, height=8, width=8, stride=1)
    total = Sum(in_channels=8, height=8, width=8)
    nodes = [(STEM, (INPUT,)), (first, (0,)), (second, (0,)), (total, (1, 2)), (HEAD, (3,))]
    return Network((3, 16, 16), tuple(NetworkNode(*node) for node in nodes))


def test_chain_reads_each_block_from_the_one_before():
    assert [node.inputs for node in CHAIN.nodes] == [(INPUT,), (0,), (1,)]
    assert CHAIN.input_shape == (3, 16, 16)
    assert CHAIN.output_shape == (10,)
    assert CHAIN.blocks == (STEM, BODY, HEAD)


def test_shapes_of_all_nodes():
    network = branched()
    shapes = [network.shape(node) for node in range(INPUT, 5)]
    assert shapes == [(3, 16, 16), (8, 8, 8), (8, 8, 8), (8, 8, 8), (8, 8, 8), (10,)]


def test_empty_network_is_refused():
    with pytest.raises(UsageError, match="at least one block"):
        Network.chain([])
    with pytest.raises(UsageError, match="at least one block"):
        Network((3, 16, 16), ())


@pytest.mark.parametrize(
    "wrong",
    [
        MBConv(in_channels=16, height=8, width=8, out_channels=8, expanded_channels=24),
        MBConv(in_channels=8, height=16, width=8, out_channels=8, expanded_channels=24),
        LinearBlock(in_features=512, out_features=8),
        Sum(in_channels=8, height=8, width=8),
    ],
    ids=str,
)
def test_block_of_another_shape_is_refused_and_named(wrong):
    with pytest.raises(UsageError, match="node 1") as error:
        Network.chain([STEM, wrong])
    assert type(wrong).__name__ in str(error.value)
    assert "(8, 8, 8)" in str(error.value)


def test_input_of_another_shape_is_refused():
    with pytest.raises(UsageError, match="node 0"):
        Network((3, 16, 15), (NetworkNode(STEM, (INPUT,)),))


@pytest.mark.parametrize("source", [1, 2, -2])
def test_node_that_reads_no_earlier_one_is_refused(source):
    with pytest.raises(UsageError, match="node 1"):
        Network((3, 16, 16), (NetworkNode(STEM, (INPUT,)), NetworkNode(BODY, (source,))))


def test_keys_are_equal_exactly_for_equal_networks():
    other = MBConv(in_channels=8, height=8, width=8, out_channels=8, expanded_channels=32)
    assert Network.chain([STEM, BODY, HEAD]).key == CHAIN.key
    assert len({CHAIN.key, Network.chain([STEM, other, HEAD]).key, branched().key}) == 3


def test_key_tells_how_nodes_are_joined():
    total = Sum(in_channels=8, height=8, width=8)
    skip = Skip(in_channels=8, height=8, width=8)
    joins = [(0, 1), (1, 0), (0, 0), (1, 1)]
    keys = {
        Network(
            (8, 8, 8),
            (NetworkNode(BODY, (INPUT,)), NetworkNode(skip, (0,)), NetworkNode(total, join)),
        ).key
        for join in joins
    }
    assert len(keys) == len(joins)


def test_parameters_are_named_by_node():
    names = set(parameter_shapes(CHAIN.graph()))
    assert {"0.conv.weight", "1.expand.weight", "1.project.bias", "2.classifier.weight"} <= names


def test_skip_adds_no_operation():
    with_skip = Network.chain([STEM, Skip(in_channels=8, height=8, width=8), BODY])
    assert len(with_skip.graph().nodes) == len(Network.chain([STEM, BODY]).graph().nodes)


def op_types(model):
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("network", [CHAIN, branched()], ids=["chain", "branched"])
def test_trained_and_random_parameters_give_the_same_operations(network):
    random = build_onnx(network)
    trained = build_onnx(network, TorchModel(network).folded())
    assert op_types(random) == op_types(trained)
    shapes = [[tuple(tensor.dims) for tensor in m.graph.initializer] for m in (random, trained)]
    assert shapes[0] == shapes[1]
    onnx.checker.check_model(trained, full_check=True)


def test_random_parameters_depend_on_name_and_seed_alone():
    alone = random_parameters(Network.chain([STEM]).graph())
    longer = random_parameters(CHAIN.graph())
    assert np.array_equal(alone["0.conv.weight"], longer["0.conv.weight"])
    other = random_parameters(CHAIN.graph(), seed=1)
    assert not np.array_equal(other["0.conv.weight"], longer["0.conv.weight"])


def test_missing_or_misshapen_parameter_is_named():
    parameters = random_parameters(CHAIN.graph())
    del parameters["1.expand.bias"]
    with pytest.raises(UsageError, match=r"1\.expand\.bias.*missing"):
        build_onnx(CHAIN, parameters)
    parameters = random_parameters(CHAIN.graph())
    parameters["1.expand.bias"] = np.zeros(3, dtype=np.float32)
    with pytest.raises(UsageError, match=r"1\.expand\.bias.*\(24,\).*\(3,\)"):
        build_onnx(CHAIN, parameters)


def test_batch_size_is_the_first_dimension():
    model = build_onnx(Pointwise(in_channels=4, height=5, width=6, out_channels=7), batch_size=3)
    values = [*model.graph.input, *model.graph.output]
    dims = [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values]
    assert dims == [[3, 4, 5, 6], [3, 7, 5, 6]]
