"""Tables: what is measured, what lies between, what lies outside, and what can't be told."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.device import Setup
from latkit.devices.errors import DamagedFileError, UsageError
from latkit.latency.blocks import Block, ConvBlock, Head, MBConv, Pointwise, Skip
from latkit.latency.calibration import BlockTerms, Calibration, calibrate
from latkit.latency.document import read_document, write_document
from latkit.latency.network import Network
from latkit.latency.table import KIND, UNCALIBRATED, Entry, EvictionTrial, LatencyTable
from latkit.latency.table_file import VERSION

SETUP = Setup("board", "onnxruntime", "1.31", cores=(2, 3))


def mbconv(**values: int) -> MBConv:
    return MBConv(
        **{"in_channels": 16, "out_channels": 24, "expanded_channels": 64, "height": 8, "width": 8}
        | values
    )


def entry(median_ms: float) -> Entry:
    return Entry(median_ms, 0.9 * median_ms, 1.1 * median_ms)


def table(entries: dict[Block, Entry], calibration: Calibration | None = None) -> LatencyTable:
    return LatencyTable(SETUP, 2**20, 8, entries, calibration or Calibration(interval_share=0.05))


WIDTHS = table({mbconv(expanded_channels=c): entry(c / 1000) for c in (32, 64, 96)})


def test_a_measured_block_is_its_entry() -> None:
    estimate = WIDTHS.estimate(mbconv(expanded_channels=64))
    assert (estimate.latency_ms, estimate.source) == (0.064, "measured")
    assert estimate.low_ms < 0.064 < estimate.high_ms


@given(channels=st.integers(4, 12).map(lambda step: 8 * step))
@settings(deadline=None, max_examples=20)
def test_between_measured_widths_a_line_is_drawn(channels: int) -> None:
    estimate = WIDTHS.estimate(mbconv(expanded_channels=channels))
    assert estimate.latency_ms == pytest.approx(channels / 1000)
    assert estimate.source == ("measured" if channels % 32 == 0 else "interpolated")


def test_an_interpolated_interval_holds_both_neighbours() -> None:
    estimate = WIDTHS.estimate(mbconv(expanded_channels=72))
    assert estimate.low_ms == pytest.approx(0.9 * 0.064)
    assert estimate.high_ms == pytest.approx(1.1 * 0.096)
    assert "expanded_channels=64" in estimate.reason


@given(in_channels=st.sampled_from([16, 24, 32]), out_channels=st.sampled_from([40, 48, 56, 64]))
@settings(deadline=None, max_examples=12)
def test_several_widths_are_interpolated_at_once(in_channels: int, out_channels: int) -> None:
    corners = {
        mbconv(in_channels=i, out_channels=o, expanded_channels=96): entry(i + 2 * o + 1)
        for i in (16, 32)
        for o in (40, 64)
    }
    estimate = table(corners).estimate(
        mbconv(in_channels=in_channels, out_channels=out_channels, expanded_channels=96)
    )
    assert estimate.latency_ms == pytest.approx(in_channels + 2 * out_channels + 1)


def test_widths_that_change_together_are_interpolated_along_their_line() -> None:
    scaled = table({mbconv(in_channels=c, expanded_channels=4 * c): entry(c) for c in (16, 32, 48)})
    estimate = scaled.estimate(mbconv(in_channels=40, expanded_channels=160))
    assert (estimate.latency_ms, estimate.source) == (pytest.approx(40), "interpolated")


def test_outside_of_what_was_measured_the_estimate_says_so_and_is_wide() -> None:
    estimate = WIDTHS.estimate(mbconv(expanded_channels=128))
    assert estimate.source == "extrapolated"
    assert 0.12 < estimate.latency_ms < 0.14
    assert estimate.low_ms < 0.6 * estimate.latency_ms
    assert estimate.high_ms > 1.4 * estimate.latency_ms
    assert "expanded_channels=96" in estimate.reason


def test_a_width_off_the_grid_is_refused_and_its_neighbours_named() -> None:
    with pytest.raises(UsageError, match="sawtooth") as error:
        WIDTHS.estimate(mbconv(expanded_channels=76))
    assert "expanded_channels 76 (on the grid: 72 and 80)" in str(error.value)


def test_a_width_off_the_grid_that_was_measured_is_no_neighbour_of_others() -> None:
    known = {mbconv(expanded_channels=c): entry(c / 1000) for c in (32, 64)}
    known[mbconv(expanded_channels=52)] = entry(9.0)
    assert table(known).estimate(mbconv(expanded_channels=48)).latency_ms == pytest.approx(0.048)
    assert table(known).estimate(mbconv(expanded_channels=52)).latency_ms == 9.0


def test_a_width_that_all_share_may_lie_off_the_grid() -> None:
    stems = {
        ConvBlock(in_channels=3, out_channels=c, height=32, width=32): entry(c / 1000)
        for c in (16, 32)
    }
    stem = ConvBlock(in_channels=3, out_channels=24, height=32, width=32)
    assert table(stems).estimate(stem).latency_ms == pytest.approx(0.024)


@pytest.mark.parametrize(
    "other",
    [
        mbconv(kernel=5),
        mbconv(height=16),
        mbconv(out_channels=16),
        mbconv(expanded_channels=16),
        Pointwise(in_channels=16, out_channels=24, height=8, width=8),
    ],
    ids=["kernel", "pixels", "residual", "no-expansion", "kind"],
)
def test_blocks_of_other_operations_stand_for_nothing(other: Block) -> None:
    with pytest.raises(UsageError, match="Profile it") as error:
        WIDTHS.estimate(other)
    assert other.key in str(error.value)


def chain(*channels: int) -> Network:
    blocks: list[Block] = [mbconv(expanded_channels=c, out_channels=16) for c in channels]
    return Network.chain([*blocks, Skip(in_channels=16, height=8, width=8)])


def chain_table(calibration: Calibration) -> LatencyTable:
    known: dict[Block, Entry] = {
        mbconv(expanded_channels=c, out_channels=16): entry(c / 1000) for c in (32, 64, 96)
    }
    return table(known, calibration)


CALIBRATION = Calibration(
    scale=1.1,
    constant_ms=0.02,
    per_weight_byte_ms=1e-7,
    per_boundary_byte_ms=-1e-8,
    per_block_ms=-0.001,
    interval_share=0.05,
)


def test_costs_of_blocks_and_the_constant_make_a_network() -> None:
    known = chain_table(CALIBRATION)
    network = chain(32, 64, 48)
    total = sum(known.block_cost_ms(block) for block in network.blocks)
    assert total + CALIBRATION.constant_ms == known.network(network).latency_ms
    block = network.blocks[0]
    boundary_bytes = 4 * 2 * 16 * 8 * 8
    weight_bytes = 4 * (16 * 32 + 32 + 32 * 9 + 32 + 32 * 16 + 16)
    expected = CALIBRATION.cost_ms(BlockTerms(0.032, weight_bytes, boundary_bytes))
    assert known.block_cost_ms(block) == pytest.approx(expected)


def test_an_identity_costs_nothing() -> None:
    skip = Skip(in_channels=16, height=8, width=8)
    assert chain_table(CALIBRATION).block_cost_ms(skip) == 0
    assert chain_table(CALIBRATION).estimate(skip).latency_ms == 0


def test_a_network_says_when_a_block_was_not_measured_and_is_wider() -> None:
    known = chain_table(CALIBRATION)
    measured, between, outside = (known.network(chain(32, c)) for c in (64, 72, 160))
    assert [e.source for e in (measured, between, outside)] == [
        "predicted",
        "interpolated",
        "extrapolated",
    ]
    assert measured.high_ms == pytest.approx(1.05 * measured.latency_ms)
    assert between.high_ms > 1.05 * between.latency_ms
    assert "expanded_channels=160" in outside.reason


def test_a_table_that_knows_no_networks_says_that_it_gives_plain_sums() -> None:
    estimate = chain_table(Calibration()).network(chain(32, 64))
    assert estimate.latency_ms == pytest.approx(0.096)
    assert estimate.reason == UNCALIBRATED
    assert "plain sum" in UNCALIBRATED and "not calibrated" in UNCALIBRATED
    assert chain_table(CALIBRATION).network(chain(32, 64)).reason == ""


def test_an_entry_says_why_it_may_be_wrong() -> None:
    known = table({mbconv(): Entry(1.0, 0.9, 1.2, "noisy", ("the rounds differ by 9 %",))})
    assert known.estimate(mbconv()).reason == "the rounds differ by 9 %"


def test_another_setup_is_refused_and_both_are_named() -> None:
    WIDTHS.check_setup(replace(SETUP))
    other = replace(SETUP, threads=2)
    with pytest.raises(UsageError) as error:
        WIDTHS.check_setup(other)
    assert SETUP.key in str(error.value) and other.key in str(error.value)


def full_table() -> LatencyTable:
    networks = [[BlockTerms(0.1 * n, 1000 * n, 64 * n)] * n for n in range(1, 8)]
    calibration = calibrate(networks, [1.2 * 0.1 * n * n + 0.001 for n in range(1, 8)])
    head = Head(in_channels=16, height=4, width=4, hidden_channels=32, classes=10)
    entries: dict[Block, Entry] = {
        mbconv(): entry(0.03),
        head: Entry(0.02, 0.01, 0.03, "noisy", ("the rounds differ by 9 %",)),
    }
    trials = (EvictionTrial(0, 0.2, 0.03), EvictionTrial(2**20, 0.01, 0.02, True))
    return LatencyTable(SETUP, 2**20, 8, entries, calibration.evaluate(networks, [1] * 7), trials)


def test_a_saved_table_reads_back_the_same(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    full_table().save(path)
    assert LatencyTable.load(path) == full_table()


def test_the_file_does_not_depend_on_the_order_of_entries(tmp_path: Path) -> None:
    known = full_table()
    backwards = replace(known, entries=dict(reversed(list(known.entries.items()))))
    known.save(tmp_path / "a.json")
    backwards.save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        (("setup", "threads"), "two"),
        (("channel_grid",), 0),
        (("eviction_bytes",), -1),
        (("entries", 0, "median_ms"), 0),
        (("entries", 0, "low_ms"), 99.0),
        (("entries", 0, "verdict"), "perfect"),
        (("entries", 0, "block", "kind"), "Attention"),
        (("entries", 0, "block", "height"), -8),
        (("calibration", "scale"), "1"),
        (("calibration", "terms"), ["luck"]),
        (("surprise",), 1),
    ],
    ids=str,
)
def test_a_body_of_impossible_values_is_damaged(
    tmp_path: Path, place: tuple[str | int, ...], wrong: object
) -> None:
    path = tmp_path / "table.json"
    full_table().save(path)
    body = read_document(path, KIND, VERSION)
    inner = body
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = wrong
    write_document(path, KIND, VERSION, body)
    with pytest.raises(DamagedFileError, match="no valid latency table"):
        LatencyTable.load(path)


@pytest.mark.parametrize("name", ["median_ms", "low_ms", "high_ms"])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -0.5, 0.0])
def test_a_latency_that_is_none_names_file_and_block(
    tmp_path: Path, name: str, wrong: float
) -> None:
    path = tmp_path / "table.json"
    full_table().save(path)
    body = read_document(path, KIND, VERSION)
    body["entries"][1][name] = wrong
    write_document(path, KIND, VERSION, body)
    block = body["entries"][1]["block"]
    with pytest.raises(DamagedFileError) as caught:
        LatencyTable.load(path)
    assert str(path) in str(caught.value)
    assert f"{name} of entry 1 is {wrong}" in str(caught.value)
    assert str(block) in str(caught.value)


def test_a_median_outside_its_interval_names_file_and_block(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    WIDTHS.save(path)
    body = read_document(path, KIND, VERSION)
    body["entries"][0]["low_ms"] = 99.0
    write_document(path, KIND, VERSION, body)
    with pytest.raises(DamagedFileError, match=r"table\.json .*entry 0, MBConv\("):
        LatencyTable.load(path)


def test_a_newer_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    write_document(path, "latency_table", 99, {})
    with pytest.raises(DamagedFileError, match=rf"version 99 .* up to {VERSION}"):
        LatencyTable.load(path)


def test_another_file_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "search.json"
    write_document(path, "search", 1, {})
    with pytest.raises(UsageError, match="latency_table"):
        LatencyTable.load(path)


def test_the_frame_has_a_row_for_each_block() -> None:
    frame = full_table().frame()
    assert sorted(frame["kind"]) == ["Head", "MBConv"]
    noisy = frame[frame["verdict"] == "noisy"].iloc[0]
    assert json.loads(noisy["reasons"]) == ["the rounds differ by 9 %"]
    assert noisy["median_ms"] == 0.02


def test_an_entry_can_not_be_impossible() -> None:
    with pytest.raises(UsageError):
        Entry(0.0, 0.0, 0.0)
    with pytest.raises(UsageError):
        Entry(1.0, 2.0, 3.0)


def test_a_table_is_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    full_table().save(path)
    body = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))["body"]
    assert body["setup"] == json.loads(json.dumps(asdict(SETUP)))
