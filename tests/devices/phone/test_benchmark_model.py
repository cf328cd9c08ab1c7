"""The benchmark program's figures in all its forms, on a phone whose program is a shell script.

The script stands where a phone's binary would: it prints what its model file holds, which is what
binaries of several ages and makers printed.
"""

import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from latkit.devices.adb import Adb, LinkLostError
from latkit.devices.canary import build_canary
from latkit.devices.device import Placement, Summary
from latkit.devices.errors import DeviceError, UsageError
from latkit.devices.phone.benchmark_model import (
    BenchmarkFailedError,
    BenchmarkModelTool,
    benchmark_arguments,
    read_benchmark,
    supported_flags,
)
from latkit.devices.phone.benchmark_result import read_result_file
from latkit.devices.tflite import convert
from phone.faults import CutAt, Garbage

TF_1 = """\
Initialized session in 9.933ms
Running benchmark for at least 4 iterations and at least 0.5 seconds
count=7 first=127425 curr=66709 min=66709 max=127425 avg=76605.9 std=20944

Running benchmark for at least 10 iterations and at least 1 seconds
count=15 first=66753 curr=66800 min=66699 max=66838 avg=66767.6 std=39

Average inference timings in us: Warmup: 76605.9, Init: 9933, no stats: 66767.6
"""
TF_2 = """\
STARTING!
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
The input model file size (MB): 0.004448
count=15 first=49060 curr=33682 min=32825 max=49060 avg=34825.1 std=3930

count=50 first=32891 curr=33978 min=32641 max=34005 avg=33209.4 std=450

Inference timings in us: Init: 855, First inference: 49060, Warmup (avg): 34825.1, \
Inference (avg): 33209.4
Peak memory footprint (MB): init=0 overall=12.8672
"""
MEDIAN = """\
INFO: count=1 curr=1253964 p5=1253964 median=1253964 p95=1253964
INFO: count=50 first=1249964 curr=1240964 min=1230000 max=1249964 avg=1.24027e+06 std=2565 \
p5=1238753 median=1239807 p95=1247415

INFO: Inference timings in us: Init: 5120, First inference: 1253964, Warmup (avg): 1.25396e+06, \
Inference (avg): 1.24027e+06
INFO: Overall peak memory footprint (MB) via periodic monitoring: 93.2383
"""
LITERT = """\
INFO: count=1055 first=1033 curr=473 min=443 max=1033 avg=465.319 std=18 p5=459 median=463 p95=478
INFO: count=2112 first=463 curr=459 min=442 max=979 avg=464.545 std=13 p5=460 median=462 p95=478
INFO: [./litert/tools/benchmark_litert_model.h:81]
========== BENCHMARK RESULTS ==========
INFO: [./litert/tools/benchmark_litert_model.h:82] Model initialization: 4.48 ms
INFO: [./litert/tools/benchmark_litert_model.h:86] Warmup (avg):         0.47 ms (1055 runs)
INFO: [./litert/tools/benchmark_litert_model.h:88] Inference (avg):      0.46 ms (2112 runs)
INFO: [./litert/tools/benchmark_litert_model.h:92] Inference (min):      0.44 ms
INFO: [./litert/tools/benchmark_litert_model.h:96] Inference (std):      0.01
"""
LITERT_MILLISECONDS = """\
INFO: [benchmark_litert_model.h:98] Warmup (avg):         7441.04 ms (1 runs)
INFO: [benchmark_litert_model.h:100] Inference (avg):      7430.20 ms (10 runs)
INFO: [benchmark_litert_model.h:104] Inference (min):      7416.40 ms
INFO: [benchmark_litert_model.h:106] Inference (max):      7448.86 ms
INFO: [benchmark_litert_model.h:108] Inference (std):      9.92
INFO: [benchmark_litert_model.h:130] Peak memory:          35.20 MB
"""
END = "Inference timings in us: Init: 5, First inference: 5, Warmup (avg): 5, Inference (avg): "
LOGCAT = "".join(f"05-30 15:16:45.3  3380  3380 I tflite  : {line}\n" for line in TF_2.split("\n"))


