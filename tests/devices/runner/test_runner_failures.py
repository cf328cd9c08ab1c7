"""The runner and what goes wrong: models, libraries, commands, crashes, and hostile text."""

import os
import signal
import subprocess

import numpy as np
import onnx
import onnxruntime
import pytest
from latkit.devices.job import read_progress
from latkit.devices.tflite import convert
from latkit.latency.blocks import MBConv
from latkit.latency.onnx_model import build_onnx
from onnx import TensorProto, helper, numpy_helper
from phone import libraries
from phone.bare_runner import BareRunner, models

HOSTILE = b'"\\\n\r\t\x00\x01\x7f\xff\xc0\x80\xed\xa0\x80\xf4\x90\x80\x80\xe2\x80\xa8{}'
"""Quotes, control characters, bytes that are no UTF-8, and a line end that JSON allows."""

PLUGIN = """
#include <stddef.h>
int printf(const char *, ...);
long write(int, const void *, unsigned long);
void abort(void);
static int calls;
void *tflite_plugin_create_delegate(const char **keys, const char **values, size_t count,
                                    void (*report)(const char *)) {
    const char hostile[] = {%s, 0};
    calls++;
    %s
    report("no delegate today");
    return NULL;
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runner")


@pytest.fixture(scope="module")
def runner(folder):
    return BareRunner(folder)


@pytest.fixture(scope="module")
def block(folder):
    """A good model, as ONNX."""
    path = folder / "good.onnx"
    onnx.save(build_onnx(MBConv(8, 8, 8, out_channels=8, expanded_channels=16)), path)
    return path


@pytest.fixture(scope="module")
def lite_block(block):
    path = block.with_suffix(".tflite")
    path.write_bytes(convert(onnx.load(block)))
    return path


@pytest.fixture(scope="module")
def ort():
    return f"library onnxruntime {libraries.onnxruntime_library()}"


@pytest.fixture(scope="module")
def tflite():
    return f"library tflite {libraries.tflite_library()}"


def plugin(folder, name, action):
    """A delegate's library that does this when asked for a delegate, and never gives one."""
    hostile = ",".join(str(byte if byte < 128 else byte - 256) for byte in HOSTILE)
    path = folder / f"lib{name}.so"
    return libraries.compile_library(PLUGIN % (hostile, action), path)


def save_graph(path, nodes, inputs, outputs, initializers=()):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(*item) for item in outputs],
        list(initializers),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def cause_of(done, number):
    (cause,) = [answer["cause"] for answer in done.told("failed") if answer["failed"] == number]
    return cause


def test_broken_models_do_not_stop_the_others(runner, folder, block, ort):
    junk, empty, missing = folder / "junk.onnx", folder / "empty.onnx", folder / "not there.onnx"
    junk.write_bytes(b"junk" * 100)
    empty.write_bytes(b"")
    opened = save_graph(
        folder / "open.onnx",
        [helper.make_node("Identity", ["image"], ["same"])],
        [("image", TensorProto.FLOAT, [1, 3, "height", "width"])],
        [("same", TensorProto.FLOAT, None)],
    )
    text = save_graph(
        folder / "text.onnx",
        [helper.make_node("Identity", ["words"], ["same"])],
        [("words", TensorProto.STRING, [3])],
        [("same", TensorProto.STRING, [3])],
    )
    paths = [junk, block, empty, missing, opened, text, block]
    done = runner(ort, *models(paths), "load", "round 0:2 1:2 3:2 6:2")
    assert done.exit_code == 0
    assert [answer["loaded"] for answer in done.told("loaded")] == [1, 6]
    assert [answer["failed"] for answer in done.told("failed")] == [0, 2, 3, 4, 5]
    assert [answer["visit"] for answer in done.told("visit")] == [1, 6]
    assert "junk.onnx" in cause_of(done, 0)
    assert "not there.onnx" in cause_of(done, 3)
    assert "image has an open shape; export the model with fixed shapes" in cause_of(done, 4)
    assert "words is of type" in cause_of(done, 5)


def test_broken_tflite_models_do_not_stop_the_others(runner, folder, lite_block, tflite):
    junk, cut = folder / "junk.tflite", folder / "cut.tflite"
    junk.write_bytes(b"junk" * 100)
    cut.write_bytes(lite_block.read_bytes()[:100])
    paths = [junk, lite_block, cut, folder / "not there.tflite"]
    done = runner(tflite, *models(paths), "load", "round 0:2 1:2")
    assert [answer["loaded"] for answer in done.told("loaded")] == [1]
    assert [answer["failed"] for answer in done.told("failed")] == [0, 2, 3]
    assert "the runtime said: " in cause_of(done, 0)
    assert "not there.tflite" in cause_of(done, 3)


