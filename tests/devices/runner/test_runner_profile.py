"""The runner's command `profile`: what it visits, how often, and which files come of it."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from latkit.devices.onnx_profile import node_times
from latkit.devices.runtimes import numbered_input, onnx_session_options
from latkit.devices.tflite import convert
from latkit.latency.blocks import MBConv
from latkit.latency.onnx_model import build_onnx
from phone import libraries
from phone.bare_runner import BareRunner, models
from phone.models import write_conv

pytestmark = pytest.mark.quiet


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runner")


@pytest.fixture(scope="module")
def runner(folder):
    return BareRunner(folder)


@pytest.fixture(scope="module")
def block(folder):
    path = folder / "block.onnx"
    onnx.save(build_onnx(MBConv(16, 8, 8, out_channels=16, expanded_channels=48, kernel=5)), path)
    return path


@pytest.fixture(scope="module")
def ort():
    return f"library onnxruntime {libraries.onnxruntime_library()}"


def operators(path):
    return [(node.domain, node.op_type) for node in onnx.load(path).graph.node]


def optimized_here(path, folder):
    """The graph that this process's ONNX Runtime makes of a model, with a device's options."""
    options = onnx_session_options(onnxruntime, 1)
    options.optimized_model_filepath = str(folder / "here.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return folder / "here.onnx"


def kinds(done):
    """What each answer after loading tells of."""
    told = [(next(iter(answer.items()))) for answer in done.answers]
    return told[[value for _, value in told].index("load") + 1 :]


@pytest.mark.parametrize("threads", [1, 2])
def test_the_files_tell_what_the_runtime_runs_and_each_run_of_it(
    runner, folder, block, ort, threads
):
    prefix = f"{folder}/profile of {threads}"
    canary = write_conv(folder / "canary.onnx")
    done = runner(
        ort,
        f"threads {threads}",
        f"model -1 0 {canary}",
        *models([canary, block]),
        "load",
        f"profile 1 2 3 4 {prefix}",
        "round 1:2",
    )
    assert done.exit_code == 0, done.answers
    visits = [("visit", number) for number in (-1, 1, -1, 1, -1)]
    assert kinds(done) == [
        *visits,
        ("end", "profile"),
        ("visit", 1),
        ("end", "round"),
        ("end", "quit"),
    ]
    for visit in done.told("visit")[:-1]:
        assert len(visit["samples_ns"]) == len(visit["preempted"]) == 4
        assert min(visit["samples_ns"]) > 0
    (end,) = done.told("optimized")
    assert end["optimized"] == f"{prefix}.onnx"
    assert re.fullmatch(rf"{re.escape(prefix)}_[\d_-]+\.json", end["profile"])
    # The runtime orders those that do not wait for each other anew at each call.
    here = operators(optimized_here(block, folder))
    assert sorted(operators(end["optimized"])) == sorted(here)
    counted = [False] + ([False] * 3 + [True] * 4) * 2
    events = json.loads(Path(end["profile"]).read_bytes())
    assert sum(event["name"] == "model_run" for event in events) == len(counted)
    operations = node_times(events, counted)
    assert [item.kind for item in operations] == [kind for _, kind in operators(end["optimized"])]
    assert {len(item.times_ms) for item in operations} == {8}


def test_the_graph_that_it_writes_computes_what_the_model_computes(runner, folder, block, ort):
    done = runner(ort, *models([block]), "load", f"profile 0 0 0 1 {folder}/graph")
    (end,) = done.told("optimized")
    results = []
    for path in (block, end["optimized"]):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (item,) = session.get_inputs()
        inputs = {item.name: numbered_input(0, item.name, item.shape, "float32")}
        results.append(session.run(None, inputs)[0])
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-5)


def test_with_no_turns_it_runs_once_and_visits_nothing(runner, folder, block, ort):
    lines = [ort, f"model -1 0 {block}", *models([block]), "load"]
    done = runner(*lines, f"profile 0 0 5 5 {folder}/none")
    assert kinds(done) == [("end", "profile"), ("end", "quit")]
    (end,) = done.told("optimized")
    events = json.loads(Path(end["profile"]).read_bytes())
    assert sum(event["name"] == "model_run" for event in events) == 1


def test_there_may_be_no_canary_and_a_model_may_be_profiled_again(runner, folder, block, ort):
    lines = [f"profile 0 1 0 1 {folder}/again {number}" for number in range(3)]
    done = runner(ort, *models([block]), "load", *lines)
    assert [told["visit"] for told in done.told("visit")] == [0, 0, 0]
    assert len({told["profile"] for told in done.told("profile")}) == 3


def test_tflite_says_that_it_has_no_profiler(runner, folder, block):
    path = folder / "block.tflite"
    path.write_bytes(convert(onnx.load(block)))
    library = f"library tflite {libraries.tflite_library()}"
    done = runner(library, *models([path]), "load", f"profile 0 1 1 1 {folder}/lite", "round 0:1")
    (failed,) = done.told("failed")
    assert failed["failed"] == 0 and "no profiler" in failed["cause"]
    assert done.told("optimized") == [{"end": "profile", "optimized": None, "profile": None}]
    assert len(done.told("visit")) == 1, "the model is as good as before"
    assert not list(folder.glob("lite*"))


def test_files_that_can_not_be_written_are_no_profile(runner, folder, block, ort):
    done = runner(
        ort, *models([block]), "load", f"profile 0 1 1 1 {folder}/not there/x", "round 0:1"
    )
    (failed,) = done.told("failed")
    assert "CreateSession" in failed["cause"]
    assert done.told("optimized") == [{"end": "profile", "optimized": None, "profile": None}]
    assert len(done.told("visit")) == 1


@pytest.mark.parametrize(
    "line",
    [
        "profile",
        "profile 0",
        "profile 1 1 1 1 /p",
        "profile 0 -1 1 1 /p",
        "profile 0 1 -1 1 /p",
        "profile 0 1 1 0 /p",
        "profile 0 1 1 x /p",
        "profile 0 1 1 1",
        "profile 0 1 1 1 ",
        "profile 0  1 1 1 /p",
    ],
)
def test_a_profile_that_can_not_be_read_ends_it(runner, block, ort, line):
    done = runner(ort, *models([block]), "load", line, "round 0:1")
    assert done.exit_code == 2
    assert [next(iter(answer)) for answer in done.answers] == ["loaded", "end", "error"]


def test_a_profile_comes_after_loading_and_of_what_was_loaded(runner, folder, block, ort):
    early = runner(ort, *models([block]), f"profile 0 1 1 1 {folder}/early")
    assert "too early" in early.answers[-1]["error"]
    (folder / "junk.onnx").write_bytes(b"junk")
    junk = runner(ort, *models([folder / "junk.onnx"]), "load", f"profile 0 1 1 1 {folder}/junk")
    assert "failed before" in junk.answers[-1]["error"]
