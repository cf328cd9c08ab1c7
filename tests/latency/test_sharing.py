"""Shared tables: what goes out comes back the same, and of others' rows the bad ones are named."""

import csv
import doctest
import gzip
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from latkit.devices.device import Setup
from latkit.devices.errors import DamagedFileError, LatkitError, UsageError
from latkit.latency import sharing
from latkit.latency import table as table_module
from latkit.latency.blocks import (
    ConvBlock,
    Depthwise,
    Head,
    LinearBlock,
    MBConv,
    PaddedConcat,
    Pointwise,
    Pooling,
    Sum,
)
from latkit.latency.calibration import Calibration
from latkit.latency.cli import register
from latkit.latency.network import Network
from latkit.latency.sharing import export_table, import_table
from latkit.latency.table import UNCALIBRATED, Entry, LatencyTable
from latkit.latency.third_party import ofa_block, tfnas_block
from typer.testing import CliRunner

GOLDEN = Path(__file__).parent / "golden" / "table_v1.json"
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
PHONE = Setup("a phone", "tflite", "unknown")

shared_data = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the folder ../shared/data beside the checkout is missing"
)

SMALL = st.integers(1, 64)
IMAGE = {"in_channels": SMALL, "height": SMALL, "width": SMALL}
ODD = st.sampled_from([1, 3, 5])
BLOCKS = st.one_of(
    st.builds(ConvBlock, **IMAGE, out_channels=SMALL, kernel=ODD),
    st.builds(Depthwise, **IMAGE, activation=st.sampled_from(["none", "swish"])),
    st.builds(Pooling, **IMAGE, pool=st.sampled_from(["max", "average"])),
    st.builds(MBConv, **IMAGE, out_channels=SMALL, expanded_channels=SMALL, residual=st.booleans()),
    st.builds(Head, **IMAGE, hidden_channels=SMALL, classes=SMALL),
    st.builds(LinearBlock, in_features=SMALL, out_features=SMALL),
    st.builds(Sum, **IMAGE),
    st.builds(PaddedConcat, shapes=st.lists(st.tuples(SMALL, SMALL, SMALL), min_size=1).map(tuple)),
)
LATENCY = st.floats(1e-9, 1e9)
TEXTS = st.lists(st.text(max_size=20), max_size=2).map(tuple)
ENTRIES = st.builds(
    lambda ends, verdict, reasons: Entry(ends[1], ends[0], ends[2], verdict, reasons),
    st.tuples(LATENCY, LATENCY, LATENCY).map(sorted),
    st.sampled_from(["stable", "noisy", "throttled", "unknown"]),
    TEXTS,
)
TABLES = st.builds(
    LatencyTable,
    st.builds(
        Setup,
        st.text(max_size=20),
        st.text(max_size=20),
        st.text(max_size=20),
        cores=st.none() | st.lists(st.integers(0, 9)).map(tuple),
        emulated=st.booleans(),
    ),
    st.integers(0, 2**30),
    st.integers(1, 64),
    st.dictionaries(BLOCKS, ENTRIES, min_size=1, max_size=5),
    st.builds(Calibration, scale=LATENCY, residuals=st.lists(LATENCY, max_size=3).map(tuple)),
)


