import json
from dataclasses import asdict, replace

import pytest
import typer
from latkit.devices.cpu import CpuDevice
from latkit.devices.device import Round, Setup, TimingProtocol, Visit
from latkit.latency.blocks import MBConv
from latkit.latency.calibration import Calibration
from latkit.latency.cli import register
from latkit.latency.network import Network
from latkit.latency.store import Store
from latkit.latency.subject import (
    subject_from_json,
    subject_label,
    subject_to_json,
    write_model,
)
from latkit.latency.table import Entry, LatencyTable
from typer.testing import CliRunner

pytestmark = pytest.mark.quiet

QUICK = ["--rounds", "2", "--processes", "1", "--runs", "2"]
SETUP = Setup("cpu:somewhere", "litert", "2.0", cores=(0,))


def block(channels, kernel=3):
    return MBConv(
        in_channels=channels,
        height=8,
        width=8,
        out_channels=channels,
        expanded_channels=3 * channels,
        kernel=kernel,
    )


BLOCKS = [block(channels, kernel) for channels in range(8, 81, 8) for kernel in (3, 5)]


@pytest.fixture
def latkit(monkeypatch, tmp_path):
    """Runs the command; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    register(app)

    def call(*words):
        result = CliRunner().invoke(app, [str(word) for word in words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return call


@pytest.fixture
def block_file(tmp_path):
    def write(blocks):
        path = tmp_path / "blocks.json"
        path.write_text(json.dumps([subject_to_json(item) for item in blocks]))
        return path

    return write


@pytest.fixture
def table_file(tmp_path):
    entries = {item: Entry(1.0, 0.9, 1.1) for item in BLOCKS}
    table = LatencyTable(SETUP, 0, 8, entries, Calibration(scale=2.0, constant_ms=0.5))
    path = tmp_path / "table.json"
    table.save(path)
    return path


def fill(path, setup=SETUP, eviction_bytes=0):
    """A store of `BLOCKS`, their latency growing with their channels and kernel."""
    with Store(path) as store:
        keys = store.add_subjects(BLOCKS)
        for index in range(6):
            visits = {
                (key, eviction_bytes): Visit((item.in_channels * item.kernel * 1000 + index,), None)
                for key, item in zip(keys, BLOCKS, strict=True)
            }
            run_id = f"{setup.key}{eviction_bytes}"
            item = Round(run_id, index // 2, index, 0, True, 0.0, 0.1, (1000,), 0.0, visits)
            store.add_round(setup, TimingProtocol(), {}, item)


# --- profile


def test_blocks_are_profiled_once(latkit, block_file, tmp_path):
    path = block_file(BLOCKS[:2])
    command = ["profile", "--blocks", path, "--store", "s.sqlite", *QUICK, "--json"]
    code, out, _ = latkit(*command)
    assert code == 0
    data = json.loads(out)
    assert [subject_from_json(item["model"]) for item in data["measurements"]] == BLOCKS[:2]
    assert all(item["median_ms"] > 0 for item in data["measurements"])
    assert data["setup"] == json.loads(json.dumps(asdict(CpuDevice().setup)))
    with Store(tmp_path / "s.sqlite") as store:
        rounds = store.rounds(CpuDevice().setup)
    code, out, _ = latkit(*command)
    assert json.loads(out) == data
    with Store(tmp_path / "s.sqlite") as store:
        assert store.rounds(CpuDevice().setup) == rounds


def test_table_for_people_has_interval_verdict_and_reason(latkit, block_file, monkeypatch):
    monkeypatch.setattr("latkit.devices.console.stdout.width", 300)
    code, out, _ = latkit("profile", "--blocks", block_file(BLOCKS[:1]), *QUICK)
    assert code == 0
    assert subject_label(BLOCKS[0]) in out
    assert " to " in out
    assert "noisy" in out
    assert "only 2 rounds" in out


def test_strict_ends_with_4_and_shows_what_was_measured(latkit, block_file):
    code, out, err = latkit(
        "profile", "--blocks", block_file(BLOCKS[:1]), *QUICK, "--strict", "--json"
    )
    assert code == 4
    assert "only 2 rounds" in err
    assert len(json.loads(out)["measurements"]) == 1


def test_model_files_with_the_time_of_each_operation(latkit, tmp_path):
    path = write_model(Network.chain([block(8), block(8, 5)]), tmp_path)
    code, out, _ = latkit("profile", path, *QUICK, "--per-op", "--json")
    assert code == 0
    data = json.loads(out)
    times = data["per_op"][str(path)]
    kinds = [item["kind"] for item in times["operations"]]
    assert kinds.count("Conv") >= 4
    assert times["whole_ms"] == pytest.approx(times["sum_ms"] + times["remainder_ms"])
    assert times["sum_ms"] == pytest.approx(sum(item["median_ms"] for item in times["operations"]))


def test_operations_of_litert_by_its_own_names(latkit, tmp_path):
    path = write_model(block(8), tmp_path)
    code, out, _ = latkit("profile", path, *QUICK, "--per-op", "--runtime", "litert", "--json")
    assert code == 0
    kinds = [item["kind"] for item in json.loads(out)["per_op"][str(path)]["operations"]]
    assert "Convolution DWConv" in kinds and "Fully Connected GEMM" in kinds


def test_model_that_fails_ends_with_3_and_its_cause(latkit, tmp_path):
    good = write_model(block(8), tmp_path)
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no model")
    code, out, err = latkit("profile", good, bad, *QUICK, "--json")
    assert code == 3
    assert "1 of 2 models failed" in err
    data = json.loads(out)
    assert len(data["measurements"]) == 1
    assert data["failures"][0]["cause"] in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "give one of"),
        (["--blocks", "b.json", "m.onnx"], "give one of"),
        (["--blocks", "none.json"], "none.json"),
        (["none.onnx"], "none.onnx"),
        (["--space", "nowhere"], "there is no space nowhere"),
        (["--space", "mobile", "--eviction-bytes", "5"], "--space"),
        (["--blocks", "b.json", "--per-op"], "--per-op"),
    ],
)
def test_wrong_use_ends_with_2(latkit, words, said):
    code, out, err = latkit("profile", *words)
    assert code == 2
    assert said in err
    assert out == ""


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--device", "toaster"], 3, "toaster"),
        (["--runtime", "nosuch"], 3, "nosuch"),
        (["--precision", "int3"], 2, "int3"),
        (["--cores", "a"], 2, "--cores a"),
        (["--cores", "-1"], 2, "--cores"),
        (["--store", "none/s.sqlite"], 2, "no folder"),
    ],
)
def test_device_that_is_not_there(latkit, block_file, words, code, said):
    found, _, err = latkit("profile", "--blocks", block_file(BLOCKS[:1]), *words)
    assert found == code
    assert said in err


def test_damaged_store_ends_with_5(latkit, block_file, tmp_path):
    fill(tmp_path / "s.sqlite")
    content = (tmp_path / "s.sqlite").read_bytes()
    (tmp_path / "s.sqlite").write_bytes(content[: len(content) // 2])
    path = block_file(BLOCKS[:1])
    code, _, err = latkit("profile", "--blocks", path, "--store", "s.sqlite", *QUICK)
    assert code == 5
    assert "s.sqlite is damaged" in err


# --- table and fit


def test_store_that_is_not_there_is_not_made(latkit, tmp_path):
    for verb in (["table", "--space", "mobile"], ["fit"]):
        code, _, err = latkit(*verb, "--output", "out.json")
        assert code == 2
        assert "there is no store" in err
    assert not list(tmp_path.iterdir())


def test_several_setups_are_listed_and_chosen_by_options(latkit, tmp_path):
    other = replace(SETUP, threads=2)
    fill(tmp_path / "s.sqlite")
    fill(tmp_path / "s.sqlite", other)
    command = ["fit", "--store", "s.sqlite", "--output", "p.json", "--json"]
    code, _, err = latkit(*command)
    assert code == 2
    assert SETUP.key in err
    assert other.key in err
    code, out, _ = latkit(*command, "--threads", "2", "--device", "somewhere")
    assert code == 0
    assert json.loads(out)["setup"]["threads"] == 2
    code, _, err = latkit(*command, "--threads", "3")
    assert code == 2
    assert "no setup" in err


def test_predictor_is_fitted_at_the_size_with_most_blocks_or_the_one_asked_for(latkit, tmp_path):
    fill(tmp_path / "s.sqlite", eviction_bytes=4096)
    command = ["fit", "--store", "s.sqlite", "--output", "p.json", "--json"]
    code, out, _ = latkit(*command)
    assert code == 0
    data = json.loads(out)
    assert (data["eviction_bytes"], data["blocks"]) == (4096, len(BLOCKS))
    assert data["cross_validated"]["rmspe"] < 0.5
    code, _, err = latkit(*command, "--eviction-bytes", "7")
    assert code == 2
    assert f"{len(BLOCKS)} at 4096 bytes" in err


def test_fitted_predictor_predicts(latkit, block_file, tmp_path):
    fill(tmp_path / "s.sqlite")
    assert latkit("fit", "--store", "s.sqlite", "--output", "p.json")[0] == 0
    path = block_file([block(36)])
    code, out, _ = latkit("predict", "--predictor", "p.json", "--blocks", path, "--json")
    assert code == 0
    (estimate,) = json.loads(out)["estimates"]
    assert estimate["source"] == "predicted"
    assert 0.03 < estimate["latency_ms"] < 0.3
    assert estimate["low_ms"] < estimate["latency_ms"] < estimate["high_ms"]


def test_table_of_a_space_that_was_not_profiled_says_so(latkit, tmp_path):
    fill(tmp_path / "s.sqlite")
    code, _, err = latkit("table", "--store", "s.sqlite", "--space", "mobile", "--output", "t.json")
    assert code in (2, 3)
    assert "calibration networks" in err
    assert not (tmp_path / "t.json").exists()


# --- predict


def test_blocks_are_looked_up_in_a_table(latkit, table_file, block_file):
    path = block_file([BLOCKS[3]])
    code, out, _ = latkit("predict", "--table", table_file, "--blocks", path, "--json")
    assert code == 0
    assert json.loads(out)["estimates"] == [
        {
            "model": subject_to_json(BLOCKS[3]),
            "latency_ms": 1.0,
            "low_ms": 0.9,
            "high_ms": 1.1,
            "source": "measured",
            "reason": "",
        }
    ]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--device", "elsewhere"], "elsewhere"),
        (["--device", "cpu", "--runtime", "onnxruntime"], "onnxruntime"),
        (["--threads", "4"], "threads=4"),
        (["--cores", "0,1"], "cores=0+1"),
    ],
)
def test_table_of_another_setup_is_refused_naming_both(
    latkit, table_file, block_file, words, named
):
    path = block_file(BLOCKS[:1])
    command = ["predict", "--table", table_file, "--blocks", path]
    code, out, err = latkit(*command, *words)
    assert code == 2
    assert SETUP.key in err
    assert named in err
    assert out == ""
    assert latkit(*command, "--device", "somewhere", "--runtime", "litert", "--cores", "0")[0] == 0


SPACE = """
from test_latency_cli import BLOCKS
from latkit.latency.network import Network


