"""Where a model ran, read from logs that runtimes and phones printed."""

import subprocess
import sys

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from latkit.devices.canary import build_canary
from latkit.devices.device import Placement
from latkit.devices.placement import check_placement, read_placement
from latkit.devices.tflite import convert
from phone import libraries
from phone.bare_runner import BareRunner, models

WHOLE_ON_GPU = """\
INFO: Created TensorFlow Lite delegate for GPU.
INFO: GPU delegate created.
VERBOSE: Replacing 58 out of 58 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 1 \
partitions for the whole graph.
INFO: Initialized OpenCL-based API.
INFO: Created 1 GPU delegate kernels.
INFO: Explicitly applied GPU delegate, and the model graph will be completely executed by the \
delegate.
"""
GPU_THEN_XNNPACK = """\
Replacing 54 out of 559 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 3 partitions \
for subgraph 0.
Replacing 456 out of 506 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 13 \
partitions for subgraph 0.
"""
NNAPI_FAILS = """\
INFO: Created TensorFlow Lite delegate for NNAPI.
INFO: Replacing 5 node(s) with delegate (TfLiteNnapiDelegate) node, yielding 1 partitions.
ERROR: NN API returned error ANEURALNETWORKS_OP_FAILED at line 4650 while completing NNAPI compile.
ERROR: Node number 5 (TfLiteNnapiDelegate) failed to prepare.
ERROR: Restored original execution plan after delegate application failure.
"""
NNAPI_REFUSES = """\
INFO: NNAPI delegate created.
VERBOSE: Replacing 31 out of 31 node(s) with delegate (TfLiteNnapiDelegate) node, yielding 1 \
partitions for the whole graph.
INFO: Though NNAPI delegate is explicitly applied, the model graph will not be executed by the \
delegate.
"""
ORT_NNAPI = """\
[W:onnxruntime:, nnapi_execution_provider.cc:226 GetCapability] NnapiExecutionProvider::\
GetCapability, number of partitions supported by NNAPI: 2 number of nodes in the graph: 41 \
number of nodes supported by NNAPI: 30
[V:onnxruntime:, session_state.cc:1152 VerifyEachNodeIsAssignedToAnEp] Node placements
[V:onnxruntime:, session_state.cc:1158 VerifyEachNodeIsAssignedToAnEp]  Node(s) placed on \
[NnapiExecutionProvider]. Number of nodes: 2
[V:onnxruntime:, session_state.cc:1160 VerifyEachNodeIsAssignedToAnEp]   Conv (conv_1)
[V:onnxruntime:, session_state.cc:1158 VerifyEachNodeIsAssignedToAnEp]  Node(s) placed on \
[CPUExecutionProvider]. Number of nodes: 11
"""


def replaced(text, delegate="TfLiteGpuDelegateV2"):
    counts, subsets = text.split("/")
    return (
        f"Replacing {counts} node(s) with delegate ({delegate}) node, yielding {subsets} partitions"
    )


@pytest.mark.parametrize(
    ("asked", "log", "expected"),
    [
        ("gpu", WHOLE_ON_GPU, Placement("gpu", 1, 58, 58)),
        ("gpu", GPU_THEN_XNNPACK, Placement("gpu", None, 54, 559)),
        ("xnnpack", GPU_THEN_XNNPACK, Placement("xnnpack", None, 456, 506)),
        ("nnapi", GPU_THEN_XNNPACK, Placement("gpu", None, 54, 559)),
        ("gpu", replaced("63/2") + ".", Placement("gpu", 1, 63, None)),
        ("gpu", replaced("12 out of 14/4"), Placement("gpu", 2, 12, 14)),
        ("gpu", replaced("0 out of 66/0"), Placement("cpu", 0, 0, 66)),
        ("gpu", replaced("0 out of 66/1"), Placement("cpu", 0, 0, 66)),
        ("cpu", replaced("31/1", "TfLiteXNNPackDelegate"), Placement("xnnpack", 1, 31, 31)),
        ("gpu", replaced("9 out of 9/1", "LITERT_CL"), Placement("gpu", 1, 9, 9)),
        ("plugin", replaced("9 out of 9/1", "VxDelegate"), Placement("plugin", 1, 9, 9)),
        ("plugin", replaced("9 out of 9/1"), Placement("plugin", 1, 9, 9)),
        (
            "plugin",
            replaced("9 out of 9/1", "TfLiteXNNPackDelegate"),
            Placement("xnnpack", 1, 9, 9),
        ),
        ("plugin", replaced("9 out of 20/2", "TfLiteFlexDelegate"), Placement("cpu", 0, 0, 20)),
        ("nnapi", NNAPI_FAILS, Placement("cpu", 0, 0, None)),
        ("nnapi", NNAPI_REFUSES, Placement("cpu", 0, 0, None)),
        ("nnapi", NNAPI_REFUSES + GPU_THEN_XNNPACK, Placement("gpu", None, 54, 559)),
    ],
)
def test_a_delegate_took_nodes_if_the_log_says_so_and_says_nothing_else_later(asked, log, expected):
    assert read_placement("litert", asked, log) == expected


