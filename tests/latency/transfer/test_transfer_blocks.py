import numpy as np
import pytest
from latkit.devices.device import Setup
from latkit.devices.errors import DamagedFileError, UsageError
from latkit.latency.blocks import MBConv, Skip
from latkit.latency.calibration import Calibration
from latkit.latency.counts import block_counts
from latkit.latency.table import Entry, Estimate, LatencyTable
from latkit.latency.transfer.blocks import DescribedBlocks, block_latencies
from latkit.latency.transfer.predictor import TransferPredictor
from latkit.latency.transfer.sources import learn_sources
from latkit.latency.transfer.table import AdaptedTable, adapt_tables, learn_tables

SETUPS = [Setup(f"phone {index}", "litert", "2.3") for index in range(3)]
BLOCKS = tuple(
    MBConv(
        in_channels=channels,
        height=pixels,
        width=pixels,
        out_channels=channels,
        expanded_channels=expansion * channels,
        kernel=kernel,
    )
    for channels in (16, 24, 40, 64)
    for pixels in (7, 14, 28)
    for expansion in (3, 6)
    for kernel in (3, 5, 7)
)


def latency_ms(block, gflops=2.0, overhead_ms=0.01, large_kernel=1.0):
    """A device: work by its speed, an overhead, and a factor for kernels of 7."""
    work = block_counts(block).flops / (gflops * 1e6)
    return (overhead_ms + work) * (large_kernel if block.kernel == 7 else 1.0)


DEVICES = [
    {"gflops": 2.0, "overhead_ms": 0.01},
    {"gflops": 9.0, "overhead_ms": 0.03, "large_kernel": 2.0},
    {"gflops": 4.0, "overhead_ms": 0.002, "large_kernel": 1.3},
]
NEW = {"gflops": 6.0, "overhead_ms": 0.015, "large_kernel": 4.0}


def table(index, blocks=BLOCKS):
    entries = {}
    for block in blocks:
        value = latency_ms(block, **DEVICES[index])
        entries[block] = Entry(value, 0.99 * value, 1.01 * value)
    return LatencyTable(SETUPS[index], 0, 8, entries, Calibration())


TABLES = [table(0), table(1, BLOCKS[:60]), table(2)]


def measured(blocks):
    return {
        block: Estimate(value, 0.99 * value, 1.01 * value, "measured")
        for block in blocks
        for value in [latency_ms(block, **NEW)]
    }


@pytest.fixture(scope="module")
def adapted():
    blocks, sources = learn_tables(TABLES)
    chosen = [blocks[index] for index in sources.choose(15)]
    return chosen, adapt_tables(TABLES, Setup("new", "litert", "2.3"), measured(chosen))


def test_blocks_of_a_new_device_are_predicted_from_fifteen(adapted):
    _, found = adapted
    truth = np.array([latency_ms(block, **NEW) for block in BLOCKS])
    predicted = np.array([found.estimate(block).latency_ms for block in BLOCKS])
    assert np.mean(np.abs(predicted / truth - 1) < 0.1) > 0.8
    scaled = np.array([latency_ms(block, **DEVICES[0]) for block in BLOCKS])
    scaled *= np.exp(np.mean(np.log(truth / scaled)))
    assert np.mean(np.abs(scaled / truth - 1) < 0.1) < 0.4


def test_estimates_say_what_was_measured_and_what_predicted(adapted):
    chosen, found = adapted
    origins = {block: found.estimate(block).source for block in BLOCKS}
    assert {block for block, origin in origins.items() if origin == "measured"} == set(chosen)
    assert set(origins.values()) == {"measured", "predicted"}
    other = found.estimate(next(block for block in BLOCKS if block not in chosen))
    assert 0 < other.low_ms < other.latency_ms < other.high_ms
    assert other.reason == "from 15 measured blocks and 3 other devices"
    assert found.sources == tuple(setup.key for setup in SETUPS)


def test_block_that_no_table_holds_is_predicted_where_asked_for(adapted):
    chosen, found = adapted
    unseen = MBConv(
        in_channels=32, height=14, width=14, out_channels=32, expanded_channels=96, kernel=3
    )
    with pytest.raises(UsageError, match="in none of the tables"):
        found.estimate(unseen)
    more = adapt_tables(TABLES, found.setup, measured(chosen), more=[unseen])
    estimate = more.estimate(unseen)
    assert estimate.latency_ms == pytest.approx(latency_ms(unseen, **NEW), rel=0.3)


def test_table_is_the_same_after_writing_and_reading(adapted, tmp_path):
    _, found = adapted
    found.save(tmp_path / "new.json")
    assert AdaptedTable.load(tmp_path / "new.json") == found
    assert len(found.frame()) == len(BLOCKS)
    assert set(found.frame()["source"]) == {"measured", "predicted"}


def test_damaged_table_is_refused(adapted, tmp_path):
    path = tmp_path / "new.json"
    adapted[1].save(path)
    content = path.read_bytes()
    for damaged in (content[:-40], content.replace(b"latency_ms", b"latency_us", 1)):
        path.write_bytes(damaged)
        with pytest.raises(DamagedFileError, match="damaged"):
            AdaptedTable.load(path)


def test_tables_frames_and_mappings_tell_the_same():
    mapping = {block: entry.median_ms for block, entry in TABLES[1].entries.items()}
    found = block_latencies([TABLES[0], TABLES[1].frame(), mapping])
    assert set(found.blocks) == set(BLOCKS)
    assert np.array_equal(found.latency_ms[:, 1], found.latency_ms[:, 2], equal_nan=True)
    assert np.isnan(found.latency_ms[:, 1]).sum() == len(BLOCKS) - 60


def test_skip_takes_no_time_and_part():
    skip = Skip(in_channels=16, height=7, width=7)
    found = block_latencies([TABLES[0]], more=[skip])
    assert skip not in found.blocks
    with pytest.raises(UsageError, match="no operation"):
        DescribedBlocks.of([*BLOCKS, skip])


def test_order_of_blocks_does_not_matter():
    known = block_latencies(TABLES)
    latency = np.array([latency_ms(block, **NEW) for block in known.blocks])
    sources = learn_sources(DescribedBlocks.of(known.blocks), known.latency_ms)
    chosen = sources.choose(12)
    predicted = TransferPredictor(sources).fit(chosen, latency[chosen]).predict()
    shuffled = np.random.default_rng(0).permutation(len(latency))
    items = DescribedBlocks.of([known.blocks[index] for index in shuffled])
    other = learn_sources(items, known.latency_ms[shuffled])
    again = other.choose(12)
    assert np.array_equal(shuffled[again], chosen)
    refitted = TransferPredictor(other).fit(again, latency[shuffled][again])
    np.testing.assert_allclose(refitted.predict(), predicted[shuffled], rtol=1e-6)


@pytest.mark.parametrize(
    ("tables", "setup", "message"),
    [
        ([], SETUPS[0], "at least one table"),
        (TABLES, Setup("new", "litert", "2.3", precision="int8"), "int8"),
    ],
)
def test_tables_that_do_not_fit_are_refused(tables, setup, message):
    with pytest.raises(UsageError, match=message):
        adapt_tables(tables, setup, measured(BLOCKS[:8]))