@pytest.mark.parametrize(
    ("text", "summary", "peak"),
    [
        (TF_1, Summary("mean", 66767600, 15, 66699000, 66838000, 39000), None),
        (TF_2, Summary("mean", 33209400, 50, 32641000, 34005000, 450000), 13492237),
        (LOGCAT, Summary("mean", 33209400, 50, 32641000, 34005000, 450000), 13492237),
        (
            MEDIAN,
            Summary("median", 1.239807e9, 50, 1.23e9, 1.249964e9, 2565000, 1.238753e9, 1.247415e9),
            97767444,
        ),
        (LITERT, Summary("median", 462000, 2112, 442000, 979000, 13000, 460000, 478000), None),
        (
            LITERT_MILLISECONDS,
            Summary("mean", 7.4302e9, 10, 7.4164e9, 7.44886e9, 9.92e6),
            36909875,
        ),
        (f"count=0\ncount=1 curr=33000\n{END}33000", Summary("mean", 33e6, 1, 33e6, 33e6), None),
        (
            f"count=2 curr=17(all same)\ncount=9 curr=17(all same)\n{END}17",
            Summary("mean", 17000, 9, 17000, 17000),
            None,
        ),
        (
            f"count=3 min=1 max=3 avg=2 std=1 median=2\ncount=9 curr=17(all same)\n{END}17",
            Summary("median", 17000, 9, 17000, 17000),
            None,
        ),
        (
            f"{TF_2}Timings (microseconds): count=50 first=3 curr=3 min=3 max=4 avg=3.3 std=1\n"
            "Memory (bytes): count=0\n12 nodes observed (count=50)",
            Summary("mean", 33209400, 50, 32641000, 34005000, 450000),
            13492237,
        ),
    ],
)
def test_every_known_form_is_read_in_its_own_unit(text, summary, peak):
    reading = read_benchmark(text)
    assert reading.peak_memory_bytes == peak
    for name in ("statistic", "count"):
        assert getattr(reading.summary, name) == getattr(summary, name)
    for name in ("value_ns", "minimum_ns", "maximum_ns", "deviation_ns", "p5_ns", "p95_ns"):
        expected = getattr(summary, name)
        found = getattr(reading.summary, name)
        assert found is None if expected is None else found == pytest.approx(expected, rel=1e-12)


