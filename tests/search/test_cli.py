"""The command `latkit`: what bad input ends with, and a whole search killed and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from counting_phone import TABLE_MS_PER_FLOP, Phone
from latkit.devices.registry import open_device
from latkit.latency.calibration import Calibration, is_timed
from latkit.latency.counts import block_counts
from latkit.latency.table import Entry, LatencyTable
from latkit.search import cli
from latkit.search.cli import app
from latkit.search.images.digits import read_digits
from latkit.search.log import LogEntry, SearchLog
from latkit.search.spaces.mobile import mobile_space
from PIL import Image
from typer.testing import CliRunner

SMALL = (
    "--set", "strategy.budget=6", "--set", "settings.epochs=2",
    "--set", "retraining.epochs=1",
)  # fmt: skip


def priced(block):
    median_ms = 0.002 + block_counts(block).flops / 1e8
    return Entry(median_ms, 0.99 * median_ms, 1.01 * median_ms)


@pytest.fixture(scope="module")
def table():
    """A table of this machine for the whole space, priced by operation counts."""
    entries = {block: priced(block) for block in mobile_space().blocks() if is_timed(block)}
    setup = open_device("cpu").setup
    return LatencyTable(setup, 0, 16, entries, Calibration(interval_share=0.1))


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def search(table, folder, *arguments):
    path = folder / "table.json"
    if not path.exists():
        table.save(path)
    return run(
        "search", "--table", path, "--store", folder / "store.sqlite", "--output",
        folder / "search", *SMALL, *arguments,
    )  # fmt: skip


def test_an_unknown_device_ends_with_3_and_lists_the_known(table, tmp_path):
    result = search(table, tmp_path, "--device", "toaster:1")
    assert result.exit_code == 3
    assert "toaster:1" in result.stderr and "cpu" in result.stderr


def test_a_runtime_that_is_not_installed_ends_with_3_and_names_the_package(
    table, tmp_path, monkeypatch
):
    for name in [name for name in sys.modules if name.startswith(("ai_edge_litert", "tflite_r"))]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("ai_edge_litert", "tflite_runtime"):
        monkeypatch.setitem(sys.modules, name, None)
    result = search(table, tmp_path, "--runtime", "litert")
    assert result.exit_code == 3
    assert "ai-edge-litert" in result.stderr


@pytest.mark.parametrize(
    "target",
    [
        ("--target-latency-ms", "0.000001"),
        ("--max-latency-ms", "0.5", "--max-latency-ms", "0.000001"),
    ],
)
def test_an_unreachable_target_ends_with_6_and_names_the_smallest_latency(table, tmp_path, target):
    result = search(table, tmp_path, *target)
    assert result.exit_code == 6
    assert "smallest reachable latency is" in " ".join(result.stderr.split())
    assert not (tmp_path / "search").exists()


def test_a_table_of_another_device_ends_with_2_and_names_both(table, tmp_path):
    other = replace(table, setup=replace(table.setup, device="cpu:abacus"))
    result = search(other, tmp_path)
    assert result.exit_code == 2
    message = " ".join(result.stderr.split())
    assert "cpu:abacus" in message and table.setup.runtime_version in message


def test_a_table_with_one_byte_flipped_ends_with_5(table, tmp_path):
    path = tmp_path / "table.json"
    table.save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert search(table, tmp_path).exit_code == 5


def test_a_damaged_store_ends_with_5_and_is_left_as_it_is(table, tmp_path):
    content = np.random.default_rng(0).bytes(20_000)
    (tmp_path / "store.sqlite").write_bytes(content)
    assert search(table, tmp_path).exit_code == 5
    assert (tmp_path / "store.sqlite").read_bytes() == content


def test_an_empty_data_folder_ends_with_2(table, tmp_path):
    (tmp_path / "images").mkdir()
    result = search(table, tmp_path, "--data", tmp_path / "images")
    assert result.exit_code == 2
    assert "images" in result.stderr


def test_images_of_mixed_sizes_end_with_2_and_name_two_of_them(table, tmp_path):
    for index in range(8):
        path = tmp_path / "images" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        size = 32 if index < 7 else 40
        Image.new("RGB", (size, size), (index, 0, 0)).save(path)
    result = search(table, tmp_path, "--data", tmp_path / "images")
    assert result.exit_code == 2
    assert "7.png" in result.stderr and "--resize" in result.stderr


def test_images_are_read_as_large_as_the_space_wants_them(table, tmp_path):
    for index in range(8):
        path = tmp_path / "images" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (index, 0, 0)).save(path)
    (tmp_path / "small.py").write_text(
        "from latkit.search.spaces.mobile import MobileSpace\n"
        "def small(classes):\n    return MobileSpace(classes, resolution=24)\n"
    )
    space = ("--space", f"{tmp_path / 'small.py'}:small")
    result = search(table, tmp_path, "--data", tmp_path / "images", *space)
    assert result.exit_code == 2
    assert "32x32" in result.stderr and "24x24 pixels are needed" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--strategy", "astrology"), "coarse_to_fine"),
        (("--recipe", "soup"), "spos"),
        (("--space", "outer"), "mobile"),
        (("--set", "settings.epoch=1"), "settings.epochs"),
        (("--space", "mobile", "--set", "scale.width=0.5"), "scale"),
        (("--max-latency-ms", "1", "--target-latency-ms", "1"), "not both"),
        (("--max-latency-ms", "-1"), "positive"),
    ],
)
def test_what_is_not_known_or_makes_no_sense_ends_with_2_and_says_what_would(
    table, tmp_path, arguments, told
):
    result = search(table, tmp_path, *arguments)
    assert result.exit_code == 2
    assert told in result.stderr


@pytest.mark.parametrize(
    ("verb", "package"), [(["search", "--table", "t.json"], "torch"), (["report"], "matplotlib")]
)
def test_without_the_extra_the_verbs_say_what_to_install(verb, package):
    program = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {package!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name}', name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        f"from latkit.search.cli import app; app({verb!r})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 2
    assert "latkit[search]" in done.stderr and package in done.stderr


def test_a_report_of_no_search_ends_with_2(tmp_path):
    assert run("report", "--search", tmp_path).exit_code == 2


def test_a_search_that_is_not_finished_has_a_report_of_its_evaluations(tmp_path):
    log = SearchLog(tmp_path / "search" / "search.jsonl", {"space": "mobile", "seed": 0})
    result = run("report", "--search", tmp_path / "search")
    assert result.exit_code == 2 and "evaluated anything" in result.stderr
    for index in range(4):
        log.append(LogEntry("evolution", index, (index,), 1.0 + index, 0.5 + index / 16))
    with log.path.open("ab") as file:
        file.write(b'{"strategy": "evol')  # as it is while a line is being written
    result = run(
        "report", "--search", tmp_path / "search", "--output", tmp_path / "shown",
        "--tensorboard", tmp_path / "events", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    written = json.loads(result.stdout)
    assert written["tensorboard"] == str(tmp_path / "events")
    page = (tmp_path / "shown" / "report.html").read_text()
    assert "not finished" in page and "68.75 %" in page
    assert (tmp_path / "shown" / "best_so_far.png").exists()
    assert list((tmp_path / "events" / "evolution").iterdir())


@pytest.fixture(scope="module")
def phone_search(tmp_path_factory):
    """Runs `latkit search` without a table, on a phone, in a small space, with few images."""
    folder = tmp_path_factory.mktemp("phone")
    phone = Phone(1.1 * TABLE_MS_PER_FLOP)
    digits = read_digits(8).images
    np.savez(folder / "few.npz", images=digits.images.pixels[:300], labels=digits.labels[:300])
    (folder / "small.py").write_text(
        "from latkit.search.spaces import Scale\n"
        "from latkit.search.spaces.nasbench201 import NasBench201Space\n"
        "def small(classes):\n"
        "    return NasBench201Space(classes, Scale(width=0.25, resolutions=(8,)), cells=1)\n"
    )

    def start(output, *arguments):
        before = len(phone.calls)
        result = run(
            "search", "--device", "phone", "--space", f"{folder / 'small.py'}:small",
            "--data", folder / "few.npz", "--store", folder / "store.sqlite",
            "--output", output, "--json", *SMALL, *arguments,
        )  # fmt: skip
        return phone.calls[before:], result

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cli, "open_device", lambda address, options: phone)
        yield start, phone


def test_one_command_profiles_searches_within_budgets_and_reports(phone_search, tmp_path):
    start, phone = phone_search
    budgets = ("--max-latency-ms", "0.08", "--max-latency-ms", "0.03")
    calls, done = start(tmp_path, *budgets)
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert [item["target_ms"] for item in result["targets"]] == [0.03, 0.08]
    assert [item["strategy"] for item in result["finalists"]] == ["bayesian", "random"] * 2
    for item in result["finalists"]:
        assert item["meets_target"] and item["measured_ms"] <= item["target_ms"]
        assert (tmp_path / item["onnx_file"]).stat().st_size > 1000
    assert LatencyTable.load(tmp_path / "table.json").setup == phone.setup
    reported = run("report", "--search", tmp_path)
    assert reported.exit_code == 0, reported.stderr
    assert calls
    calls, again = start(tmp_path, *budgets)
    assert json.loads(again.stdout)["finalists"] == result["finalists"]
    assert calls == []


def test_a_store_that_has_all_tells_of_an_unreachable_target_before_anything_else(
    phone_search, tmp_path
):
    start, _ = phone_search
    start(tmp_path / "first", "--max-latency-ms", "0.000001")
    calls, refused = start(tmp_path / "second", "--max-latency-ms", "0.000001")
    assert refused.exit_code == 6
    assert "smallest reachable latency is" in " ".join(refused.stderr.split())
    assert calls == [] and not (tmp_path / "second").exists()


def test_a_phone_slower_than_when_it_was_profiled_ends_with_6_and_keeps_the_result(
    phone_search, tmp_path
):
    start, phone = phone_search
    start(tmp_path / "first", "--max-latency-ms", "0.000001")
    as_profiled, phone.ms_per_flop = phone.ms_per_flop, 50 * phone.ms_per_flop
    _, done = start(tmp_path / "slow", "--max-latency-ms", "0.02", "--no-random-search")
    phone.ms_per_flop = as_profiled
    assert done.exit_code == 6, done.stderr
    (winner,) = json.loads(done.stdout)["finalists"]
    assert not winner["meets_target"] and winner["measured_ms"] > 0.02
    assert "did not hold on the device" in " ".join(done.stderr.split())
    assert (tmp_path / "slow" / "result.json").exists()


@pytest.mark.timeout(280)
def test_a_search_killed_in_training_and_in_searching_ends_as_one_that_was_not(table, tmp_path):
    table.save(tmp_path / "table.json")
    digits = read_digits(32).images
    np.savez(tmp_path / "few.npz", images=digits.images.pixels[:300], labels=digits.labels[:300])
    command = [
        sys.executable, "-m", "latkit.search", "search", *SMALL, "--table",
        str(tmp_path / "table.json"), "--data", str(tmp_path / "few.npz"),
        "--training-threads", "1", "--max-latency-ms", "100", "--json",
    ]  # fmt: skip

    def start(name):
        places = ["--store", str(tmp_path / f"{name}.sqlite"), "--output", str(tmp_path / name)]
        return subprocess.Popen(
            [*command, *places], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def kill_when(name, reached):
        process = start(name)
        deadline = time.monotonic() + 100
        while not reached(tmp_path / name) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    def lines(folder):
        path = folder / "search.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    kill_when("killed", lambda folder: (folder / "weights.checkpoint").exists())
    kill_when("killed", lambda folder: lines(folder) >= 4)
    kept = (tmp_path / "killed" / "search.jsonl").read_bytes()
    results = {}
    for name in ("killed", "whole"):
        output, _ = start(name).communicate(timeout=200)
        results[name] = json.loads(output)
    log = (tmp_path / "killed" / "search.jsonl").read_bytes()
    assert log.startswith(kept[: kept.rfind(b"\n") + 1])
    assert log == (tmp_path / "whole" / "search.jsonl").read_bytes()
    assert lines(tmp_path / "whole") == 1 + 2 * 6
    for result in results.values():
        assert [item["strategy"] for item in result["finalists"]] == ["bayesian", "random"]
        for item in result["finalists"]:
            assert item["measured_ms"] > 0
            folder = tmp_path / "whole"
            assert (folder / item["onnx_file"]).stat().st_size > 1000
            assert (folder / item["tflite_file"]).stat().st_size > 1000