def write_dice(path, seed):
    """A model that looks up one of eight entries in a table of four: sooner or later it fails."""
    nodes = [
        helper.make_node("RandomUniform", [], ["roll"], seed=float(seed), shape=[1], high=8.0),
        helper.make_node("Cast", ["roll"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["entry"]),
    ]
    table = numpy_helper.from_array(np.zeros(4, np.float32), "table")
    return save_graph(path, nodes, [], [("entry", TensorProto.FLOAT, [1])], [table])


def runs_before_failure(path):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for runs in range(20):
        try:
            session.run(None, {})
        except Exception:
            return runs
    return 20


def test_a_model_that_fails_later_is_left_out_from_then_on(runner, folder, block, ort):
    seeds = (seed for seed in range(100))
    dice = folder / "dice.onnx"
    assert any(1 < runs_before_failure(write_dice(dice, seed)) < 9 for seed in seeds)
    done = runner(ort, *models([dice, block]), "load", "round 0:20 1:2", "round 1:2 0:20")
    assert [answer["loaded"] for answer in done.told("loaded")] == [0, 1]
    assert [answer["visit"] for answer in done.told("visit")] == [1, 1]
    assert "indices" in cause_of(done, 0)
    assert runner(ort, *models([folder / "junk.onnx"]), "load", "outputs 0").exit_code == 2


@pytest.mark.parametrize("accelerator", ["xnnpack", "nnapi", "gpu"])
def test_an_accelerator_that_onnxruntime_lacks_is_named(runner, block, ort, accelerator):
    done = runner(ort, f"accelerator {accelerator}", *models([block]), "load", "round 0:1")
    assert accelerator in cause_of(done, 0).lower()
    assert not done.told("visit")


def test_a_delegate_that_tflite_lacks_is_named(runner, lite_block, tflite):
    done = runner(tflite, "accelerator gpu", *models([lite_block]), "load")
    assert "has no TfLiteGpuDelegateV2Create" in cause_of(done, 0)


@pytest.mark.parametrize(
    ("library", "expected"),
    [
        ("onnxruntime /not there/libonnxruntime.so", "/not there/libonnxruntime.so"),
        ("tflite /not there/libtflite.so", "/not there/libtflite.so"),
        ("onnxruntime {tflite}", "no ONNX Runtime"),
        ("tflite {ort}", "no TfLite C API"),
    ],
)
def test_a_library_that_is_not_one_ends_it_with_the_reason(
    runner, block, ort, tflite, library, expected
):
    paths = {"ort": ort.split(" ", 2)[2], "tflite": tflite.split(" ", 2)[2]}
    done = runner(f"library {library.format(**paths)}", *models([block]), "load", "round 0:1")
    assert done.exit_code == 2
    assert expected in done.answers[-1]["error"]
    assert len(done.answers) == 1


@pytest.mark.parametrize(
    "line",
    [
        "",
        " load",
        "loads",
        "load now",
        "round 0:1",
        "library",
        "library onnxruntime",
        "library torch /lib.so",
        "accelerator",
        "accelerator tpu",
        "accelerator plugin",
        "threads",
        "threads 0",
        "threads 1x",
        "threads 99999999999999999999",
        "threads -1",
        "cores",
        "cores 0",
        "cores xyz",
        "cores " + "f" * 1000,
        "warmups",
        "warmups 5",
        "warmups 5 nan",
        "warmups 5 -1",
        "warmups 5 10 15",
        "warmups 5  10",
        "model 0 0",
        "model 0 -1 /model",
        "model 0 1e3 /model",
        "model -2 0 /model",
        "model 0x1 0 /model",
        "outputs 0",
        "save 0 /file",
        b"threads 1\0",
        b"\xff\xfe",
    ],
)
def test_a_command_that_can_not_be_read_ends_it(runner, line):
    done = runner(line, "threads 1")
    assert done.exit_code == 2
    (answer,) = done.answers
    assert set(answer) == {"error"} and answer["error"]
    assert not runner.log.exists()


@pytest.mark.parametrize(
    "line",
    [
        "load",
        "threads 1",
        "model 1 0 /model",
        "round 0",
        "round 0:0",
        "round 0:1 ",
        "round 0:1  0:1",
        "round 0:1x",
        "round 1:1",
        "round 0:99999999",
        "outputs",
        "outputs 1",
        "outputs 0 0",
        "save 0",
        "save 0 /not there/file",
    ],
)
def test_a_command_that_can_not_be_done_ends_it(runner, block, ort, line):
    done = runner(ort, *models([block]), "load", line, "round 0:1")
    assert done.exit_code == 2
    assert [next(iter(answer)) for answer in done.answers] == ["loaded", "end", "error"]


def test_two_models_of_one_number_are_an_error(runner):
    done = runner("model 3 0 /a", "model 3 0 /b")
    assert "a model 3 already" in done.answers[-1]["error"]


def test_an_endless_line_is_an_error(runner):
    done = runner(b"round " + b"0:1 " * 2**23)
    assert done.exit_code == 2
    assert "longer" in done.answers[-1]["error"]


@pytest.mark.parametrize("end", [b"", b"round 0:1", b"quit\nloads\n"])
def test_the_end_of_input_is_an_end(runner, block, ort, end):
    """Half a line is none: it may have been cut anywhere."""
    done = runner(ort, *models([block]), "load", end=end)
    assert done.exit_code == 0
    assert done.answers[-1] == {"end": "quit"}
    assert not done.told("visit")


def test_without_a_progress_file_it_does_not_start(runner, folder):
    for arguments in ([], [f"{folder}/not there/progress"], ["a", "b"]):
        done = subprocess.run(
            runner.words(*arguments), input=b"quit\n", capture_output=True, timeout=60
        )
        assert done.returncode == 2
        assert done.stdout.startswith(b'{"error":"')


def test_a_crash_leaves_its_culprit_and_its_last_words(runner, folder, lite_block, tflite):
    action = 'printf("call %%d\\n", calls); write(2, "dying", 5); if (calls == 3) abort();'
    path = plugin(folder, "crash", action.replace("%%", "%"))
    done = runner(tflite, f"accelerator plugin {path}", *models([lite_block] * 5), "load")
    assert done.exit_code == 128 + signal.SIGABRT
    assert read_progress(runner.progress) == (4, 2, "load")
    assert "dying" in runner.log.read_text()


def test_an_interrupted_round_leaves_its_culprit(runner, folder, block, ort):
    with subprocess.Popen(
        runner.words(str(runner.progress)), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        lines = [ort, *models([block] * 3), "load", "round 0:1 2:1000000 1:1"]
        process.stdin.write("".join(f"{line}\n" for line in lines).encode())
        process.stdin.flush()
        for _ in range(4):
            assert process.stdout.readline()
        while (read_progress(runner.progress) or (0, 0, ""))[1:] != (2, "run"):
            assert process.poll() is None
        process.kill()
    assert read_progress(runner.progress)[1:] == (2, "run")


def test_hostile_text_in_the_log_and_on_stdout_stays_inside_of_answers(
    runner, folder, lite_block, tflite
):
    action = "write(1, hostile, sizeof hostile); write(2, hostile, sizeof hostile);"
    path = plugin(folder, "hostile", action)
    done = runner(tflite, f"accelerator plugin {path}", *models([lite_block] * 2), "load")
    assert done.exit_code == 0
    assert len(done.answers) == 4
    assert "gave no delegate" in cause_of(done, 0)
    said = HOSTILE.replace(b"\0", b" ").decode("utf-8", "replace")
    assert cause_of(done, 1).endswith(f"the runtime said: {said} {said} no delegate today\n")


def test_a_long_log_is_cut_and_stays_readable(runner, folder, lite_block, tflite):
    euros = 'for (int i = 0; i < 4000; i++) write(2, "\\xe2\\x82\\xac", 3);'
    path = plugin(folder, "long", euros)
    done = runner(tflite, f"accelerator plugin {path}", *models([lite_block]), "load")
    assert "€€€" in cause_of(done, 0)
    assert len(cause_of(done, 0).encode()) < 2000


def test_hostile_names_and_paths_come_back_as_they_are(runner, folder, ort):
    name = 'in "quotes" \\ \t\x01\x7f é 漢 😀 \u2028'
    path = save_graph(
        folder / 'odd "name" \\ é 😀.onnx',
        [helper.make_node("Identity", ["x"], [name])],
        [("x", TensorProto.FLOAT, [2])],
        [(name, TensorProto.FLOAT, [2])],
    )
    missing = os.fsencode(folder) + b'/no "such" \xff\xc3\xa9 file.onnx'
    done = runner(ort, *models([path]), b"model 1 0 " + missing, "load", "outputs 0")
    assert done.told("outputs")[0]["outputs"][0]["name"] == name
    assert '/no "such" \ufffdé file.onnx' in cause_of(done, 1)


def test_outputs_that_are_no_numbers_have_no_sum(runner, folder, ort):
    path = save_graph(
        folder / "nan.onnx",
        [helper.make_node("Log", ["x"], ["y"])],
        [("x", TensorProto.FLOAT, [50])],
        [("y", TensorProto.FLOAT, [50])],
    )
    done = runner(ort, *models([path]), "load", "outputs 0")
    (output,) = done.told("outputs")[0]["outputs"]
    assert output["sum"] is None and output["absolute_sum"] is None