def count_lines(last, end="5"):
    return f"count=2 first=9 curr=9 min=9 max=9.5 avg=9.2 std=1\n{last}\n{END}{end}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not tell that its timed runs were finished"),
        ("linker: cannot locate symbol", "cannot locate symbol"),
        (TF_2[: TF_2.index("count=50")], "were finished"),
        (TF_2[: TF_2.index("Inference timings")], "were finished"),
        (TF_2.replace("count=15", "counter=15"), "1 times of a count"),
        (TF_2 + TF_2, "4 times of a count"),
        (TF_2.replace("timings in us", "timings in fortnights"), "unknown unit, fortnights"),
        (TF_2.replace("(avg): 33209.4", "(avg): 34209.4"), "two different averages"),
        (LITERT.replace("(2112 runs)", "(211 runs)"), "two different numbers of runs"),
        (LITERT.replace("0.46 ms", "0.56 ms"), "two different averages"),
        (LITERT_MILLISECONDS.replace(" (10 runs)", ""), "how many runs"),
        (LITERT_MILLISECONDS.replace("7430.20 ms", "7430.20 parsecs"), "were finished"),
        (LITERT_MILLISECONDS.replace("7430.20", "0.00"), "mean is impossible, 0 ns"),
        (count_lines("count=0"), "timed no run"),
        (count_lines("count=5 curr=5"), "tells no mean"),
        (count_lines("count=5 first=5 curr=5 min=4 max=6 avg=-5 std=1", "-5"), "impossible, -5000"),
        (count_lines("count=5 first=5 curr=5 min=4 max=6 avg=nan std=1", "nan"), "averages"),
        (count_lines("count=5 first=5 curr=5 min=nan max=6 avg=5 std=1"), "minimum is impossible"),
        (count_lines("count=5 first=5 curr=5 min=0 max=6 avg=5 std=1"), "minimum is impossible"),
        (count_lines("count=5 first=5 curr=5 min=4 max=6 avg=5 std=-nan"), "deviation is imposs"),
        (count_lines("count=5 first=5 curr=5 min=4 max=6 avg=5 std=-1"), "deviation is impossible"),
        (count_lines("count=5 first=5 curr=5 min=6 max=7 avg=5 std=1"), "out of order"),
        (count_lines("count=5 first=5 curr=5 min=4 max=4.5 avg=5 std=1"), "out of order"),
        (count_lines("count=5 first=5 curr=5 min=1 max=9 avg=5 p5=7 median=5 p95=8"), "of order"),
        (
            count_lines("count=5 first=5 curr=inf min=4 max=inf avg=5 std=1"),
            "maximum is impossible",
        ),
        (count_lines("count=1 curr=0", "0"), "impossible"),
    ],
)
def test_what_tells_no_latency_is_an_error_with_the_end_of_the_text(text, words):
    with pytest.raises(BenchmarkFailedError, match=words) as error:
        read_benchmark(text)
    assert text.strip()[-100:] in str(error.value)


def test_means_and_medians_are_never_mixed():
    with pytest.raises(BenchmarkFailedError, match="tells no median"):
        read_benchmark(TF_2, statistic="median")
    assert read_benchmark(MEDIAN, statistic="mean").summary.value_ns == 1.24027e9
    same = f"count=2 curr=17(all same)\ncount=9 curr=17(all same)\n{END}17"
    for statistic in ("mean", "median"):
        assert read_benchmark(same, statistic=statistic).summary.statistic == statistic


@given(st.sampled_from([TF_1, TF_2, MEDIAN, LITERT, LITERT_MILLISECONDS]), st.data())
def test_a_damaged_text_gives_an_error_or_a_possible_latency(text, data):
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(place, min(len(text), place + 20)))
        text = text[:place] + data.draw(st.text("0123456789.-+e=( \nnaif", max_size=3)) + text[end:]
    try:
        summary = read_benchmark(text).summary
    except BenchmarkFailedError:
        return
    assert summary.value_ns > 0
    assert summary.count > 0


# -- the result file ---------------------------------------------------------------------------


def varint(value):
    groups = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def number(field, value):
    return varint(field << 3) + varint(value)


def floating(field, value):
    return varint(field << 3 | 5) + struct.pack("<f", value)


def message(field, content):
    return varint(field << 3 | 2) + varint(len(content)) + content


LATENCY = b"".join(
    floating(field, value)
    for field, value in {
        **{1: 33.2094, 2: 32.641, 3: 34.005, 4: 0.45, 5: 33.0, 6: 32.7, 7: 33.9},
        **{8: 0.855, 9: 49.06, 10: 34.8251},
    }.items()
)
RESULT = (
    message(1, b"a name")
    + message(2, LATENCY)
    + message(3, number(1, (1 << 64) - 5) + number(2, 13176) + floating(3, 12.5))
    + message(4, floating(1, 3.5) + number(2, 50) + number(3, 15) + varint(99 << 3 | 1) + bytes(8))
)


def test_the_result_file_comes_first_and_tells_the_median():
    reading = read_benchmark(TF_2, RESULT)
    assert reading.peak_memory_bytes == 12.5 * 2**20
    summary = reading.summary
    assert (summary.statistic, summary.count) == ("median", 50)
    assert summary.value_ns == pytest.approx(33.0e6)
    assert summary.minimum_ns == pytest.approx(32.641e6)
    assert summary.p95_ns == pytest.approx(33.9e6)
    assert summary.deviation_ns == pytest.approx(0.45e6)


