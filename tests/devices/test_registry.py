from __future__ import annotations

import json

import pytest
import typer
from latkit.devices import (
    DeviceError,
    DeviceListing,
    DeviceOptions,
    list_devices,
    open_device,
)
from latkit.devices.cli import register
from latkit.devices.host import activity, allowed_cores, hardware_name, host_facts
from typer.testing import CliRunner


@pytest.fixture(autouse=True)
def no_adb(monkeypatch):
    """No test here starts this computer's shared adb server."""
    monkeypatch.setenv("ADBUTILS_ADB_PATH", "/nowhere/adb")


@pytest.fixture
def app():
    app = typer.Typer()
    register(app)
    app.callback()(lambda: None)
    return app


def test_cpu_opens_with_its_options():
    core = allowed_cores()[:1]
    device = open_device("cpu", DeviceOptions(runtime="litert", cores=core))
    assert device.setup.runtime == "litert"
    assert device.setup.cores == core
    assert device.setup.precision == "float32"


@pytest.mark.parametrize("address", ["toaster", "", "toaster:1"])
def test_an_unknown_address_lists_the_known(address):
    with pytest.raises(DeviceError, match=r"are: .*cpu"):
        open_device(address)


def test_cpu_is_one_device_only():
    with pytest.raises(DeviceError, match="no device cpu:1"):
        open_device("cpu:1")


def test_an_added_kind_opens_and_a_broken_one_hurts_only_itself(tmp_path, monkeypatch):
    (tmp_path / "toaster.py").write_text(
        "class Kind:\n"
        "    def open(self, place, options): return (place, options.threads)\n"
        "    def name(self, place, options): return place\n"
        "    def found(self, options): return []\n"
    )
    folder = tmp_path / "toaster-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: toaster\nVersion: 1\n")
    (folder / "entry_points.txt").write_text(
        "[latkit.devices]\ntoaster = toaster:Kind\nbroken = nowhere:Kind\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert open_device("toaster:left:2", DeviceOptions(threads=3)) == ("left:2", 3)
    assert open_device("cpu").setup.device.startswith("cpu:")
    with pytest.raises(DeviceError, match="from nowhere:Kind"):
        open_device("broken")


def test_devices_are_listed():
    (listing,) = [item for item in list_devices() if item.address == "cpu"]
    assert isinstance(listing, DeviceListing)
    assert set(listing.runtimes) == {"onnxruntime", "litert"}
    assert listing.cores == allowed_cores()


def test_the_verb_writes_json_that_is_json_only(app):
    result = CliRunner().invoke(app, ["devices", "--json"])
    assert result.exit_code == 0
    (listing,) = [item for item in json.loads(result.stdout) if item["address"] == "cpu"]
    assert listing["name"] == hardware_name()


def test_the_verb_writes_a_table(app, capsys):
    result = CliRunner().invoke(app, ["devices"])
    assert result.exit_code == 0
    assert "onnxruntime" in result.stdout + capsys.readouterr().out


@pytest.mark.parametrize("facts", [host_facts(), activity(None), activity((9999,))])
def test_what_can_not_be_read_is_null_with_a_reason(facts):
    json.dumps(facts, allow_nan=False)
    for name, value in facts.items():
        if value is None:
            assert facts[f"{name}_reason"]


def test_host_facts_hold_the_essentials():
    facts = host_facts()
    assert facts["processor"] and facts["processor_count"] >= 1
    assert facts["memory_bytes"] > 1 << 20
    assert "|" not in hardware_name()


def test_without_adb_the_list_says_how_to_get_it(app):
    result = CliRunner().invoke(app, ["devices", "--json"])
    (phones,) = [item for item in json.loads(result.stdout) if item["address"] == "adb"]
    assert "ADBUTILS_ADB_PATH" in phones["problem"] and not phones["runtimes"]
