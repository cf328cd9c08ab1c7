"""LiteRT's profiler through its C interface, in this process: what is asked of it is sound."""

import pytest
from latkit.devices import litert_profile
from latkit.devices.canary import canary_file
from latkit.devices.convert import prepare
from latkit.devices.errors import DeviceError
from latkit.devices.litert_profile import LiteRtProfile, operator_times, whole_times_ms

OPERATOR, DELEGATE_OPERATOR, PLAIN = 2, 8, 1


def run(*elapsed_us):
    first, second = elapsed_us
    return [
        ("AllocateTensors", PLAIN, 99),
        ("Invoke", PLAIN, first + second),
        ("TfLiteXNNPackDelegate", OPERATOR, first),
        ("Convolution (NHWC, F32) IGEMM", DELEGATE_OPERATOR, first),
        ("GATHER", OPERATOR, second),
    ]


def test_operators_are_those_of_the_delegate_and_of_the_interpreter():
    found = operator_times([run(7, 2), run(9, 3)])
    assert [item.name for item in found] == ["Convolution (NHWC, F32) IGEMM", "GATHER"]
    assert [item.kind for item in found] == ["Convolution IGEMM", "GATHER"]
    assert found[0].times_ms == pytest.approx((0.0075, 0.0095))


def test_whole_runs_are_their_own_events():
    assert whole_times_ms([run(7, 2), run(9, 3)]) == [0.009, 0.012]


def test_runs_of_different_operators_are_refused():
    with pytest.raises(DeviceError, match="in each run"):
        operator_times([run(7, 2), run(7, 2)[:-1]])


def test_a_real_model_is_profiled_and_warmups_are_left_out(tmp_path):
    path = prepare(canary_file(tmp_path), "litert", tmp_path)
    profile = LiteRtProfile(path, 1)
    for _ in range(3):
        profile.run()
    operations, runs_ms = profile.operations([False, True, True])
    kinds = [item.kind for item in operations]
    assert kinds[:3] == ["Convolution IGEMM"] * 3 and kinds[-1] == "Fully Connected GEMM"
    assert {len(item.times_ms) for item in operations} == {2}
    assert len(runs_ms) == 2 and min(runs_ms) > 0


def test_another_version_is_refused_with_the_one_that_is_spoken(tmp_path, monkeypatch):
    monkeypatch.setattr(litert_profile, "VERSIONS", ("9.9.",))
    with pytest.raises(DeviceError, match=r"ai-edge-litert==9\.9\.\*"):
        LiteRtProfile(tmp_path / "m.tflite", 1)


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DeviceError, match="LiteRtCreateModelFromFile failed"):
        LiteRtProfile(tmp_path / "none.tflite", 1)
