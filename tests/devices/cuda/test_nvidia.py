"""What is read from nvidia-smi: a program that answers as the real one did stands on the PATH."""

from __future__ import annotations

import os
import stat
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from latkit.devices import DeviceError
from latkit.devices.cuda import nvidia as nvidia_module
from latkit.devices.cuda.nvidia import REASONS, Gpu, NvidiaSmi, slowdown, visible

HEADER = "| NVIDIA-SMI 580.159.04   Driver Version: 580.159.04   CUDA Version: 13.0 |"
H100 = {
    "index": "0",
    "uuid": "GPU-11111111-aaaa-bbbb-cccc-000000000000",
    "name": "NVIDIA H100 80GB HBM3",
    "mig.mode.current": "Disabled",
    "driver_version": "580.159.04",
    "vbios_version": "96.00.74.00.1A",
    "compute_cap": "9.0",
    "memory.total": "81559",
    "pci.bus_id": "00000000:04:00.0",
    "persistence_mode": "Enabled",
    "compute_mode": "Default",
    "ecc.mode.current": "Enabled",
    "power.limit": "700.00",
    "power.default_limit": "700.00",
    "clocks.max.sm": "1980",
    "clocks.max.memory": "2619",
    "clocks.applications.graphics": "1980",
    "clocks.current.sm": "345",
    "clocks.current.memory": "2619",
    "power.draw": "68.53",
    "temperature.gpu": "31",
    "temperature.memory": "40",
    "pstate": "P0",
    "utilization.gpu": "0",
    "memory.used": "4",
    "clocks_event_reasons.active": "0x0000000000000001",
    "clocks_event_reasons_counters.sw_power_cap": "1200",
    "clocks_event_reasons_counters.sw_thermal_slowdown": "0",
    "clocks_event_reasons_counters.hw_thermal_slowdown": "0",
    "clocks_event_reasons_counters.hw_power_brake_slowdown": "0",
}
OLD = {
    "index": "1",
    "uuid": "GPU-22222222-aaaa-bbbb-cccc-000000000000",
    "name": "NVIDIA GeForce GTX 1050 Ti",
    "mig.mode.current": "[N/A]",
    "driver_version": "390.157",
    "vbios_version": "86.07.39.00.50",
    "memory.total": "4040",
    "pci.bus_id": "00000000:05:00.0",
    "persistence_mode": "Disabled",
    "compute_mode": "Default",
    "ecc.mode.current": "[Not Supported]",
    "power.limit": "[Unknown Error]",
    "power.default_limit": "75.00 W",
    "clocks.max.sm": "1911",
    "clocks.max.memory": "3504",
    "clocks.applications.graphics": "[Not Supported]",
    "clocks.current.sm": "1354",
    "clocks.current.memory": "3504",
    "power.draw": "[N/A]",
    "temperature.gpu": "84",
    "pstate": "P0",
    "utilization.gpu": "97",
    "memory.used": "1033",
    "clocks_throttle_reasons.active": "0x0000000000000024",
}
"""A driver that has neither counters nor the new names."""

PROGRAM = """#!{python}
import json, sys
with open({calls!r}, "a") as calls:
    calls.write(json.dumps(sys.argv[1:]) + "\\n")
rows, words = {rows!r}, sys.argv[1:]
query = [word.partition("=")[2] for word in words if word.startswith("--query-gpu=")]
if not query:
    print({header!r})
    sys.exit()
assert words[-1] == "--format=csv,noheader,nounits", words
chosen = [word.partition("=")[2] for word in words if word.startswith("--id=")]
for field in query[0].split(","):
    if any(field not in row for row in rows):
        print(f'Field "{{field}}" is not a valid field to query.\\n')
        sys.exit(2)
for row in rows:
    if not chosen or row["uuid"] in chosen:
        print(", ".join(row[field] for field in query[0].split(",")))
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts an nvidia-smi that tells these GPUs, or runs this source, first on the PATH."""

    def write(*rows, source=None, header=HEADER):
        path = tmp_path / "bin" / "nvidia-smi"
        path.parent.mkdir(exist_ok=True)
        given = {
            "python": sys.executable,
            "calls": str(tmp_path / "calls"),
            "rows": list(rows),
            "header": header,
        }
        path.write_text(PROGRAM.format(**given) if source is None else source)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return write


def test_gpus_are_listed_with_index_uuid_and_name(install):
    install(H100)
    assert NvidiaSmi().gpus() == [Gpu(0, H100["uuid"], H100["name"], False)]


def test_facts_of_a_gpu_have_numbers_and_the_drivers_cuda(install):
    install(H100)
    nvidia_smi = NvidiaSmi()
    facts = nvidia_smi.facts(nvidia_smi.gpus()[0])
    assert facts["uuid"] == H100["uuid"]
    assert facts["driver"] == "580.159.04"
    assert facts["driver_cuda"] == "13.0"
    assert (facts["power_limit_w"], facts["memory_mib"]) == (700, 81559)
    assert facts["clock_sm_limit_mhz"] == 1980
    assert not [name for name in facts if name.endswith("_reason")]


def test_the_drivers_cuda_is_read_from_newer_headers_too(install):
    install(H100, header="| NVIDIA-SMI 617.14  KMD Version: 617.14  CUDA UMD Version: 13.4 |")
    nvidia_smi = NvidiaSmi()
    assert nvidia_smi.facts(nvidia_smi.gpus()[0])["driver_cuda"] == "13.4"
    install(H100, header="nothing")
    facts = NvidiaSmi().facts(nvidia_smi.gpus()[0])
    assert facts["driver_cuda"] is None
    assert "does not tell" in facts["driver_cuda_reason"]


