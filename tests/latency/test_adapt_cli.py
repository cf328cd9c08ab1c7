import csv
import json

import numpy as np
import pytest
import typer
from latkit.devices.device import Round, Setup, TimingProtocol, Visit
from latkit.latency.adapt_cli import register
from latkit.latency.blocks import MBConv
from latkit.latency.calibration import Calibration
from latkit.latency.counts import block_counts
from latkit.latency.predicting import load_estimator
from latkit.latency.store import Store
from latkit.latency.subject import read_block_list, subject_to_json
from latkit.latency.table import Entry, LatencyTable
from latkit.latency.transfer.adapting import read_measured
from latkit.latency.transfer.table import AdaptedTable
from typer.testing import CliRunner

SETUP = Setup("new phone", "litert", "2.3", cores=(0,))
BLOCKS = [
    MBConv(
        in_channels=channels,
        height=14,
        width=14,
        out_channels=channels,
        expanded_channels=expansion * channels,
        kernel=kernel,
    )
    for channels in (16, 24, 32, 40, 48, 64)
    for expansion in (3, 6)
    for kernel in (3, 5)
]


def device_ms(block, gflops, overhead_ms):
    return overhead_ms + block_counts(block).flops / (gflops * 1e6)


@pytest.fixture
def latkit(monkeypatch, tmp_path):
    """Runs the verb; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    register(app)
    app.callback()(lambda: None)

    def call(*words):
        result = CliRunner().invoke(app, ["adapt", *map(str, words)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return call


@pytest.fixture
def data(tmp_path):
    """A file of three devices, and the latencies of a fourth."""
    random = np.random.default_rng(0)
    choices = random.integers(0, 3, (120, 5))
    effects = random.gamma(2.0, 1.0, (4, 1, 3)) * random.gamma(8.0, 0.1, (4, 5, 3))
    latency = 1 + effects[:, np.arange(5), choices].sum(2).T
    known = latency[:, :3].copy()
    known[:10, 1] = np.nan
    np.savez(tmp_path / "data.npz", ops=choices, devices=["a", "b", "c"], latency_ms=known)
    return tmp_path / "data.npz", latency[:, 3]


@pytest.fixture
def tables(tmp_path):
    paths = []
    for index, (gflops, overhead_ms) in enumerate([(2.0, 0.01), (8.0, 0.05)]):
        entries = {}
        for block in BLOCKS:
            value = device_ms(block, gflops, overhead_ms)
            entries[block] = Entry(value, 0.9 * value, 1.1 * value)
        paths.append(tmp_path / f"table{index}.json")
        setup = Setup(f"phone {index}", "litert", "2.3")
        LatencyTable(setup, 0, 8, entries, Calibration()).save(paths[-1])
    return paths


def profiled(path, blocks, setup=SETUP):
    """What `latkit profile --blocks` leaves behind."""
    with Store(path) as store:
        keys = store.add_subjects(blocks)
        for index in range(6):
            visits = {}
            for key, block in zip(keys, blocks, strict=True):
                took = round(device_ms(block, 4.0, 0.02) * 1e6)
                visits[key, 0] = Visit((took - 5, took, took + 5), None)
            run_id = f"run on {setup.key}"
            item = Round(run_id, index, index, 0, True, 0.0, 0.1, (1000,), 0.0, visits)
            store.add_round(setup, TimingProtocol(), {}, item)


def fill(path, latency, skip=()):
    """Write latencies into the CSV of the first step, as a user does."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    lines = [
        f"{row['index']},{'' if place in skip else latency[int(row['index'])]}"
        for place, row in enumerate(rows)
    ]
    path.write_text("\n".join(["index,latency_ms", *lines]) + "\n")
    return [int(row["index"]) for row in rows]