def test_counts_of_several_subgraphs_are_added():
    log = "".join(f"{replaced('10 out of 12/2')} for subgraph {number}.\n" for number in (0, 1, 1))
    assert read_placement("litert", "gpu", log) == Placement("gpu", 2, 20, 24)


def test_the_benchmark_programs_own_count_of_kernels_tells_the_partitions():
    log = (
        "INFO: {} out of 40 node(s) with delegate (TfLiteNnapiDelegate) node, yielding 5 partitions"
        "\n05-30 15:16:44 I tflite : Explicitly applied NNAPI delegate, and the model graph will be"
        " partially executed by the delegate w/ 3 delegate kernels."
    )
    told = log.format("Replacing 30")
    assert read_placement("litert", "nnapi", told) == Placement("nnapi", 3, 30, 40)
    assert read_placement("litert", "nnapi", log, nodes=40) == Placement("nnapi", 3, None, 40)


def test_a_model_that_is_completely_delegated_has_all_its_nodes_there():
    log = (
        "Applied EXTERNAL delegate, and the model graph will be completely executed by the delegate"
    )
    assert read_placement("litert", "plugin", log, nodes=7) == Placement("plugin", 1, 7, 7)
    assert read_placement("litert", "plugin", log) == Placement("plugin", 1, None, None)


def test_gpu_kernels_confirm_the_gpu_where_nothing_else_is_told():
    created = "INFO: Initialized OpenCL-based API.\nINFO: Created {} GPU delegate kernels."
    assert read_placement("litert", "gpu", created.format(2)) == Placement("gpu", 2, None, None)
    assert read_placement("litert", "gpu", created.format(0)) == Placement("cpu", 0, 0, None)
    partly = replaced("54 out of 559/3") + "\n" + created.format(2)
    assert read_placement("litert", "gpu", partly) == Placement("gpu", 2, 54, 559)
    assert read_placement("litert", "plugin", partly) == Placement("plugin", 2, 54, 559)


def test_what_the_program_on_the_phone_counted_itself_comes_first():
    """Its partitions are the delegate's alone, where a runtime's own count has the CPU's too."""
    counted = "latkit-runner: " + replaced("{} out of 6/{}", "{}") + ".\n"
    xnnpack = replaced("6 out of 6/1", "TfLiteXNNPackDelegate") + "\n"
    for log in (xnnpack + counted.format(5, "xnnpack", 3), counted.format(5, "xnnpack", 3)):
        assert read_placement("litert", "xnnpack", log) == Placement("xnnpack", 3, 5, 6)
    restored = "ERROR: Restored original execution plan after delegate application failure."
    failed = read_placement("litert", "gpu", counted.format(6, "gpu", 1) + restored)
    assert failed == Placement("cpu", 0, 0, None)
    refused = counted.format(0, "gpu", 0)
    assert read_placement("litert", "gpu", refused) == Placement("cpu", 0, 0, 6)
    assert read_placement("litert", "gpu", refused + xnnpack) == Placement("xnnpack", 1, 6, 6)


def test_a_delegate_that_was_only_created_is_no_placement():
    log = "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\nINFO: GPU delegate created."
    assert read_placement("litert", "xnnpack", log) is None
    assert read_placement("litert", "gpu", "") is None
    assert read_placement("onnxruntime", "nnapi", "All nodes are fine") is None


@pytest.mark.parametrize(
    ("asked", "log", "expected"),
    [
        ("nnapi", ORT_NNAPI, Placement("nnapi", 2, 30, 41)),
        (
            "xnnpack",
            " All nodes placed on [XnnpackExecutionProvider]. Number of nodes: 9",
            Placement("xnnpack", None, 9, 9),
        ),
        (
            "xnnpack",
            " Node(s) placed on [CPUExecutionProvider]. Number of nodes: 2\n"
            " Node(s) placed on [XnnpackExecutionProvider]. Number of nodes: 9",
            Placement("xnnpack", None, 9, 11),
        ),
        (
            "gpu",
            " All nodes placed on [WebGpuExecutionProvider]. Number of nodes: 3",
            Placement("gpu", None, 3, 3),
        ),
        (
            "nnapi",
            ORT_NNAPI + " All nodes placed on [CPUExecutionProvider]. Number of nodes: 41",
            Placement("cpu", 0, 0, 41),
        ),
        ("xnnpack", ORT_NNAPI, Placement("nnapi", 2, 30, 41)),
        ("nnapi", ORT_NNAPI.split("\n", 1)[0], None),
        (
            "nnapi",
            "NnapiExecutionProvider::GetCapability, number of partitions supported by NNAPI: 0 "
            "number of nodes in the graph: 8  number of nodes supported by NNAPI: 0",
            Placement("cpu", 0, 0, 8),
        ),
    ],
)
def test_onnx_runtime_tells_on_which_provider_each_node_is(asked, log, expected):
    assert read_placement("onnxruntime", asked, log) == expected


