"""From a space and a device to a table: phases, choice of the eviction size, resuming, rebuilding.

The device is a board whose latency is a known function of the model file, so that what the table
must find is known too.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from latkit.devices.device import Model, Round, Setup, TimingProtocol, Visit
from latkit.devices.errors import DeviceError, UsageError
from latkit.latency.blocks import Block, ConvBlock, Head, MBConv, Skip
from latkit.latency.calibration import (
    FEWEST_INTERVAL_NETWORKS,
    Calibration,
    PredictionError,
    conformal_share,
)
from latkit.latency.counts import Counts, block_counts
from latkit.latency.counts import count as count_work
from latkit.latency.grid import probe_blocks
from latkit.latency.network import Network
from latkit.latency.profile import profile
from latkit.latency.space_plan import MIB, Plan, narrow_blocks, timed_blocks
from latkit.latency.space_profile import (
    build_space_profile,
    build_table,
    choose_eviction,
    profile_space,
)
from latkit.latency.store import Store
from latkit.latency.table import LatencyTable

PROTOCOL = TimingProtocol(rounds=6, processes=3, runs=3)
CALIBRATION_NETWORKS, HELD_OUT_NETWORKS = 8, 6
SIZES = (0, MIB, 2 * MIB)


class ChainSpace:
    """Chains of a stem, a few layers of which some are identities, and a head."""

    name = "chains"

    def __init__(self, most_layers: int = 5) -> None:
        self._most_layers = most_layers

    def _layer(self, option: int) -> Block:
        if option == 0:
            return Skip(in_channels=16, height=8, width=8)
        return MBConv(
            in_channels=16,
            out_channels=16,
            expanded_channels=(48, 96)[option % 2],
            height=8,
            width=8,
            kernel=(3, 5)[option // 2 % 2],
        )

    def _ends(self) -> tuple[Block, Block]:
        return (
            ConvBlock(in_channels=3, out_channels=16, height=16, width=16, stride=2),
            Head(in_channels=16, height=8, width=8, hidden_channels=64, classes=10),
        )

    def blocks(self) -> list[Block]:
        stem, head = self._ends()
        return [stem, *(self._layer(option) for option in range(5)), head]

    def sample_networks(self, count: int, seed: int) -> list[Network]:
        random = np.random.default_rng(seed)
        stem, head = self._ends()
        drawn = (
            [
                self._layer(option)
                for option in random.integers(0, 5, random.integers(1, self._most_layers + 1))
            ]
            for _ in range(count)
        )
        return [Network.chain([stem, *layers, head]) for layers in drawn]


class Board:
    """Latency = call overhead + FLOPs + weights, dearer where caches are evicted before a block.

    In a network weights come from as far away as with `network_mib` evicted.
    """

    setup = Setup("board", "toy", "1")

    def __init__(
        self, call_us: float = 0.0, drift: float = 0.0, network_mib: int = 1, broken: str = ""
    ) -> None:
        self.timed: list[Model] = []
        self._call_us = call_us
        self._drift = drift
        self._broken = broken
        self._network_mib = network_mib
        self._runs = 0
        self._work: dict[Path, Counts] = {}

    def info(self) -> dict[str, Any]:
        return {"board": "toy"}

    def measure(self, models: Sequence[Model], protocol: TimingProtocol) -> Iterator[Round]:
        self.timed += models
        slowdown = 1 + self._drift * self._runs
        self._runs += 1
        for index in range(protocol.rounds):
            random = np.random.default_rng((protocol.seed, index))
            visits = {}
            for model in models:
                if model.id == self._broken:
                    continue
                factors = slowdown * (1 + 0.001 * random.standard_normal(protocol.runs))
                samples = tuple(int(self._latency_ns(model) * factor) for factor in factors)
                visits[model.key] = Visit(samples, (False,) * protocol.runs)
            yield Round(
                run_id=f"{self._network_mib} {self._runs}",
                process=index % protocol.processes,
                index=index,
                attempt=0,
                accepted=True,
                started_at=float(index),
                duration_s=0.1,
                canary_ns=(int(1e5 * slowdown),),
                canary_drift=0.0,
                visits=visits,
                failures={m.key: "no such kernel" for m in models if m.id == self._broken},
            )

    def _latency_ns(self, model: Model) -> float:
        if model.path not in self._work:
            self._work[model.path] = count_work(onnx.load(model.path))
        work = self._work[model.path]
        is_network = model.id.startswith("network:")
        evicted = self._network_mib if is_network else model.eviction_bytes / MIB
        return 1e3 * self._call_us + work.flops / 20 + 0.2 * (1 + evicted) * work.weight_bytes


def profiled(folder: Path, board: Board) -> tuple[Store, Any]:
    store = Store(folder / "store.db")
    result = profile_space(
        ChainSpace(),
        board,
        store,
        PROTOCOL,
        calibration_networks=CALIBRATION_NETWORKS,
        held_out_networks=HELD_OUT_NETWORKS,
        eviction_candidates=SIZES,
    )
    return store, result


def test_the_table_predicts_networks_it_never_saw(tmp_path: Path) -> None:
    _, result = profiled(tmp_path, Board(call_us=3.0))
    held_out = result.table.calibration.held_out
    assert held_out.networks == HELD_OUT_NETWORKS
    assert held_out.rmspe < 0.01
    assert "blocks" in result.table.calibration.terms
    assert sum(check.held_out for check in result.checks) == HELD_OUT_NETWORKS
    assert sum(check.role == "calibration" for check in result.checks) == CALIBRATION_NETWORKS
    assert (result.unstable, dict(result.failures)) == (0, {})


def test_intervals_are_as_wide_as_networks_of_no_other_use_make_them(tmp_path: Path) -> None:
    _, result = profiled(tmp_path, Board(call_us=3.0))
    checks = [check for check in result.checks if check.role == "interval"]
    calibration = result.table.calibration
    assert calibration.interval_networks == len(checks) >= FEWEST_INTERVAL_NETWORKS
    off = [check.measured_ms / check.estimate.latency_ms - 1 for check in checks]
    assert calibration.interval_share == pytest.approx(conformal_share(off))


def test_the_size_whose_sums_need_no_correction_is_chosen(tmp_path: Path) -> None:
    _, result = profiled(tmp_path, Board())
    assert result.table.eviction_bytes == MIB
    assert [trial.chosen for trial in result.table.trials] == [False, True, False]
    assert result.table.trials[0].plain_bias < -0.02
    assert result.table.trials[2].plain_bias > 0.02


def test_every_block_of_the_space_is_in_the_table_and_identities_are_not_timed(
    tmp_path: Path,
) -> None:
    board = Board()
    _, result = profiled(tmp_path, board)
    space = ChainSpace()
    for block in space.blocks():
        assert result.table.estimate(block).source == "measured"
    assert not any("Skip" in model.id for model in board.timed)
    half = replace(space.blocks()[2], expanded_channels=24)
    assert result.table.estimate(half).source in {"measured", "interpolated"}


def test_nothing_is_timed_twice_and_the_table_is_the_same(tmp_path: Path) -> None:
    store, first = profiled(tmp_path, Board())
    store.close()
    board = Board()
    _, second = profiled(tmp_path, board)
    assert board.timed == []
    assert second.table == first.table


def test_the_store_alone_gives_the_same_table(tmp_path: Path) -> None:
    store, result = profiled(tmp_path, Board())
    table = build_table(
        store, Board.setup, ChainSpace(), CALIBRATION_NETWORKS, HELD_OUT_NETWORKS, SIZES
    )
    assert table == result.table
    table.save(tmp_path / "table.json")
    assert LatencyTable.load(tmp_path / "table.json") == table


def test_the_decision_stands_when_more_rounds_come_in(tmp_path: Path) -> None:
    store, result = profiled(tmp_path, Board())
    plan = Plan.draw(ChainSpace(), CALIBRATION_NETWORKS, HELD_OUT_NETWORKS, SIZES)
    more = replace(PROTOCOL, rounds=3 * PROTOCOL.rounds)
    profile(Board(network_mib=2), [(network, 0) for network in plan.calibration], store, more)
    again = build_space_profile(store, Board.setup, ChainSpace(), plan).table
    assert again.calibration != result.table.calibration
    assert again.eviction_bytes == result.table.eviction_bytes == MIB


def test_what_is_measured_later_for_something_else_does_not_change_the_table(
    tmp_path: Path,
) -> None:
    board = Board()
    store, result = profiled(tmp_path, board)
    before = result.table
    other = replace(ChainSpace().blocks()[2], out_channels=248)
    assert other not in before.entries
    profile(board, [(other, before.eviction_bytes)], store, PROTOCOL)
    plan = Plan.draw(ChainSpace(), CALIBRATION_NETWORKS, HELD_OUT_NETWORKS, SIZES)
    assert build_space_profile(store, Board.setup, ChainSpace(), plan).table == before


def test_a_block_that_fails_costs_only_its_networks(tmp_path: Path) -> None:
    broken = replace(ChainSpace().blocks()[2], kernel=5)
    _, result = profiled(tmp_path, Board(broken=broken.key))
    assert {key[0] for key in result.failures} == {broken.key}
    calibrated = result.table.calibration.networks
    assert 3 <= calibrated < CALIBRATION_NETWORKS
    assert 0 < sum(check.held_out for check in result.checks) < HELD_OUT_NETWORKS
    assert result.table.calibration.held_out.rmspe < 0.01
    assert result.table.estimate(broken).source in {"interpolated", "extrapolated"}


def test_a_drift_between_the_phases_is_reported(tmp_path: Path) -> None:
    (tmp_path / "steady").mkdir()
    _, steady = profiled(tmp_path / "steady", Board())
    _, drifting = profiled(tmp_path, Board(drift=0.05))
    assert steady.canary_shift == pytest.approx(0.0)
    assert drifting.canary_shift == pytest.approx(0.05)
    for block, entry in steady.table.entries.items():
        assert drifting.table.entries[block].median_ms == pytest.approx(entry.median_ms, rel=0.005)


def test_a_store_without_the_networks_says_what_to_do(tmp_path: Path) -> None:
    plan = Plan.draw(ChainSpace(), CALIBRATION_NETWORKS, HELD_OUT_NETWORKS)
    with pytest.raises(DeviceError, match="Profile the space"):
        build_space_profile(Store(tmp_path / "store.db"), Board.setup, ChainSpace(), plan)


def test_networks_are_distinct_and_held_out_ones_take_no_part() -> None:
    plan = Plan.draw(ChainSpace(), CALIBRATION_NETWORKS, HELD_OUT_NETWORKS, seed=3)
    keys = [network.key for network in (*plan.calibration, *plan.interval, *plan.held_out)]
    assert len(set(keys)) == len(keys)
    assert len(plan.calibration) == CALIBRATION_NETWORKS
    assert len(plan.held_out) == HELD_OUT_NETWORKS
    assert len(plan.interval) >= FEWEST_INTERVAL_NETWORKS
    assert plan == Plan.draw(ChainSpace(), CALIBRATION_NETWORKS, HELD_OUT_NETWORKS, seed=3)
    assert plan != Plan.draw(ChainSpace(), CALIBRATION_NETWORKS, HELD_OUT_NETWORKS, seed=4)


def test_calibration_networks_span_the_space() -> None:
    plan = Plan.draw(ChainSpace(), CALIBRATION_NETWORKS, HELD_OUT_NETWORKS)
    flops = [sum(block_counts(b).flops for b in network.blocks) for network in plan.calibration]
    assert flops == sorted(flops)
    assert flops[-1] > 3 * flops[0]


def test_a_space_of_too_few_networks_is_refused() -> None:
    with pytest.raises(UsageError, match="chains"):
        Plan.draw(ChainSpace(most_layers=1), 3, 4)


def test_the_first_phase_holds_every_size_once_and_whole_networks_as_deployed() -> None:
    plan = Plan.draw(ChainSpace(), CALIBRATION_NETWORKS, HELD_OUT_NETWORKS, SIZES)
    requests = [(subject.key, size) for subject, size in plan.first_phase()]
    assert len(set(requests)) == len(requests)
    blocks = timed_blocks(plan.calibration)
    assert {(block.key, size) for block in blocks for size in SIZES} <= set(requests)
    networks = (*plan.calibration, *plan.interval, *plan.held_out)
    assert {(network.key, 0) for network in networks} <= set(requests)
    assert {(block.key, 0) for block in probe_blocks()} <= set(requests)


def trial(bias: float, *residuals: float) -> Calibration:
    error = PredictionError(len(residuals), bias, abs(bias), 0, 0, None)
    return Calibration(plain=error, residuals=residuals)


@pytest.mark.parametrize(
    ("calibrations", "chosen"),
    [
        ({0: trial(-0.2, 0.1, -0.1, 0.1, -0.1), 4: trial(-0.4, 0.01, 0.02, 0.01, 0.02)}, 4),
        ({0: trial(-0.2, 0.02, 0.02, 0.01, 0.03), 4: trial(-0.1, 0.02, 0.01, 0.03, 0.025)}, 4),
        ({0: trial(-0.1, 0.021, 0.021, 0.02), 4: trial(-0.3, 0.02, 0.02, 0.019)}, 0),
        ({0: trial(0.105, 0.02, 0.02, 0.01), 4: trial(0.1, 0.02, 0.01, 0.02)}, 0),
        ({0: trial(0.0, 0.02, 0.01, 0.03)}, 0),
    ],
    ids=[
        "clearly lower error",
        "alike, less bias",
        "hardly higher error",
        "alike in both, smaller",
        "only one",
    ],
)
def test_choice_of_the_eviction_size(calibrations: dict[int, Calibration], chosen: int) -> None:
    assert choose_eviction(calibrations) == chosen


def mbconv(**values: Any) -> MBConv:
    values = {"in_channels": 16, "out_channels": 24, "height": 8, "width": 8, **values}
    return MBConv(**values)


def test_only_the_narrowest_of_its_relatives_is_halved() -> None:
    blocks = [mbconv(expanded_channels=channels) for channels in (96, 48)]
    assert narrow_blocks([*blocks, *ChainSpace().blocks()[:1]], 8) == [mbconv(expanded_channels=24)]


def test_a_halved_width_lies_on_the_grid_and_keeps_the_operations() -> None:
    assert narrow_blocks([mbconv(expanded_channels=40)], 8) == [mbconv(expanded_channels=24)]
    assert narrow_blocks([mbconv(expanded_channels=32)], 16) == []
    assert narrow_blocks([mbconv(expanded_channels=64)], 32) == [mbconv(expanded_channels=32)]
    assert narrow_blocks([mbconv(expanded_channels=32)], 8) == [mbconv(expanded_channels=24)]
