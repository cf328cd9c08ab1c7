"""From the command: kernels profiled, a model predictor fitted, model files predicted by it."""

import json

import onnx
import pytest
from latkit.latency.models import kernel_profile
from latkit.latency.models.predictor import FEWEST_NETWORKS
from latkit.latency.models.probe_networks import probe_network
from latkit.search.cli import app
from typer.testing import CliRunner

pytestmark = pytest.mark.quiet

COMMAND = CliRunner()


def latkit(*words):
    return COMMAND.invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A store of small probe networks that were really timed, and a model that took no part."""
    path = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(kernel_profile, "MOST_RUNS", 3)
        patched.setattr(kernel_profile, "FEWEST_RUNS", 2)
        patched.setattr(kernel_profile, "REPEATS_SHARE", 0.0)
        done = latkit(
            *("profile", "--kernels", "--networks", FEWEST_NETWORKS, "--store", path / "s.sqlite"),
            "--json",
        )
    assert done.exit_code == 0, done.output
    (path / "profile.json").write_text(done.stdout)
    onnx.save(probe_network(999), path / "model.onnx")
    return path


@pytest.fixture(scope="module")
def predictor(folder):
    path = folder / "predictor.json"
    done = latkit(*("fit", "--kernels", "--store", folder / "s.sqlite", "--output", path, "--json"))
    assert done.exit_code == 0, done.output
    fitted = json.loads(done.stdout)
    assert fitted["networks"] == FEWEST_NETWORKS
    assert fitted["cross_validated"]["rmspe"] > 0
    return path


def test_profiling_tells_what_it_came_to(folder):
    told = json.loads((folder / "profile.json").read_text())
    assert told["networks"] == FEWEST_NETWORKS
    assert told["kernels"] > 100 and told["seconds"] > 0 and told["failures"] == {}


def test_profiling_again_times_nothing_more(folder):
    done = latkit(
        *("profile", "--kernels", "--networks", FEWEST_NETWORKS, "--store", folder / "s.sqlite"),
    )
    assert done.exit_code == 0, done.output
    seconds = json.loads((folder / "profile.json").read_text())["seconds"]
    assert f"{FEWEST_NETWORKS} probe networks" in done.stdout
    assert f"{seconds / 60:.1f} minutes" in done.stdout


def test_a_model_file_is_predicted_with_a_line_for_each_kernel(folder, predictor):
    done = latkit("predict", folder / "model.onnx", "--predictor", predictor)
    assert done.exit_code == 0, done.output
    for words in ("remainder", "whole model", "100.0%", "model.onnx"):
        assert words in done.stdout


def test_predictions_come_as_json(folder, predictor):
    model = folder / "model.onnx"
    done = latkit("predict", model, model, "--predictor", predictor, "--json")
    assert done.exit_code == 0, done.output
    (first, second) = json.loads(done.stdout)["models"]
    assert first["path"] == str(model)
    total = sum(kernel["latency_ms"] for kernel in first["kernels"])
    assert total + first["remainder_ms"] == pytest.approx(first["latency_ms"])
    assert first["low_ms"] < first["latency_ms"] < first["high_ms"]
    assert first["latency_ms"] == pytest.approx(second["latency_ms"])
    assert first["source"] == "runtime"
    assert {"unknown_share", "unknown_operations", "reason"} <= first.keys()


def test_another_setup_is_refused(folder, predictor):
    done = latkit("predict", folder / "model.onnx", "--predictor", predictor, "--threads", 2)
    assert done.exit_code == 2
    assert "was made for" in done.output


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "model.onnx"),
        ("predict", "model.onnx", "--table", "predictor.json"),
        ("predict", "model.onnx", "--predictor", "predictor.json", "--space", "mobile"),
        ("predict", "none.onnx", "--predictor", "predictor.json"),
        ("predict", "--predictor", "predictor.json"),
        ("profile", "--networks", "3", "model.onnx"),
        ("profile", "--kernels", "model.onnx"),
        ("profile", "--kernels", "--device", "adb:none"),
        ("fit", "--kernels", "--eviction-bytes", "3", "--output", "o.json"),
    ],
    ids=" ".join,
)
def test_what_does_not_fit_together_is_refused(folder, predictor, words, monkeypatch):
    monkeypatch.chdir(folder)
    done = latkit(*words, *(("--store", "s.sqlite") if words[0] != "predict" else ()))
    assert done.exit_code in (2, 3), done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)


def test_a_store_without_probe_networks_says_what_to_do(folder, tmp_path):
    block = tmp_path / "blocks.json"
    block.write_text(
        '[{"kind": "ConvBlock", "in_channels": 8, "height": 8, "width": 8, "out_channels": 8}]'
    )
    store = tmp_path / "s.sqlite"
    done = latkit(
        *("profile", "--blocks", block, "--store", store, "--rounds", 1, "--processes", 1)
    )
    assert done.exit_code == 0, done.output
    done = latkit("fit", "--kernels", "--store", store, "--output", tmp_path / "p.json")
    assert done.exit_code == 2
    assert "--kernels" in done.output