class Pair:
    name = "pair"

    def blocks(self):
        return BLOCKS[:2]

    def sample_networks(self, count, seed):
        return []

    def architecture(self, choices):
        return tuple(choices)

    def network(self, architecture):
        return Network.chain([BLOCKS[index] for index in architecture])
"""


def test_architecture_of_a_space_is_calibrated(latkit, table_file, tmp_path, request, monkeypatch):
    monkeypatch.syspath_prepend(str(request.path.parent))
    (tmp_path / "pair.py").write_text(SPACE)
    code, out, _ = latkit(
        *("predict", "--table", table_file, "--space", "pair.py:Pair"),
        *("--architecture", "0,1", "--json"),
    )
    assert code == 0
    (estimate,) = json.loads(out)["estimates"]
    assert estimate["latency_ms"] == pytest.approx(0.5 + 2 * 2 * 1.0)
    assert subject_from_json(estimate["model"]) == Network.chain(BLOCKS[:2])


TINY = """
import itertools
import random
from dataclasses import dataclass

from latkit.latency.blocks import ConvBlock
from latkit.latency.network import Network


@dataclass
class Tiny:
    name: str = "tiny"

    def conv(self, kernel, height):
        return ConvBlock(
            in_channels=16, height=height, width=height, out_channels=16, kernel=kernel, stride=2
        )

    def blocks(self):
        return [self.conv(kernel, height) for height in (32, 16, 8) for kernel in (1, 3, 5)]

    def sample_networks(self, count, seed):
        every = list(itertools.product((1, 3, 5), repeat=3))
        return [self.network(item) for item in random.Random(seed).sample(every, min(count, 27))]

    def architecture(self, choices):
        return [(1, 3, 5)[choice] for choice in choices]

    def network(self, kernels):
        return Network.chain(
            [self.conv(kernel, 32 >> index) for index, kernel in enumerate(kernels)]
        )