def test_architectures_in_two_steps(latkit, data, tmp_path):
    path, truth = data
    code, out, _ = latkit("--data", path, "--choose", 12, "--output", "measure.csv", "--json")
    assert code == 0
    chosen = json.loads(out)["indices"]
    assert fill(tmp_path / "measure.csv", truth) == chosen
    code, out, _ = latkit(
        "--data", path, "--measured", "measure.csv", "--output", "predicted.csv", "--json"
    )
    assert code == 0
    estimates = json.loads(out)["estimates"]
    with (tmp_path / "predicted.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == list(range(120))
    assert [float(row["latency_ms"]) for row in rows] == [item["latency_ms"] for item in estimates]
    assert [i for i, row in enumerate(rows) if row["source"] == "measured"] == sorted(chosen)
    error = [abs(float(row["latency_ms"]) / truth[i] - 1) for i, row in enumerate(rows)]
    assert np.mean(np.array(error) < 0.1) > 0.85
    assert all(
        float(row["low_ms"]) <= float(row["latency_ms"]) <= float(row["high_ms"]) for row in rows
    )


def test_what_could_not_be_measured_is_left_out(latkit, data, tmp_path):
    path, truth = data
    latkit("--data", path, "--sources", "a,c", "--choose", 12, "--output", "measure.csv")
    chosen = fill(tmp_path / "measure.csv", truth, skip={0, 5})
    assert sorted(read_measured(tmp_path / "measure.csv")) == sorted(
        set(chosen) - {chosen[0], chosen[5]}
    )
    code, out, _ = latkit(
        "--data", path, "--sources", "a,c", "--measured", "measure.csv", "--output", "p.csv"
    )
    assert code == 0
    assert "10 measured, 110 predicted" in out


def test_blocks_in_two_steps(latkit, tables, tmp_path):
    given = [word for path in tables for word in ("--source-table", path)]
    code, out, _ = latkit(*given, "--choose", 10, "--output", "blocks.json", "--json")
    assert code == 0
    blocks = read_block_list(tmp_path / "blocks.json")
    assert [subject_to_json(block) for block in blocks] == json.loads(out)["blocks"]
    assert len(set(blocks)) == 10
    profiled(tmp_path / "new.sqlite", blocks)
    code, out, _ = latkit(*given, "--store", "new.sqlite", "--output", "new.json", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["setup"]["device"] == "new phone"
    assert len(result["estimates"]) == len(BLOCKS)
    table = AdaptedTable.load(tmp_path / "new.json")
    assert table.setup == SETUP
    error = [
        abs(table.estimate(block).latency_ms / device_ms(block, 4.0, 0.02) - 1) for block in BLOCKS
    ]
    assert max(error) < 0.2
    measured = [block for block in BLOCKS if table.estimate(block).source == "measured"]
    assert set(measured) == set(blocks)
    estimator = load_estimator(tmp_path / "new.json", None)
    assert estimator.setup == SETUP
    assert all(estimator.estimate(block) == table.estimate(block) for block in BLOCKS)


def test_first_step_tells_a_person_what_to_do_next(latkit, tables, data):
    _, out, _ = latkit("--source-table", tables[0], "--choose", 6, "--output", "blocks.json")
    assert "latkit profile --device DEVICE --blocks blocks.json" in out
    _, out, _ = latkit("--data", data[0], "--choose", 6, "--output", "measure.csv")
    assert "Fill in latency_ms in measure.csv" in out


def test_store_of_several_setups_asks_which(latkit, tables, tmp_path):
    profiled(tmp_path / "new.sqlite", BLOCKS[:8])
    profiled(tmp_path / "new.sqlite", BLOCKS[:8], Setup("other phone", "litert", "2.3"))
    given = ["--source-table", tables[0], "--store", "new.sqlite", "--output", "new.json"]
    code, _, err = latkit(*given)
    assert code == 2
    assert "several setups" in err
    assert latkit(*given, "--device", "other")[0] == 0


def test_too_few_measured_blocks_name_the_first_step(latkit, tables, tmp_path):
    profiled(tmp_path / "new.sqlite", BLOCKS[:3])
    code, _, err = latkit(
        "--source-table", tables[0], "--store", "new.sqlite", "--output", "new.json"
    )
    assert code == 2
    assert "holds 3 blocks" in err
    assert "--choose 20" in err


def test_emulated_device_is_refused_unless_asked_for(latkit, tables, tmp_path):
    profiled(tmp_path / "new.sqlite", BLOCKS[:8], Setup("emulator", "litert", "2", emulated=True))
    given = ["--source-table", tables[0], "--store", "new.sqlite", "--output", "new.json"]
    assert latkit(*given)[0] == 2
    assert latkit(*given, "--allow-emulated")[0] == 0


def test_damaged_table_ends_with_its_code(latkit, tables):
    tables[0].write_bytes(tables[0].read_bytes()[:-30])
    assert latkit("--source-table", tables[0], "--choose", 6, "--output", "b.json")[0] == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --source-table FILE"),
        (["--data", "data.npz", "--source-table", "t.json"], "give --source-table FILE"),
        (["--data", "data.npz"], "give --choose N"),
        (["--data", "data.npz", "--choose", "5", "--measured", "m.csv"], "give one of them"),
        (["--data", "data.npz", "--choose", "500"], "500 items are to be chosen from 120"),
        (["--data", "data.npz", "--sources", "a,z", "--choose", "5"], "no latencies of z"),
        (["--data", "none.npz", "--choose", "5"], "can't read none.npz"),
        (["--data", "data.npz", "--measured", "none.csv"], "can't read none.csv"),
        (["--data", "data.npz", "--blocks", "b.json", "--choose", "5"], "--blocks goes with"),
        (["--source-table", "t.json", "--measured", "m.csv"], "go with --data"),
    ],
)
def test_what_can_not_be_done_is_said_and_ends_with_code_2(latkit, data, words, message):
    code, _, err = latkit(*words, "--output", "out.csv")
    assert code == 2
    assert message in err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("index\n1\n", "no column latency_ms"),
        ("index,latency_ms\n1,\n", "no latency yet"),
        ("index,latency_ms\n1,2.5\n1,2.6\n", "line 3: index 1"),
        ("index,latency_ms\n1.5,2.5\n", "line 2: index 1.5"),
        ("index,latency_ms\n1,fast\n", "line 2: 1,fast is no number"),
        ("index,latency_ms\n,2.5\n", "is no number"),
        ("", "is no CSV"),
    ],
)
def test_measured_file_that_can_not_be_read_is_refused(tmp_path, content, message):
    path = tmp_path / "measured.csv"
    path.write_text(content)
    with pytest.raises(Exception, match=message):
        read_measured(path)
