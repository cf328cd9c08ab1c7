import json
from dataclasses import fields, replace
from itertools import pairwise

import onnx
import pytest
from block_cases import STRATEGIES
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.errors import UsageError
from latkit.latency.blocks import (
    BLOCK_KINDS,
    ConvBlock,
    LinearBlock,
    MBConv,
    Sum,
)
from latkit.latency.network import Network, NetworkNode
from latkit.latency.subject import (
    ModelFile,
    read_block_list,
    subject_from_json,
    subject_id,
    subject_label,
    subject_to_json,
    write_model,
)

CHANNELS = st.integers(1, 64)

BLOCK = MBConv(in_channels=8, height=8, width=8, out_channels=8, expanded_channels=24)
GOOD = subject_to_json(BLOCK)


def branches():
    """A network that is no chain: two blocks read the input, and a sum reads both."""
    block = ConvBlock(in_channels=4, height=6, width=6, out_channels=4)
    other = MBConv(in_channels=4, height=6, width=6, out_channels=4, expanded_channels=8)
    total = Sum(in_channels=4, height=6, width=6)
    nodes = (NetworkNode(block, (-1,)), NetworkNode(other, (-1,)), NetworkNode(total, (0, 1)))
    return Network((4, 6, 6), nodes)


@given(st.one_of(*STRATEGIES.values()))
@settings(max_examples=200, deadline=None)
def test_block_survives_json(block):
    text = json.dumps(subject_to_json(block), allow_nan=False)
    read = subject_from_json(json.loads(text))
    assert read == block
    assert type(read) is type(block)
    assert subject_id(read) == subject_id(block)


@given(st.lists(CHANNELS, min_size=2, max_size=6))
@settings(max_examples=30, deadline=None)
def test_chain_survives_json(channels):
    blocks = [
        ConvBlock(in_channels=read, height=5, width=5, out_channels=written)
        for read, written in pairwise(channels)
    ]
    network = Network.chain(blocks)
    assert subject_from_json(json.loads(json.dumps(subject_to_json(network)))) == network


def test_network_with_branches_survives_json():
    network = branches()
    assert subject_from_json(json.loads(json.dumps(subject_to_json(network)))) == network


def test_no_block_has_a_field_that_its_json_uses_for_something_else():
    for block in BLOCK_KINDS.values():
        assert "kind" not in {item.name for item in fields(block)}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"kind": "MBKonv"}, "MBKonv"),
        ({"kind": 7}, "7"),
        ({"kernal": 3}, "kernal"),
        ({"kernel": 2}, "kernel"),
        ({"kernel": "3"}, "kernel"),
        ({"kernel": 3.5}, "kernel"),
        ({"kernel": True}, "kernel"),
        ({"kernel": None}, "kernel"),
        ({"in_channels": 0}, "in_channels"),
        ({"activation": "gelu"}, "activation"),
        ({"squeeze_excite": 1}, "squeeze_excite"),
        ({"height": float("nan")}, "height"),
    ],
)
def test_bad_block_in_a_file_is_named_by_file_index_and_field(tmp_path, change, named):
    path = tmp_path / "blocks.json"
    path.write_text(json.dumps([GOOD, {**GOOD, **change}]))
    with pytest.raises(UsageError) as caught:
        read_block_list(path)
    message = str(caught.value)
    assert str(path) in message
    assert "block 1" in message
    assert named in message


def test_missing_field_is_named(tmp_path):
    path = tmp_path / "blocks.json"
    path.write_text(json.dumps([{name: GOOD[name] for name in GOOD if name != "out_channels"}]))
    with pytest.raises(UsageError, match=r"block 0.*out_channels"):
        read_block_list(path)


@pytest.mark.parametrize("text", ["", "{}", "[]", "[1]", "[[]]", "nonsense", "[" * 100_000, "\xff"])
def test_file_that_is_no_list_of_blocks_is_a_usage_error(tmp_path, text):
    path = tmp_path / "blocks.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match=r"blocks\.json"):
        read_block_list(path)


def test_file_that_is_not_there_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"none\.json"):
        read_block_list(tmp_path / "none.json")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["kind", "nodes", "block", "inputs", "input_shape", "path"]),
                inner | st.sampled_from(["MBConv", "Network", "ModelFile", "Skip"]),
                max_size=5,
            )
        ),
        max_leaves=15,
    )
)
@settings(max_examples=200, deadline=None)
def test_any_json_is_a_subject_or_a_usage_error(data):
    try:
        subject = subject_from_json(data)
    except UsageError:
        return
    assert subject_from_json(json.loads(json.dumps(subject_to_json(subject)))) == subject


def test_network_that_reads_a_later_node_is_refused_with_its_place():
    data = subject_to_json(branches())
    data["nodes"][0]["inputs"] = [2]
    with pytest.raises(UsageError, match="Network"):
        subject_from_json(data)


def test_label_of_a_block_leaves_out_what_is_as_by_default():
    assert subject_label(BLOCK) == (
        "MBConv(in_channels=8, height=8, width=8, out_channels=8, expanded_channels=24)"
    )
    assert subject_label(replace(BLOCK, kernel=5)).endswith("expanded_channels=24, kernel=5)")


def test_model_is_written_once_and_named_by_its_content(tmp_path):
    first = write_model(BLOCK, tmp_path)
    stamp = first.stat().st_mtime_ns
    assert write_model(BLOCK, tmp_path) == first
    assert first.stat().st_mtime_ns == stamp
    other = write_model(branches(), tmp_path)
    assert other != first
    for path in (first, other):
        onnx.checker.check_model(onnx.load(path), full_check=True)


def test_damaged_model_in_the_folder_is_written_again(tmp_path):
    path = write_model(BLOCK, tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    assert write_model(BLOCK, tmp_path) == path
    assert path.read_bytes() == whole


def test_block_too_large_for_onnx_is_a_usage_error(tmp_path):
    block = LinearBlock(in_features=10**6, out_features=10**6)
    with pytest.raises(UsageError, match="2 GiB"):
        write_model(block, tmp_path)
    assert not list(tmp_path.iterdir())


def test_model_file_is_known_by_its_content(tmp_path):
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    first.write_bytes(b"model")
    second.write_bytes(b"model")
    model = ModelFile.read(first)
    assert subject_id(model) == subject_id(ModelFile.read(second))
    assert subject_from_json(json.loads(json.dumps(subject_to_json(model)))) == model
    assert write_model(model, tmp_path) == first
    first.write_bytes(b"another")
    with pytest.raises(UsageError, match="changed"):
        write_model(model, tmp_path)


def test_model_file_that_is_not_there_is_a_usage_error(tmp_path):
    with pytest.raises(UsageError, match=r"gone\.onnx"):
        ModelFile.read(tmp_path / "gone.onnx")
