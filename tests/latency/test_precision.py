"""Profile, table, fit and predict in float16 and int8, in one store and never mixed."""

import json

import pytest
import typer
from latkit.devices.device import PRECISIONS
from latkit.latency.blocks import MBConv
from latkit.latency.cli import register
from latkit.latency.store import Store
from latkit.latency.subject import subject_to_json
from typer.testing import CliRunner

pytestmark = pytest.mark.quiet

QUICK = ["--rounds", "1", "--processes", "1", "--runs", "2"]
BLOCKS = [
    MBConv(channels, 7, 7, out_channels=channels, expanded_channels=3 * channels, kernel=kernel)
    for channels in (8, 16, 24, 32, 40)
    for kernel in (3, 5)
]
SPACE = """
import itertools
import random

from latkit.latency.blocks import Pointwise
from latkit.latency.network import Network


class Pairs:
    name = "pairs"

    def blocks(self):
        return [Pointwise(8, 6, 6, out_channels=8, activation=name) for name in self.kinds]

    kinds = ("none", "relu", "relu6")

    def sample_networks(self, count, seed):
        every = list(itertools.product(self.blocks(), repeat=2))
        return [Network.chain(item) for item in random.Random(seed).sample(every, min(count, 9))]
"""


@pytest.fixture(scope="module")
def latkit(tmp_path_factory):
    """Runs the command in a folder of its own, where all precisions of one store are profiled."""
    folder = tmp_path_factory.mktemp("precision")
    app = typer.Typer()
    register(app)

    def call(*words):
        result = CliRunner().invoke(app, [str(word) for word in words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        (folder / "blocks.json").write_text(json.dumps([subject_to_json(item) for item in BLOCKS]))
        (folder / "pairs.py").write_text(SPACE)
        yield call


@pytest.fixture(scope="module", params=["onnxruntime", "litert"])
def runtime(request, latkit):
    """A runtime for which the store holds the blocks in every precision."""
    for precision in PRECISIONS:
        words = ["--blocks", "blocks.json", "--runtime", request.param, "--precision", precision]
        code, out, err = latkit("profile", *words, *QUICK, "--json")
        assert code == 0, err
        assert json.loads(out)["failures"] == []
    return request.param


def narrowed(runtime, precision):
    return ["--runtime", runtime, "--precision", precision]


def test_every_precision_has_rows_of_its_own(latkit, runtime):
    with Store("latkit.sqlite", create=False) as store:
        setups = [item for item in store.setups() if item.runtime == runtime]
        assert {item.precision for item in setups} == set(PRECISIONS)
        assert len({item.key for item in setups}) == len(PRECISIONS)
        counts = [len(store.measurements(item, 0)) for item in setups]
    assert counts == [len(BLOCKS)] * len(PRECISIONS)


def test_a_predictor_is_fitted_to_one_precision_and_refuses_another(latkit, runtime):
    precision, other = ("int8", "float16") if runtime == "onnxruntime" else ("float16", "float32")
    code, _, err = latkit("fit", "--runtime", runtime, "--output", "any.json")
    assert code == 2
    assert "several setups" in err.replace("\n", " ")
    file = f"{runtime}-{precision}.json"
    code, _, err = latkit("fit", *narrowed(runtime, precision), "--output", file)
    assert code == 0, err
    words = ["--predictor", file, "--blocks", "blocks.json", "--json"]
    code, out, err = latkit("predict", *words, "--precision", precision)
    assert code == 0, err
    assert len(json.loads(out)["estimates"]) == len(BLOCKS)
    code, _, err = latkit("predict", *words, "--precision", other)
    assert code == 2
    assert f"|{precision}" in err.replace("\n", "") and f"|{other}" in err.replace("\n", "")


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_a_table_is_of_one_precision(latkit, runtime, precision):
    plan = ["--space", "pairs.py:Pairs", "--calibration-networks", 4, "--held-out-networks", 1]
    code, out, err = latkit("profile", *plan, *narrowed(runtime, precision), *QUICK, "--json")
    assert code == 0, err
    file = f"{runtime}-{precision}-table.json"
    code, _, err = latkit("table", *plan, *narrowed(runtime, precision), "--output", file)
    assert code == 0, err
    code, _, err = latkit("table", *plan, *narrowed(runtime, "float32"), "--output", "wide.json")
    assert code != 0  # The space was not profiled in float32: nothing is taken from elsewhere.
    assert json.loads(out)["calibration"]["held_out"]["networks"] == 1
    words = ["--table", file, "--blocks", "blocks.json"]
    code, _, err = latkit("predict", *words, "--precision", "float32")
    assert code == 2 and f"|{precision}" in err.replace("\n", "")