def test_a_result_file_without_a_median_tells_the_mean():
    mean = message(2, floating(1, 33.2094)) + message(4, number(2, 50))
    assert read_benchmark(TF_2, mean).summary.statistic == "mean"
    with pytest.raises(BenchmarkFailedError, match="tells no median"):
        read_benchmark(TF_2, mean, statistic="median")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "tells of no timed run"),
        (message(2, LATENCY), "tells of no timed run"),
        (message(2, LATENCY) + message(4, number(2, 0)), "tells of no timed run"),
        (message(2, LATENCY) + message(4, number(2, (1 << 64) - 1)), "tells of no timed run"),
        (RESULT[:-5], "can't be read"),
        (RESULT[:40], "can't be read"),
        (message(2, b"\x0b\x0c") + RESULT, None),
        (b"\x0b" + RESULT, "can't be read"),
        (b"\xff" * 12, "can't be read"),
        (number(2, 5), "can't be read"),
        (message(2, floating(5, 33)) + message(4, number(2, 49)), "another number of runs"),
        (message(2, floating(5, 0)) + message(4, number(2, 50)), "median is impossible"),
        (message(2, floating(5, float("nan"))) + message(4, number(2, 50)), "is impossible"),
        (message(2, floating(5, -3)) + message(4, number(2, 50)), "median is impossible"),
        (message(2, number(5, 33)) + message(4, number(2, 50)), "can't be read"),
    ],
    ids=repr,
)
def test_a_damaged_or_foreign_result_file_is_an_error(content, words):
    if words is None:
        assert read_benchmark(TF_2, content).summary.statistic == "median"
        return
    with pytest.raises(BenchmarkFailedError, match=words):
        read_benchmark(TF_2, content)


@given(st.data())
def test_a_result_file_with_other_bytes_is_an_error_or_read(data):
    content = bytearray(RESULT)
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        told = read_result_file(bytes(content[: data.draw(st.integers(0, len(content)))]))
    except DeviceError:
        return
    assert told.count > 0


