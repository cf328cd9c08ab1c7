"""What an emulated phone takes is kept, labelled, and refused by `table` and `fit` unless asked."""

from __future__ import annotations

import json

import pytest
from latkit.latency.store import Store
from latkit.latency.table import LatencyTable
from latkit.search.cli import app
from phone import libraries
from phone.shared import shared_phone
from typer.testing import CliRunner

SPACE = """
import itertools
import random

from latkit.latency.blocks import ConvBlock
from latkit.latency.network import Network


class Tiny:
    name = "tiny"

    def conv(self, kernel, height):
        return ConvBlock(
            in_channels=16, height=height, width=height, out_channels=16, kernel=kernel, stride=2
        )

    def blocks(self):
        return [self.conv(kernel, height) for height in (32, 16, 8) for kernel in (1, 3, 5)]

    def sample_networks(self, count, seed):
        every = list(itertools.product((1, 3, 5), repeat=3))
        chosen = random.Random(seed).sample(every, min(count, 27))
        return [
            Network.chain([self.conv(kernel, 32 >> index) for index, kernel in enumerate(kernels)])
            for kernels in chosen
        ]
"""
NETWORKS = ["--calibration-networks", "4", "--held-out-networks", "2"]
QUICK = ["--rounds", "2", "--processes", "1", "--runs", "2"]


def latkit(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def profiled(request, tmp_path_factory):
    """A folder with a space, and a store of its profile on an emulated phone; what was printed."""
    folder = tmp_path_factory.mktemp("emulated")
    (folder / "tiny.py").write_text(SPACE)
    with shared_phone(request, folder) as phone:
        code, out, err = latkit(
            *("profile", "--device", f"adb:{phone.serial}", "--space", folder / "tiny.py:Tiny"),
            *("--runtime-library", libraries.onnxruntime_library()),
            *("--store", folder / "s.sqlite", *NETWORKS, *QUICK, "--json"),
        )
    assert code == 0, err
    return folder, json.loads(out)


def test_what_an_emulated_phone_takes_is_labelled_in_the_store(profiled):
    folder, told = profiled
    assert told["failures"] == []
    with Store(folder / "s.sqlite", create=False) as store:
        (setup,) = store.setups()
        assert setup.emulated and setup.key.endswith("|emulated")
        assert store.device_info(setup)["emulated_reason"] == "ro.boot.qemu is 1"


def test_a_table_of_it_is_made_only_where_asked_for(profiled):
    folder, _ = profiled
    table = folder / "table.json"
    command = ["table", "--space", folder / "tiny.py:Tiny", "--store", folder / "s.sqlite"]
    command += [*NETWORKS, "--output", table]
    code, out, err = latkit(*command)
    assert (code, out) == (2, "")
    assert "says nothing of a real phone" in err and "--allow-emulated" in err
    assert not table.exists()
    assert latkit(*command, "--allow-emulated")[0] == 0
    assert LatencyTable.load(table).setup.emulated


def test_a_predictor_is_fitted_to_it_only_where_asked_for(profiled):
    folder, _ = profiled
    predictor = folder / "predictor.json"
    command = ["fit", "--store", folder / "s.sqlite", "--output", predictor, "--json"]
    command += ["--device", "adb:SANDBOX0001"]
    code, out, err = latkit(*command)
    assert (code, out) == (2, "")
    assert "--allow-emulated" in err
    assert not predictor.exists()
    code, out, err = latkit(*command, "--allow-emulated")
    assert code == 0, err
    assert json.loads(out)["setup"]["emulated"] is True