def test_onnx_runtimes_own_log_is_read(tmp_path):
    onnx.save(build_canary(), tmp_path / "canary.onnx")
    load = (
        "import onnxruntime, sys; options = onnxruntime.SessionOptions(); "
        "options.log_severity_level = 0; "
        "onnxruntime.InferenceSession(sys.argv[1], options, providers=['CPUExecutionProvider'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", load, str(tmp_path / "canary.onnx")],
        capture_output=True,
        text=True,
        check=True,
    )
    placement = read_placement("onnxruntime", "xnnpack", done.stderr)
    assert placement is not None
    assert placement.accelerator == "cpu"
    assert placement.nodes > 0
    assert "took no node" in check_placement("xnnpack", placement, False)


@pytest.mark.parametrize(
    ("runtime", "asked", "accelerator", "is_failure"),
    [
        ("litert", "cpu", None, False),
        ("litert", "xnnpack", "xnnpack", False),
        ("litert", "nnapi", "cpu", True),
        ("onnxruntime", "cpu", None, False),
    ],
)
def test_what_the_program_on_the_phone_logs_is_read(
    tmp_path, runtime, asked, accelerator, is_failure
):
    """The real program and libraries; on a processor that has no NNAPI."""
    if runtime == "litert":
        path, library = tmp_path / "canary.tflite", f"tflite {libraries.tflite_library()}"
        path.write_bytes(convert(build_canary()))
    else:
        path, library = tmp_path / "canary.onnx", f"onnxruntime {libraries.onnxruntime_library()}"
        onnx.save(build_canary(), path)
    accelerators = [] if asked == "cpu" else [f"accelerator {asked}"]
    ended = BareRunner(tmp_path)(f"library {library}", *accelerators, *models([path]), "load")
    (loaded,) = ended.told("loaded")
    placement = read_placement(runtime, asked, loaded["log"])
    assert (None if placement is None else placement.accelerator) == accelerator
    if asked == "xnnpack":
        assert placement.partitions == 1
        assert placement.delegated == placement.nodes > 1
    assert (check_placement(asked, placement, False) is not None) == is_failure


@pytest.mark.parametrize(
    ("asked", "placement"),
    [
        ("cpu", None),
        ("cpu", Placement("cpu", 0, 0, 5)),
        ("cpu", Placement("xnnpack", 1, 5, 5)),
        ("gpu", Placement("gpu", 1, 5, 5)),
        ("gpu", Placement("gpu", 2, 1, 500)),
        ("gpu", Placement("gpu")),
    ],
)
def test_what_ran_where_it_was_asked_for_is_no_failure(asked, placement):
    assert check_placement(asked, placement, False) is None


@pytest.mark.parametrize(
    ("asked", "placement", "words"),
    [
        ("gpu", None, ["asked for gpu", "can't be confirmed"]),
        ("gpu", Placement("cpu", 0, 0, 5), ["asked for gpu", "used cpu", "took no node"]),
        ("gpu", Placement("xnnpack", 2, 4, 5), ["used xnnpack (4 of 5 nodes in 2 partitions)"]),
        ("xnnpack", Placement("cpu", 0, 0, 5), ["used cpu"]),
        ("cpu", Placement("gpu", 1, 5, 5), ["asked for cpu", "used gpu"]),
        ("gpu", Placement("gpu", 0, 0, 5), ["took no node"]),
    ],
)
def test_a_fallback_is_a_failure_that_says_what_was_asked_and_used(asked, placement, words):
    cause = check_placement(asked, placement, False)
    assert all(word in cause for word in [*words, "--allow-fallback"])
    assert check_placement(asked, placement, True) is None


@given(st.sampled_from(["onnxruntime", "litert"]), st.text(), st.data())
def test_any_log_gives_a_placement_or_none(runtime, noise, data):
    whole = WHOLE_ON_GPU + GPU_THEN_XNNPACK + NNAPI_FAILS + NNAPI_REFUSES + ORT_NNAPI
    start, end = sorted(data.draw(st.tuples(*[st.integers(0, len(whole))] * 2)))
    for asked in ("cpu", "gpu", "nnapi", "plugin"):
        placement = read_placement(runtime, asked, whole[start:end] + noise)
        assert placement is None or isinstance(placement, Placement)