"""


def test_space_is_profiled_made_a_table_and_predicted(latkit, tmp_path, monkeypatch):
    monkeypatch.setattr("latkit.devices.console.stdout.width", 300)
    (tmp_path / "tiny.py").write_text(TINY)
    plan = ["--space", "tiny.py:Tiny", "--calibration-networks", "4", "--held-out-networks", "2"]
    code, out, _ = latkit("profile", *plan, *QUICK, "--json")
    assert code == 0
    profiled = json.loads(out)
    assert profiled["calibration"]["held_out"]["networks"] == 2
    assert profiled["failures"] == []
    assert [item["role"] for item in profiled["networks"]].count("held_out") == 2
    code, out, _ = latkit("table", *plan, "--output", "t.json", "--json")
    assert code == 0
    assert json.loads(out) == {**profiled, "output": "t.json"}
    code, out, _ = latkit("table", *plan, "--output", "t.json")
    assert code == 0
    assert "held-out networks" in out
    command = ["--table", "t.json", "--space", "tiny.py:Tiny", "--architecture", "0,1,2", "--json"]
    code, out, _ = latkit("predict", *command, "--device", "cpu")
    assert code == 0
    (estimate,) = json.loads(out)["estimates"]
    assert 0 < estimate["low_ms"] <= estimate["latency_ms"] <= estimate["high_ms"]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--blocks", "b.json", "--space", "mobile", "--architecture", "0"],
        ["--space", "mobile"],
        ["--space", "mobile", "--architecture", "a,b"],
        ["--space", "mobile", "--architecture", "0"],
    ],
)
def test_predicting_nothing_or_too_much_ends_with_2(latkit, table_file, words):
    assert latkit("predict", "--table", table_file, *words)[0] == 2


def test_prediction_needs_one_table_or_predictor(latkit, block_file):
    code, _, err = latkit("predict", "--blocks", block_file(BLOCKS[:1]))
    assert code == 2
    assert "--table FILE and --predictor FILE" in err


def test_damaged_table_ends_with_5(latkit, table_file, block_file):
    content = table_file.read_bytes()
    table_file.write_bytes(content[:-100])
    code, _, err = latkit("predict", "--table", table_file, "--blocks", block_file(BLOCKS[:1]))
    assert code == 5
    assert "damaged" in err