def test_protobufs_own_writer_makes_what_is_read():
    """The same message as the program's, described by hand, written by the protobuf package."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="result.proto", package="t", syntax="proto2")
    described = {
        "LatencyMetrics": [("avg_ms", 1, 2), ("median_ms", 5, 2), ("p95_ms", 7, 2)],
        "MemoryMetrics": [("init_footprint_kb", 1, 3), ("peak_mem_mb", 3, 2)],
        "MiscMetrics": [("model_size_mb", 1, 2), ("num_runs", 2, 5)],
        "BenchmarkResult": [
            ("latency_metrics", 2, "LatencyMetrics"),
            ("memory_metrics", 3, "MemoryMetrics"),
            ("misc_metrics", 4, "MiscMetrics"),
        ],
    }
    for name, fields in described.items():
        described_message = file.message_type.add(name=name)
        for label, place, kind in fields:
            field = described_message.field.add(name=label, number=place, label=1)
            field.type = kinds.TYPE_MESSAGE if isinstance(kind, str) else kind
            if isinstance(kind, str):
                field.type_name = f".t.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    result = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.BenchmarkResult"))()
    result.latency_metrics.avg_ms = 2.5
    result.latency_metrics.median_ms = 2.25
    result.latency_metrics.p95_ms = 3.5
    result.memory_metrics.init_footprint_kb = -7
    result.memory_metrics.peak_mem_mb = 4
    result.misc_metrics.num_runs = 300
    told = read_result_file(result.SerializeToString())
    assert told.count == 300
    assert told.times_ns == {"mean": 2.5e6, "median": 2.25e6, "p95": 3.5e6}
    assert told.peak_memory_bytes == 4 << 20


# -- arguments ---------------------------------------------------------------------------------

USAGE = """\
usage: benchmark_model <flags>
Flags:
\t--num_runs=50            \tint32\toptional\texpected number of runs, see also min_secs, max_secs
\t--min_secs=1             \tfloat\toptional\tminimum number of seconds to rerun for
\t--max_secs=150           \tfloat\toptional\tmaximum number of seconds to rerun for
\t--num_threads=-1         \tint32\toptional\tnumber of threads
\t--warmup_runs=1          \tint32\toptional\tminimum number of runs performed on initialization
\t--warmup_min_secs=0.5    \tfloat\toptional\tminimum number of seconds to rerun for
\t--graph=                 \tstring\toptional\tgraph file name
\t--use_gpu=false          \tbool\toptional\tuse gpu
\t--gpu_precision_loss_allowed=true\tbool\toptional\tAllow to process computation in FP16
\t--use_nnapi=false        \tbool\toptional\tuse nnapi delegate api
\t--external_delegate_path=\tstring\toptional\tThe library path for the underlying external.
"""
NEWER = USAGE + "\t--result_file_path=\tstring\toptional\tPath to save the benchmark result\n"


def test_the_program_runs_as_often_as_it_is_told_and_no_longer():
    found = benchmark_arguments(
        "/data/it", supported_flags(NEWER), threads=2, runs=7, warmups=3, max_s=9, result_file="/r"
    )
    assert found == [
        *("--graph=/data/it", "--num_threads=2", "--num_runs=7", "--min_secs=0", "--max_secs=9"),
        *("--warmup_runs=3", "--warmup_min_secs=0", "--result_file_path=/r"),
    ]


def test_a_flag_that_an_older_program_does_not_know_is_left_out():
    flags = supported_flags("--graph=\tstring\n--num_runs=50\n")
    assert benchmark_arguments("/it", flags, runs=7, result_file="/r") == [
        "--graph=/it",
        "--num_runs=7",
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"accelerator": "gpu"}, ["--gpu_precision_loss_allowed=false", "--use_gpu=true"]),
        (
            {"accelerator": "gpu", "precision": "float16"},
            ["--gpu_precision_loss_allowed=true", "--use_gpu=true"],
        ),
        ({"accelerator": "nnapi"}, ["--use_nnapi=true"]),
        (
            {"accelerator": "plugin", "plugin": "/data/lib x.so"},
            ["--external_delegate_path=/data/lib x.so"],
        ),
    ],
)
def test_an_accelerator_is_asked_for_by_its_flag(options, expected):
    plain = benchmark_arguments("/it", supported_flags(USAGE))
    assert benchmark_arguments("/it", supported_flags(USAGE), **options) == plain + expected


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"accelerator": "xnnpack"}, "'xnnpack'; it knows cpu, gpu, nnapi, plugin"),
        ({"accelerator": "warp"}, "no accelerator 'warp'"),
        ({"accelerator": "plugin"}, "needs a delegate's library"),
        ({"plugin": "/x.so"}, "needs a delegate's library"),
    ],
)
def test_what_the_program_can_not_do_is_said(options, words):
    with pytest.raises(UsageError, match=words):
        benchmark_arguments("/it", supported_flags(USAGE), **options)


# -- on a phone --------------------------------------------------------------------------------

SCRIPT = """\
#!/system/bin/sh
# Prints what the model file holds; lines that begin with @ are instructions.
for word in "$@"; do
    case "$word" in
    --help) cat >&2 <<'TEXT'
USAGE
TEXT
        exit 1;;
    --graph=*) graph=${word#--graph=};;
    --result_file_path=*) result=${word#--result_file_path=};;
    esac
done
while IFS= read -r line; do
    case "$line" in
    @arguments) echo "arguments $*";;
    @mask) grep Cpus_allowed: /proc/self/status;;
    @stderr*) echo "${line#@stderr }" >&2;;
    @result*) printf "${line#@result }" > "$result";;
    @exit*) exit "${line#@exit }";;
    *) printf '%s\\n' "$line";;
    esac
