"""The file of a finished search: what it says of targets, and older versions of it."""

import json
from dataclasses import asdict

import pytest
from latkit.devices.device import Setup
from latkit.devices.errors import DamagedFileError
from latkit.latency.document import write_document
from latkit.search.result import KIND, Finalist, SearchResult, Target
from latkit.search.space import Architecture

SETUP = Setup("phone", "onnxruntime", "1")


def finalist(kind="at most", target_ms=2.0, measured_ms=1.9, strategy="evolution", **changes):
    values = {
        "strategy": strategy, "kind": kind, "target_ms": target_ms,
        "architecture": Architecture((0, 1)), "description": "a network",
        "searched_choices": (0, 1), "searched_ms": 1.9, "supernet_accuracy": 0.5,
        "evaluations": 6, "corrections": 1, "predicted_ms": 1.8, "low_ms": 1.7, "high_ms": 2.0,
        "prediction_source": "predicted", "measured_ms": measured_ms,
        "measured_low_ms": 0.99 * measured_ms, "measured_high_ms": 1.01 * measured_ms,
        "verdict": "stable", "verdict_reasons": (), "validation_accuracy": 0.6,
        "test_accuracy": 0.6, "flops": 100, "parameters": 10, "block_ms": (1.0, 0.8),
        "onnx_file": "evolution/model.onnx", "tflite_file": "evolution/model.tflite",
    }  # fmt: skip
    return Finalist(**{**values, **changes})


def result(*finalists):
    targets = dict.fromkeys((item.target_ms, item.kind) for item in finalists)
    return SearchResult(
        "quick", "mobile", "", {}, ("0", "1"), "digits",
        tuple(Target(ms, kind, ms, 1.0, ("search.jsonl",)) for ms, kind in targets),
        0, SETUP, "table.json", "store.sqlite", {}, finalists, {"training": 1.0},
    )  # fmt: skip


def test_what_is_saved_is_read_again(tmp_path):
    saved = result(
        finalist(), finalist(strategy="random"), finalist(target_ms=4.0, measured_ms=3.0)
    )
    saved.save(tmp_path / "result.json")
    assert SearchResult.load(tmp_path / "result.json") == saved
    assert saved.winners == (saved.finalists[0], saved.finalists[2])
    assert saved.of(saved.targets[0]) == saved.finalists[:2]


@pytest.mark.parametrize(
    ("kind", "measured_ms", "meets"),
    [
        ("at most", 1.0, True),
        ("at most", 2.01, True),
        ("at most", 2.05, False),
        ("exactly", 1.0, False),
        ("exactly", 1.97, True),
        ("exactly", 2.03, True),
        ("exactly", 2.07, False),
    ],
)
def test_a_target_is_met_where_the_measured_interval_agrees_with_it(kind, measured_ms, meets):
    assert finalist(kind, measured_ms=measured_ms).meets_target == meets


def test_a_result_of_version_1_is_read_as_a_landing(tmp_path):
    body = json.loads(json.dumps(asdict(result(finalist("exactly")))))
    for name in ("recipe", "scale", "targets"):
        del body[name]
    body |= {"target_ms": 2.0, "limit_ms": 2.3, "space_address": "mobile"}
    (old,) = body["finalists"]
    for name in ("kind", "target_ms"):
        del old[name]
    old |= {"onnx_file": "model.onnx", "tflite_file": "model.tflite"}
    write_document(tmp_path / "result.json", KIND, 1, body)
    found = SearchResult.load(tmp_path / "result.json")
    assert (found.target_ms, found.limit_ms, found.space_address) == (2.0, 2.3, "mobile")
    assert found.finalists == (finalist("exactly"),)
    del body["target_ms"]
    write_document(tmp_path / "result.json", KIND, 1, body)
    with pytest.raises(DamagedFileError, match="holds no valid search result"):
        SearchResult.load(tmp_path / "result.json")