def test_state_tells_clocks_power_temperature_and_reasons(install):
    install(H100)
    nvidia_smi = NvidiaSmi()
    state = nvidia_smi.state(nvidia_smi.gpus()[0])
    assert (state["clock_sm_mhz"], state["clock_memory_mhz"]) == (345, 2619)
    assert (state["power_w"], state["temperature_c"]) == (68.53, 31)
    assert state["reasons"] == ["idle"]
    assert state["sw_power_cap_us"] == 1200


def test_what_a_driver_does_not_know_or_support_is_none_with_a_reason(install, tmp_path):
    install(OLD)
    nvidia_smi = NvidiaSmi()
    (gpu,) = nvidia_smi.gpus()
    facts, state = nvidia_smi.facts(gpu), nvidia_smi.state(gpu)
    assert facts["compute_capability"] is None
    assert "does not know compute_cap" in facts["compute_capability_reason"]
    assert facts["error_correction"] is None
    assert facts["error_correction_reason"] == "nvidia-smi: Not Supported"
    assert facts["power_limit_w_reason"] == "nvidia-smi: Unknown Error"
    assert facts["power_limit_default_w"] == 75
    assert state["power_w"] is None
    assert state["hw_thermal_slowdown_us"] is None
    assert state["reasons"] == ["power cap", "software thermal slowdown"]
    before = len((tmp_path / "calls").read_text().splitlines())
    nvidia_smi.state(gpu)
    assert len((tmp_path / "calls").read_text().splitlines()) == before + 1


def test_unknown_bits_among_the_reasons_are_kept(install):
    install({**H100, "clocks_event_reasons.active": "0x0000000000004040"})
    nvidia_smi = NvidiaSmi()
    reasons = nvidia_smi.state(nvidia_smi.gpus()[0])["reasons"]
    assert reasons == ["hardware thermal slowdown", "0x4000"]


def test_no_driver_is_an_error_that_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="no NVIDIA driver here: nvidia-smi is not on the PATH"):
        NvidiaSmi()


def test_a_driver_that_does_not_answer_is_told_in_its_own_words(install):
    said = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    install(source=f'#!/bin/sh\necho "{said}"\nexit 9\n')
    with pytest.raises(DeviceError, match="exit code 9: NVIDIA-SMI has failed because"):
        NvidiaSmi().gpus()


def test_a_driver_that_hangs_is_given_up(install):
    install(source="#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(DeviceError, match="gave no answer"):
        NvidiaSmi(timeout_s=0.3).gpus()


@pytest.mark.parametrize("said", ["", "garbage", "0, GPU-1", "0, GPU-1, a name, Disabled, more"])
def test_garbage_is_an_error_and_no_gpu(install, said):
    install(source=f'#!/bin/sh\necho "{said}"\n')
    with pytest.raises(DeviceError, match="no table of 4 columns"):
        NvidiaSmi().gpus()


def test_a_program_that_can_not_be_run_is_an_error(install):
    install(source="#!/no/such/interpreter\n")
    with pytest.raises(DeviceError, match="can't be run"):
        NvidiaSmi().gpus()


def test_a_row_without_uuid_is_an_error(install):
    install({**H100, "uuid": "[N/A]"})
    with pytest.raises(DeviceError, match="no index, uuid or name"):
        NvidiaSmi().gpus()


GPUS = [Gpu(number, f"GPU-{number}abc-def", "GPU", False) for number in range(3)]


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        (None, [0, 1, 2]),
        ("2,0", [2, 0]),
        ("GPU-1abc", [1]),
        ("GPU-2abc-def, 1", [2, 1]),
        ("0,-1,2", [0]),
        ("1,7,0", [1]),
        ("1,1", [1]),
        ("GPU-", []),
        ("", []),
        ("-1", []),
    ],
)
def test_only_gpus_that_cuda_may_see_are_there(chosen, left):
    assert [gpu.index for gpu in visible(GPUS, chosen)] == left


def test_cuda_visible_devices_of_the_environment_counts(install, monkeypatch):
    install(H100, {**H100, "index": "1", "uuid": "GPU-9"})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [gpu.index for gpu in NvidiaSmi().gpus()] == [1]


def state(**values):
    return {"reasons": [], **values}


def test_a_slowdown_between_two_states_is_told_by_its_counter():
    before, after = state(hw_thermal_slowdown_us=100), state(hw_thermal_slowdown_us=12600)
    assert slowdown(before, after) == "the GPU was under hw_thermal_slowdown for 12.5 ms"
    assert slowdown(after, after) is None


def test_a_slowdown_that_is_active_is_told_where_there_are_no_counters():
    assert "hardware power brake" in slowdown(state(), state(reasons=["hardware power brake"]))
    assert slowdown({}, state(reasons=None)) is None


@given(st.sets(st.sampled_from(sorted(REASONS.values()))))
def test_idling_and_a_power_cap_are_no_slowdown(reasons):
    bad = {name for name in reasons if "slowdown" in name or "brake" in name}
    told = slowdown(state(), state(reasons=sorted(reasons)))
    assert (told is not None) == bool(bad)
    assert all(name in told for name in bad)


@pytest.mark.skipif(
    nvidia_module.shutil.which("nvidia-smi") is None, reason="no NVIDIA GPU: no nvidia-smi"
)
def test_a_real_gpu_tells_its_facts_and_state():
    nvidia_smi = NvidiaSmi()
    gpus = nvidia_smi.gpus()
    if not gpus:
        pytest.skip("no NVIDIA GPU")
    facts, now = nvidia_smi.facts(gpus[0]), nvidia_smi.state(gpus[0])
    assert facts["driver"]
    assert facts["uuid"].startswith("GPU-")
    assert now["temperature_c"] > 0
    for row in (facts, now):
        assert all(f"{name}_reason" in row for name, value in row.items() if value is None)