done < "$graph"
"""
RESULT_LINE = "@result " + "".join(f"\\{byte:03o}" for byte in RESULT)
GPU_LOG = (
    "@stderr VERBOSE: Replacing 54 out of 60 node(s) with delegate (TfLiteGpuDelegateV2) node, "
    "yielding 3 partitions for subgraph 0.\n"
    "INFO: Explicitly applied GPU delegate, and the model graph will be partially executed by the "
    "delegate w/ 2 delegate kernels.\n"
)


class Bench:
    """A phone with the script on it; models are what it prints."""

    def __init__(self, link, folder):
        self.link = link
        self._folder = folder

    def model(self, text):
        return self._push("model.tflite", text, False)

    def binary(self, usage=NEWER):
        return self._push("benchmark_model", SCRIPT.replace("USAGE\n", usage), True)

    def tool(self, usage=NEWER, **options):
        return BenchmarkModelTool(self.link, self.binary(usage), **options)

    def _push(self, name, text, executable):
        path = self._folder / name
        path.write_text(text)
        (place,) = self.link.push([path], executable=executable)
        return place


@pytest.fixture
def bench(phone, tmp_path):
    with Adb().connect(phone.serial) as link:
        yield Bench(link, tmp_path)


def test_a_model_is_timed_on_the_accelerator_and_its_place_told(bench):
    reading = bench.tool(accelerator="gpu").run(
        bench.model(GPU_LOG + TF_2 + RESULT_LINE + "\n"), runs=50, warmups=3
    )
    assert (reading.summary.statistic, reading.summary.count) == ("median", 50)
    assert reading.summary.value_ns == pytest.approx(33.0e6)
    assert reading.placement == Placement("gpu", 2, 54, 60)


def test_a_delegate_that_took_its_nodes_back_is_told_as_the_cpu(bench):
    """Though the runtime's log, which comes by another stream, says that it took them all."""
    text = (
        "@stderr Replacing 31 out of 31 node(s) with delegate (TfLiteNnapiDelegate) node, yielding "
        "1 partitions.\nINFO: Though NNAPI delegate is explicitly applied, the model graph will "
        f"not be executed by the delegate.\n{TF_2}"
    )
    tool = bench.tool(USAGE, accelerator="nnapi")
    assert tool.run(bench.model(text), runs=50, warmups=1).placement == Placement("cpu", 0, 0)


@pytest.mark.parametrize(
    ("usage", "text", "name"),
    [
        (USAGE, TF_2, "benchmark_model-mean"),
        (USAGE, MEDIAN, "benchmark_model-median"),
        (NEWER, TF_2 + RESULT_LINE + "\n", "benchmark_model-median"),
    ],
)
def test_the_runtimes_name_carries_the_statistic_and_holds_from_then_on(bench, usage, text, name):
    tool = bench.tool(usage)
    assert tool.probe_statistic(bench.model(text)) == name
    reading = tool.run(bench.model(text), runs=50, warmups=1)
    assert name.endswith(reading.summary.statistic)
    if name == "benchmark_model-median":
        mean_only = message(2, floating(1, 33.2)) + message(4, number(2, 50))
        line = "@result " + "".join(f"\\{byte:03o}" for byte in mean_only) + "\n"
        with pytest.raises(BenchmarkFailedError, match="tells no median"):
            tool.run(bench.model(TF_2 + (line if usage == NEWER else "")), runs=50, warmups=1)


