from __future__ import annotations

import dataclasses
import json

import pytest
from latkit.devices import DeviceError, Model, TimingProtocol
from latkit.devices import rounds as rounds_module
from latkit.devices.options import DeviceOptions
from latkit.devices.registry import open_device
from phone import libraries
from phone.faults import Garbage
from phone.models import write_conv
from phone.shared import shared_phone

ONE_ROUND = TimingProtocol(rounds=1, processes=1, runs=3, warmups=1, max_repeats=0, max_wait_s=0)
TWO_ROUNDS = dataclasses.replace(ONE_ROUND, rounds=2)
RUNNER = 'exec "$@"'
"""In the command line that starts the runner, and in no other."""


@pytest.fixture(scope="module")
def opened(request, tmp_path_factory):
    """A phone, and the device that it was opened as."""
    with shared_phone(request, tmp_path_factory.mktemp("phone")) as phone:
        options = DeviceOptions(runtime_library=libraries.onnxruntime_library())
        yield phone, open_device(f"adb:{phone.serial}", options)


@pytest.fixture(autouse=True)
def any_canary(monkeypatch):
    """However busy this host is: no round is repeated, or its canary asked again, for noise."""
    monkeypatch.setattr(rounds_module, "CANARY_DRIFT_LIMIT", 1e9)
    monkeypatch.setattr(rounds_module, "SEVERE_DRIFT", 1e9)


@pytest.fixture
def models(tmp_path):
    return [
        Model(f"conv{channels}", write_conv(tmp_path / f"conv{channels}.onnx", channels))
        for channels in (4, 8)
    ]


SETTLING = 1
"""Before the first round the worker has the canary run as one, to settle."""


def changed_visit(change):
    """A change of the first model's visit in the second round; `change` gets and gives a dict."""
    rounds_ended = 0

    def changed(line):
        nonlocal rounds_ended
        rounds_ended += line.startswith(b'{"end":"round"')
        if rounds_ended <= SETTLING or not line.startswith(b'{"visit":0,'):
            return line
        rounds_ended = -1000
        answer = change(json.loads(line))
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n"

    return changed


def changed_end(**values):
    """A change of the line that ends the second round."""
    rounds_ended = 0

    def changed(line):
        nonlocal rounds_ended
        if not line.startswith(b'{"end":"round"'):
            return line
        rounds_ended += 1
        if rounds_ended < SETTLING + 2:
            return line
        return json.dumps({**json.loads(line), **values}).encode() + b"\n"

    return changed


def first_sample(value):
    return changed_visit(lambda told: {**told, "samples_ns": [value, *told["samples_ns"][1:]]})


def twice(told):
    line = json.dumps(told).encode() + b"\n"
    return line + line


def test_the_emulated_phone_can_change_a_single_visit(opened, models):
    phone, device = opened
    phone.arm(Garbage(RUNNER, first_sample(123_456_789), lines=10**6))
    rounds = list(device.measure(models, TWO_ROUNDS))
    assert rounds[0].visits["conv4", 0].samples_ns[0] != 123_456_789
    assert rounds[1].visits["conv4", 0].samples_ns[0] == 123_456_789


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed_visit(lambda _: b"\xff\xfe garbage\n"), "garbage"),
        (changed_visit(lambda _: b"[" * 100_000 + b"\n"), "no runner says"),
        (changed_visit(lambda _: b"3\n"), "no runner says"),
        (changed_visit(lambda _: b""), "was next"),
        (changed_visit(twice), "was next|before all"),
        (changed_visit(lambda told: {**told, "visit": 99}), "a model 99"),
        (changed_visit(lambda told: {**told, "visit": True}), "a model True"),
        (changed_visit(lambda told: {**told, "samples_ns": told["samples_ns"][1:]}), "3 samples"),
        (changed_visit(lambda told: {**told, "samples_ns": [1] * 4}), "3 samples"),
        (changed_visit(lambda told: {**told, "samples_ns": "fast"}), "3 samples"),
        (changed_visit(lambda told: {**told, "preempted": [0]}), "preemption"),
        (first_sample(0), "sent 0 as a time"),
        (first_sample(-5), "sent -5 as a time"),
        (first_sample(float("nan")), "NaN"),
        (first_sample(float("inf")), "Infinity"),
        (first_sample(1.5), "sent 1.5 as a time"),
        (first_sample(True), "sent True as a time"),
        (first_sample(10**30), "as a time"),
        (changed_end(duration_ns=0), "sent 0 as a time"),
        (changed_end(pinned_to="all"), "pinned to"),
        (changed_end(pinned_to=None), "pinned to"),
        (changed_end(before=[]), "state of its cores"),
    ],
    ids=[
        *("no-text", "deep", "number", "left-out", "twice", "extra-model", "bool-model", "fewer"),
        *("more", "text-samples", "preempted", "zero", "negative", "nan", "infinite", "float"),
        *("bool", "huge", "no-duration", "bad-cores", "no-cores", "bad-state"),
    ],
)
def test_what_no_runner_says_ends_the_call_and_keeps_the_rounds_before(
    opened, models, change, said
):
    phone, device = opened
    phone.clear_faults()
    phone.arm(Garbage(RUNNER, change, lines=10**6))
    kept = []
    with pytest.raises(DeviceError, match=said):
        for item in device.measure(models, TWO_ROUNDS):
            kept.append(item)
    assert [item.index for item in kept] == [0]
    assert set(kept[0].visits) == {model.key for model in models}


def changed_load(start, change):
    def changed(line):
        return change(line) if line.startswith(start) else line

    return changed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed_load(b'{"loaded":0,', lambda _: b""), "2 models of 3"),
        (changed_load(b'{"loaded":0,', lambda line: line + line), "twice"),
        (changed_load(b'{"loaded":0,', lambda _: b'{"loaded":5}\n'), "a model 5"),
        (changed_load(b'{"loaded":0,', lambda _: b'{"what":5}\n'), "a model None"),
        (changed_load(b'{"loaded":0,', lambda _: b'{"loaded":0}\n'), "sent None as a time"),
        (
            changed_load(b'{"loaded":-1,', lambda _: b'{"failed":-1,"cause":"no"}\n'),
            "canary can't be loaded: no",
        ),
        (changed_load(b'{"loaded":0,', lambda _: b'{"error":"tired"}\n'), "runner says: tired"),
    ],
    ids=["left-out", "twice", "extra-model", "unknown", "no-time", "canary", "error"],
)
def test_what_no_runner_says_of_loading_ends_the_call(opened, models, change, said):
    phone, device = opened
    phone.clear_faults()
    phone.arm(Garbage(RUNNER, change, lines=10**6))
    with pytest.raises(DeviceError, match=said):
        list(device.measure(models, ONE_ROUND))