@pytest.fixture
def latkit(monkeypatch, tmp_path):
    """Runs the command; gives exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    register(app)

    def call(*words):
        result = CliRunner().invoke(app, [str(word) for word in words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return call


@pytest.fixture
def file_of(tmp_path):
    """Writes a CSV file of these lines."""

    def write(*lines, name="shared.csv"):
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


# --- our own tables


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=TABLES, suffix=st.sampled_from(["csv", "json"]))
def test_an_exported_table_is_imported_the_same(table, suffix, tmp_path):
    path = tmp_path / f"shared.{suffix}"
    export_table(table, path)
    imported = import_table(path)
    assert imported.accept() == table
    assert (imported.refused, imported.form) == ((), "latkit")
    packed = tmp_path / f"shared.{suffix}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert import_table(packed).accept() == table


@settings(deadline=None)
@given(table=TABLES)
def test_a_frame_makes_the_same_table(table):
    frame = table.frame()
    assert len(frame) == len(table.entries)
    assert LatencyTable.from_frame(frame) == table
    assert LatencyTable.from_frame(frame.iloc[::-1]) == table


def test_pandas_reads_what_was_exported_in_one_call(tmp_path):
    table = LatencyTable.load(GOLDEN)
    export_table(table, tmp_path / "shared.csv")
    export_table(table, tmp_path / "shared.json")
    frame = pd.read_csv(tmp_path / "shared.csv")
    assert list(frame["median_ms"]) == [item.median_ms for item in table.entries.values()]
    assert list(frame.columns[:2]) == ["kind", "in_channels"]
    assert LatencyTable.from_frame(frame).entries.keys() == table.entries.keys()
    read = pd.read_json(tmp_path / "shared.json", precise_float=True)
    assert LatencyTable.from_frame(read) == table


def test_whole_numbers_stay_whole_where_other_kinds_have_none(tmp_path):
    export_table(LatencyTable.load(GOLDEN), tmp_path / "shared.csv")
    with (tmp_path / "shared.csv").open() as file:
        cells = {row["in_features"] for row in csv.DictReader(file)}
    assert cells == {"", "32"}


def test_a_spreadsheet_may_sort_rows_and_rewrite_truths(tmp_path):
    table = LatencyTable.load(GOLDEN)
    path = tmp_path / "shared.csv"
    export_table(table, path)
    header, *lines = path.read_text().splitlines()
    rewritten = [line.replace("True", "TRUE").replace("False", "FALSE") for line in lines[::-1]]
    path.write_text("\ufeff" + "\r\n".join([header, *rewritten]) + "\r\n", newline="")
    assert import_table(path).accept() == table


CELLS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=3,
)
COLUMNS = dict.fromkeys(("table", "reasons", "verdict", "kernel", "mid_channels"), CELLS)
RECORDS = st.fixed_dictionaries(
    {}, optional=COLUMNS | {"kind": st.just("MBConv") | CELLS, "median_ms": CELLS, "height": CELLS}
) | st.fixed_dictionaries(
    {"op_key": st.just("Conv") | CELLS, "mean_ms": st.just(1) | CELLS},
    optional={"count": CELLS, "std_ms": CELLS},
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.lists(RECORDS | CELLS, max_size=3))
def test_whatever_records_say_no_other_error_escapes(records, tmp_path):
    path = tmp_path / "shared.json"
    path.write_text(json.dumps(records))
    try:
        imported = import_table(path, PHONE)
    except LatkitError as error:
        assert str(error)
    else:
        assert len(imported.refused) + len(imported.table.entries) <= len(records)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_became_of_a_csv_file_no_other_error_escapes(data, tmp_path):
    path = tmp_path / "shared.csv"
    export_table(LatencyTable.load(GOLDEN), path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(content)))
        end = data.draw(st.integers(start, min(len(content), start + 3)))
        content[start:end] = data.draw(st.sampled_from([b"", b",", b'"', b"\n", b"9", b"-", b"x"]))
    path.write_bytes(content)
    try:
        imported = import_table(path)
    except LatkitError as error:
        assert str(error)
    else:
        assert all(row.cause for row in imported.refused)


def test_rows_made_by_hand_become_a_table_of_the_device_given(file_of):
    path = file_of(
        "kind,in_channels,height,width,out_channels,median_ms",
        "Pointwise,16,14,14,32,0.25",
        "Depthwise,16,14,14,,0.125",
    )
    table = import_table(path, PHONE, channel_grid=16).accept()
    block = Pointwise(in_channels=16, height=14, width=14, out_channels=32)
    assert table.entries[block] == Entry(0.25, 0.25, 0.25, "unknown", ("no interval is known",))
    assert (table.setup, table.channel_grid, table.calibration) == (PHONE, 16, Calibration())
    with pytest.raises(UsageError, match="do not say what device"):
        import_table(path)
    assert LatencyTable.from_frame(pd.read_csv(path), PHONE, channel_grid=16) == table


def test_a_table_that_names_its_device_takes_no_other(tmp_path):
    export_table(LatencyTable.load(GOLDEN), tmp_path / "shared.csv")
    with pytest.raises(UsageError, match="say themselves"):
        import_table(tmp_path / "shared.csv", PHONE)


def own_row(**changes):
    row = {
        "kind": "Depthwise",
        "in_channels": 16,
        "height": 14,
        "width": 14,
        "median_ms": 0.25,
        "low_ms": 0.2,
        "high_ms": 0.3,
        "verdict": "stable",
        "reasons": None,
    }
    return row | changes


@pytest.mark.parametrize(
    ("changes", "problem", "cause"),
    [
        ({"median_ms": -1.5}, "bad latency", "negative"),
        ({"median_ms": 0}, "bad latency", "zero"),
        ({"median_ms": math.nan}, "bad latency", "missing"),
        ({"median_ms": math.inf}, "bad latency", "no finite number"),
        ({"median_ms": "fast"}, "bad latency", "no number"),
        ({"median_ms": "0_1"}, "bad latency", "no number"),
        ({"median_ms": True}, "bad latency", "no number"),
        ({"low_ms": 0.26}, "bad latency", "0.26"),
        ({"low_ms": None}, "bad latency", "missing"),
        ({"verdict": "perfect"}, "bad latency", "perfect"),
        ({"reasons": "noise"}, "bad latency", "reasons"),
        ({"reasons": "[1]"}, "bad latency", "reasons"),
        ({"kind": "Attention"}, "no such block", "Attention"),
        ({"kind": None}, "no such block", "kind is missing"),
        ({"height": -14}, "no such block", "height"),
        ({"height": 14.5}, "no such block", "height"),
        ({"width": None}, "no such block", "width"),
        ({"kernel": "three"}, "no such block", "kernel"),
        ({"surprise": 1}, "no such block", "surprise"),
        ({"in_channels": 32, "high_ms": 9}, "duplicate", "row 0 gives 1.0"),
    ],
    ids=str,
)
def test_a_bad_row_is_named_with_its_cause(changes, problem, cause, tmp_path):
    rows = [own_row(in_channels=32, median_ms=1.0, high_ms=9), own_row(**changes)]
    with pytest.raises(DamagedFileError, match=rf"row 1: .*{problem}: .*{cause}"):
        LatencyTable.from_frame(pd.DataFrame(rows), PHONE)
    (tmp_path / "shared.json").write_text(json.dumps(rows))
    imported = import_table(tmp_path / "shared.json", PHONE)
    assert {row.problem for row in imported.refused} == {problem}
    assert imported.refused[-1].row == 2
    assert len(imported.table.entries) + len(imported.refused) == 2
    with pytest.raises(DamagedFileError, match=cause.replace("row 0", "row 1")):
        imported.accept()


def test_rows_that_contradict_each_other_are_all_refused_and_repeats_are_not(file_of):
    path = file_of(
        "kind,in_features,out_features,median_ms",
        "LinearBlock,8,8,1.0",
        "LinearBlock,16,8,3.0",
        "LinearBlock,8,8,2.0",
        "LinearBlock,16,8,3.00",
    )
    imported = import_table(path, PHONE)
    assert [(row.row, row.value, row.problem) for row in imported.refused] == [
        (2, "1.0", "duplicate"),
        (4, "2.0", "duplicate"),
    ]
    assert "row 2 gives 1.0" in imported.refused[1].cause
    assert list(imported.accept(skip_bad_rows=True).entries) == [
        LinearBlock(in_features=16, out_features=8)
    ]


def test_a_row_with_too_many_or_too_few_cells_is_refused(file_of):
    path = file_of(
        "kind,in_features,out_features,median_ms",
        "LinearBlock,8,8,1.0",
        "LinearBlock,8,8",
        "",
        "LinearBlock,8,16,1.0,2.0",
    )
    imported = import_table(path, PHONE)
    assert [(row.row, row.problem) for row in imported.refused] == [
        (3, "broken row"),
        (5, "broken row"),
    ]


def test_a_file_without_a_good_row_is_refused_even_where_bad_ones_are_skipped(file_of):
    path = file_of("kind,in_features,out_features,median_ms", "LinearBlock,8,8,-1.0")
    with pytest.raises(DamagedFileError, match="No other row is left"):
        import_table(path, PHONE).accept(skip_bad_rows=True)


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("a.csv", "", UsageError, "columns"),
        ("a.csv", "x,y\n1,2\n", UsageError, "x, y"),
        ("a.csv", "kind,kind\n", DamagedFileError, "two columns"),
        ("a.csv", 'kind,median_ms\n"open,1\n', DamagedFileError, "no csv file"),
        ("a.csv", b"kind,median_ms\n\xff,1\n", DamagedFileError, "no csv file"),
        ("a.json", "[", DamagedFileError, "no json file"),
        ("a.json", "3", UsageError, "list of records"),
        ("a.json", GOLDEN.read_bytes(), UsageError, "latkit document"),
        ("a.csv.gz", "kind", DamagedFileError, "no csv file"),
        ("a.csv.gz", gzip.compress(b"kind,median_ms\n" * 99)[:-9], DamagedFileError, "no csv"),
        ("a.xlsx", "", UsageError, r"\.csv or \.json"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, name, content, error, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(error, match=message):
        import_table(path, PHONE)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ("{", "no JSON"),
        ("[]", "an object|a JSON object"),
        ("{}", "no version"),
        ('{"version": 99}', "version 99"),
        ('{"version": 2}', "setup"),
    ],
)
def test_what_rows_say_of_their_table_is_checked(about, message):
    frame = pd.DataFrame([own_row(table=about)])
    with pytest.raises(DamagedFileError, match=message):
        LatencyTable.from_frame(frame)


def test_rows_of_two_tables_are_not_mixed():
    table = LatencyTable.load(GOLDEN)
    other = replace(table, channel_grid=16)
    both = pd.concat([table.frame().iloc[:5], other.frame().iloc[:5]])
    with pytest.raises(DamagedFileError, match="2 different tables"):
        LatencyTable.from_frame(both)


def test_an_empty_table_and_an_unknown_suffix_are_not_exported(tmp_path):
    empty = LatencyTable(PHONE, 0, 8, {}, Calibration())
    with pytest.raises(UsageError, match="no block"):
        export_table(empty, tmp_path / "shared.csv")
    with pytest.raises(UsageError, match=r"\.csv or \.json"):
        export_table(LatencyTable.load(GOLDEN), tmp_path / "shared.xlsx")


@pytest.mark.parametrize("module", [table_module, sharing])
def test_the_examples_run(module):
    result = doctest.testmod(module)
    assert result.attempted > 5
    assert result.failed == 0


# --- the tables of others


@pytest.mark.parametrize(
    ("key", "block"),
    [
        (
            "Conv-input:160x160x3-output:80x80x24",
            ConvBlock(3, 160, 160, out_channels=24, stride=2, activation="hard_swish"),
        ),
        (
            "Conv_1-input:5x5x192-output:5x5x1152",
            Pointwise(192, 5, 5, out_channels=1152, activation="hard_swish"),
        ),
        (
            "Conv_2-input:1x1x1152-output:1x1x1536",
            Pointwise(1152, 1, 1, out_channels=1536, activation="hard_swish"),
        ),
        ("Logits-input:1x1x1536-output:1000", LinearBlock(in_features=1536, out_features=1000)),
        (
            "expanded_conv-input:112x112x24-output:112x112x24"
            "-expand:24-kernel:3-stride:1-idskip:1-se:0-hs:0",
            MBConv(24, 112, 112, out_channels=24, expanded_channels=24, activation="relu"),
        ),
        (
            "expanded_conv-input:11x13x136-output:6x7x192"
            "-expand:408-kernel:7-stride:2-idskip:0-se:1-hs:1",
            MBConv(
                136,
                11,
                13,
                out_channels=192,
                expanded_channels=408,
                kernel=7,
                stride=2,
                squeeze_excite=True,
                activation="hard_swish",
                residual=False,
            ),
        ),
    ],
)
def test_a_key_of_once_for_all_is_a_block(key, block):
    assert ofa_block(key) == block


MBCONV = "expanded_conv-input:14x14x96-output:14x14x96-expand:{}-kernel:{}-stride:{}-idskip:{}"


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("AvgPool2D-input:5x5x1152-output:1x1x1152", "no block is AvgPool2D alone"),
        ("Logits-input:7x7x1280-output:1000", "no block is Logits"),
        ("Conv-input:160x160x3-output:160x160x24", "output of"),
        (MBCONV.format(288, 3, 1, 1), "ProxylessNAS"),
        (MBCONV.format(288, 4, 1, 1) + "-se:0-hs:0", "kernel is 4"),
        (MBCONV.format(0, 3, 1, 1) + "-se:0-hs:0", "expanded_channels is 0"),
        (MBCONV.format(288, 3, 2, 1) + "-se:0-hs:0", "idskip"),
        (MBCONV.format(288, 3, 2, 0) + "-se:0-hs:0", "output of"),
        (MBCONV.format(72, 3, 1, 1) + "-se:1-hs:0", "24 channels, and ours 16"),
        ("Conv-input:160x160x3-output:80x80x24-expand:3-kernel:3-stride:1-idskip:1", "too many"),
        ("expanded_conv-input:14x14x96-output:14x14x96", "lacks"),
        ("nonsense", "can't be read"),
    ],
)
def test_a_key_of_once_for_all_that_is_no_block_says_why(key, reason):
    with pytest.raises(UsageError, match=reason):
        ofa_block(key)


def test_a_key_of_tfnas_is_a_block():
    key = "MBInvertedResBlock_14_112_0_192_k5_s2_swish"
    block = MBConv(
        112,
        14,
        14,
        out_channels=192,
        expanded_channels=300,
        kernel=5,
        stride=2,
        activation="swish",
    )
    assert tfnas_block(key, 300) == block
    assert tfnas_block(key, 112) == replace(block, expanded_channels=112)


@pytest.mark.parametrize(
    ("key", "middle", "reason"),
    [
        ("base", 0, "fixed parts"),
        ("MBInvertedResBlock_14_112_0_192_k5_s2_swish", 111, "extrapolated"),
        ("MBInvertedResBlock_14_112_112_192_k5_s2_swish", 448, "squeeze-excite"),
        ("MBInvertedResBlock_14_112_0_192_k5_s2_tanh", 448, "tanh"),
        ("MBInvertedResBlock_14_112_0_192_k5_s2", 448, "can't be read"),
    ],
)
def test_a_key_of_tfnas_that_is_no_block_says_why(key, middle, reason):
    with pytest.raises(UsageError, match=reason):
        tfnas_block(key, middle)


OFA_HEADER = "resolution,op_key,count,mean_ms,std_ms"


def linear(out, *values):
    return ",".join(["224", f"Logits-input:1x1x64-output:{out}", *values])


def test_a_mean_is_an_entry_that_says_so(file_of):
    imported = import_table(file_of(OFA_HEADER, linear(10, "400", "0.5", "0.1")), PHONE)
    assert imported.form == "Once-for-All"
    (entry,) = imported.accept().entries.values()
    assert (entry.median_ms, entry.verdict) == (0.5, "unknown")
    assert entry.reasons == ("the mean of 400 runs, with a standard deviation of 0.1 ms",)
    # A standard error of 0.005 ms, and Student's t of 1.966 for 399 degrees of freedom.
    assert entry.low_ms == pytest.approx(0.5 - 0.00983, abs=2e-4)
    assert entry.high_ms == pytest.approx(0.5 + 0.00983, abs=2e-4)


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        (("400", "-0.5", "0.1"), "negative"),
        (("400", "0", "0.1"), "zero"),
        (("400", "nan", "0.1"), "no finite"),
        (("400", "", "0.1"), "missing"),
        (("400", "0.5", "-0.1"), "standard deviation"),
        (("400", "0.5", "nan"), "standard deviation"),
        (("400", "0.5", "x"), "standard deviation is no number"),
        (("2.5", "0.5", "0.1"), "no whole number"),
        (("1", "0.5", "0.1"), "1 runs"),
        (("2", "0.5", "0.5"), "leaves the mean unknown"),
    ],
)
def test_a_mean_that_is_none_is_refused(file_of, values, cause):
    path = file_of(OFA_HEADER, linear(10, *values), linear(20, "400", "0.5", "0.1"))
    (row,) = import_table(path, PHONE).refused
    assert (row.row, row.key, row.problem) == (2, "Logits-input:1x1x64-output:10", "bad latency")
    assert row.value == (values[1] or "nothing")
    assert cause in row.cause


def test_a_file_of_several_devices_wants_one_chosen(file_of):
    key = "MBInvertedResBlock_14_112_0_112_k3_s1_swish"
    path = file_of(
        "device,block_key,mid_channels,lat_ms", f"gpu,{key},224,0.5", f"cpu,{key},224,0.75"
    )
    with pytest.raises(UsageError, match=r"cpu, gpu.*--where device=cpu"):
        import_table(path, PHONE)
    imported = import_table(path, PHONE, where={"device": "cpu"})
    assert [entry.median_ms for entry in imported.accept().entries.values()] == [0.75]
    with pytest.raises(UsageError, match="no row with device=tpu; there are cpu, gpu"):
        import_table(path, PHONE, where={"device": "tpu"})
    with pytest.raises(UsageError, match="no column colour"):
        import_table(path, PHONE, where={"colour": "red"})


def test_networks_of_an_imported_table_are_plain_sums_and_say_so(file_of):
    path = file_of(
        OFA_HEADER,
        "224,Conv-input:224x224x3-output:112x112x24,40,1.5,0.01",
        "224,expanded_conv-input:112x112x24-output:112x112x24"
        "-expand:24-kernel:3-stride:1-idskip:1-se:0-hs:0,40,2.25,0.01",
    )
    table = import_table(path, PHONE).accept()
    estimate = table.network(Network.chain(list(table.entries)))
    assert estimate.latency_ms == 3.75
    assert estimate.reason == UNCALIBRATED
    assert estimate.low_ms < 1 and estimate.high_ms > 7


@shared_data
def test_the_table_of_a_note10_is_imported(tmp_path):
    path = SHARED / "note10_block_latency.csv"
    imported = import_table(path, PHONE, where={"resolution": "224"})
    assert len(imported.table.entries) == 95
    assert [row.cause for row in imported.refused] == ["no block is AvgPool2D alone"]
    whole = import_table(path, PHONE)
    problems = Counter(row.problem for row in whole.refused)
    # 295 blocks were measured at several resolutions, with different results each time.
    assert problems == {"duplicate": 1058, "no such block": 17}
    assert len(whole.table.entries) + 1075 == 1632
    with pytest.raises(DamagedFileError, match="1058 duplicate, 17 no such block"):
        whole.accept()
    stem = ConvBlock(3, 224, 224, out_channels=24, stride=2, activation="hard_swish")
    frame = pd.read_csv(path).query("resolution == 224 and op_key.str.startswith('Conv-')")
    assert imported.table.entries[stem].median_ms == frame["mean_ms"].item()
    export_table(imported.table, tmp_path / "shared.csv")
    assert import_table(tmp_path / "shared.csv").accept() == imported.table


@shared_data
def test_the_tables_of_tfnas_are_imported_but_for_their_172_negative_rows():
    path = SHARED / "tfnas_block_latency.csv.gz"
    negative = 0
    for device in ("cpu", "gpu"):
        imported = import_table(path, PHONE, where={"device": device})
        bad = [row for row in imported.refused if row.problem == "bad latency"]
        assert {row.cause for row in bad} == {"the latency is negative"}
        negative += len(bad)
        assert len(imported.table.entries) == 12790
        assert len(imported.table.entries) + len(imported.refused) == 36481
        with pytest.raises(DamagedFileError, match=f"{len(bad)} bad latency"):
            imported.accept()
    assert negative == 172


# --- the command


def test_the_command_exports_and_imports_the_same_table(latkit, tmp_path):
    for name in ("shared.csv", "shared.json"):
        code, out, _ = latkit("table", "export", GOLDEN, "--output", name)
        assert code == 0
        assert "12 blocks of golden board" in out
        code, out, _ = latkit("table", "import", name, "--output", "back.json", "--json")
        assert code == 0
        assert json.loads(out)["blocks"] == 12
        assert LatencyTable.load(tmp_path / "back.json") == LatencyTable.load(GOLDEN)
    code, out, _ = latkit("table", "export", GOLDEN, "--output", "s.csv", "--json")
    assert json.loads(out) == {"blocks": 12, "output": "s.csv"}
    assert latkit("table", "export", GOLDEN, "--output", "s.txt")[0] == 2


def test_bad_rows_stop_the_command_and_are_listed(latkit, file_of, tmp_path):
    rows = [linear(out, "400", "-0.5", "0.1") for out in range(1, 31)]
    path = file_of(OFA_HEADER, *rows, linear(50, "400", "0.5", "0.1"))
    command = ["table", "import", path, "--output", "t.json", "--device-name", "a phone"]
    code, out, err = latkit(*command)
    assert code == 5
    assert "30 rows that can't be used (30 bad latency)" in err
    assert "row 2: Logits-input:1x1x64-output:1, -0.5: bad latency: the latency is negative" in err
    assert "and 10 more" in err
    assert not (tmp_path / "t.json").exists()
    code, out, err = latkit(*command, "--json")
    assert code == 5
    data = json.loads(out)
    assert data["output"] is None
    assert [row["row"] for row in data["refused"]] == list(range(2, 32))
    assert not (tmp_path / "t.json").exists()


def test_bad_rows_may_be_skipped_and_are_listed_still(latkit, file_of, tmp_path):
    path = file_of(OFA_HEADER, linear(1, "400", "-0.5", "0.1"), linear(50, "400", "0.5", "0.1"))
    command = ["table", "import", path, "--output", "t.json", "--skip-bad-rows"]
    code, _, err = latkit(*command)
    assert code == 2
    assert "--device-name" in err
    command += ["--device-name", "a phone", "--runtime", "tflite", "--threads", "4"]
    code, out, _ = latkit(*command)
    assert code == 0
    assert "1 blocks" in out and "1 bad latency" in out and "negative" in out
    assert "not calibrated" in out
    table = LatencyTable.load(tmp_path / "t.json")
    assert table.setup == Setup("a phone", "tflite", "unknown", "unknown", threads=4)
    code, out, _ = latkit(*command, "--json")
    data = json.loads(out)
    assert (code, data["blocks"], data["form"], data["output"]) == (0, 1, "Once-for-All", "t.json")
    assert data["refused"][0]["cause"] == "the latency is negative"


def test_rows_are_chosen_by_where(latkit, file_of):
    path = file_of(
        OFA_HEADER, linear(10, "4", "0.5", "0.1"), linear(10, "4", "0.6", "0.1").replace("224", "1")
    )
    command = ["table", "import", path, "--output", "t.json", "--device-name", "a", "--json"]
    assert latkit(*command)[0] == 5
    assert latkit(*command, "--where", "resolution=224")[0] == 0
    code, _, err = latkit(*command, "--where", "resolution")
    assert code == 2
    assert "COLUMN=VALUE" in err


def test_the_command_builds_where_no_other_word_is_given(latkit):
    options = ["--space", "mobile", "--output", "t.json"]
    told = [latkit("table", *words, *options) for words in ([], ["build"])]
    assert told[0] == told[1]
    assert told[0][0] == 2
    assert "there is no store" in told[0][2]
    assert "import" in latkit("table", "--help")[1]