def test_the_program_is_pinned_to_the_cores_asked_for(bench):
    short = bench.model("@mask\n@arguments\n@exit 3\n")
    with pytest.raises(BenchmarkFailedError, match="exit code 3") as error:
        bench.tool(USAGE, cores=(0,)).run(short, runs=50, warmups=4)
    mask = str(error.value).split("Cpus_allowed:")[1].split()[0]
    assert int(mask.replace(",", ""), 16) == 1
    assert "--num_runs=50" in str(error.value)
    assert "--warmup_runs=4" in str(error.value)


def test_an_old_result_is_never_taken_for_a_new_one(bench):
    tool = bench.tool()
    tool.run(bench.model(TF_2 + RESULT_LINE + "\n"), runs=50, warmups=1)
    listed = bench.link.shell(["ls", "-a", "/data/local/tmp/latkit"]).stdout
    assert "benchmark_result" not in listed
    bench.link.shell(["sh", "-c", "echo old > /data/local/tmp/latkit/benchmark_result.pb"])
    with pytest.raises(BenchmarkFailedError, match="left no result file"):
        tool.run(bench.model(TF_2), runs=50, warmups=1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Failed to apply GPU delegate.\n@exit 1\n", "exit code 1.*Failed to apply GPU"),
        ("@stderr loading failed\n@exit 134\n", r"134 \(signal 6\).*loading failed"),
        ("Loaded model\n", "were finished"),
        (TF_2, "tells of 50 runs, and was asked for 40"),
    ],
)
def test_a_model_that_fails_is_an_error_of_its_own_that_says_why(bench, text, words):
    with pytest.raises(BenchmarkFailedError, match=f"(?s){words}"):
        bench.tool(USAGE).run(bench.model(text), runs=40, warmups=1)


def test_a_link_that_breaks_at_any_call_is_not_the_models_fault(bench, phone):
    tool = bench.tool()
    model = bench.model(TF_2 + RESULT_LINE + "\n")
    phone.reset_counters()
    tool.run(model, runs=50, warmups=1)
    calls = phone.counters["open"]
    assert calls >= 4
    for index in range(calls):
        phone.arm(CutAt("open", index))
        with pytest.raises(LinkLostError):
            tool.run(model, runs=50, warmups=1)
        phone.reconnect()
    assert tool.run(model, runs=50, warmups=1).summary.count == 50


def test_garbage_on_the_way_is_an_error(bench, phone):
    tool = bench.tool(USAGE)
    model = bench.model(TF_2)
    phone.arm(Garbage("--graph", b"count=50 first=NaN avg=\xff\xfe\n", line=5))
    with pytest.raises(BenchmarkFailedError, match="tells no mean"):
        tool.run(model, runs=50, warmups=1)


def test_a_file_that_is_no_benchmark_program_is_refused(bench):
    with pytest.raises(UsageError, match=r"names no --graph(?s:.*)usage: other"):
        bench.tool("usage: other\n")
    with pytest.raises(UsageError, match="names no --graph"):
        BenchmarkModelTool(bench.link, "/data/local/tmp/latkit/missing")
    with pytest.raises(UsageError, match="knows no accelerator 'xnnpack'"):
        bench.tool(accelerator="xnnpack")


# -- a genuine program -------------------------------------------------------------------------


def test_litert_own_benchmark_program_is_read(tmp_path):
    module = "ai_edge_litert.tools.benchmark_litert_model"
    path = tmp_path / "canary.tflite"
    path.write_bytes(convert(build_canary()))
    arguments = [f"--model={path}", "--num_runs=30", "--warmup_runs=3"]
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False
    )
    if "No module named" in done.stderr:
        pytest.skip("this ai-edge-litert has no benchmark program; pip install ai-edge-litert>=2.3")
    reading = read_benchmark(done.stdout, stderr=done.stderr)
    summary = reading.summary
    assert (summary.statistic, summary.count) == ("median", 30)
    # It rounds to hundredths of a millisecond.
    assert summary.value_ns % 10_000 == pytest.approx(0, abs=1e-3)
    assert summary.minimum_ns <= summary.p5_ns <= summary.value_ns <= summary.p95_ns
