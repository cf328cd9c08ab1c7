import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.errors import LatkitError, UnreachableTargetError, UsageError
from latkit.latency import cost as cost_module
from latkit.latency.blocks import ConvBlock
from latkit.latency.cost import BlockFactor, CostModel, Factor, lay_out

BLOCKS = [ConvBlock(in_channels=3, out_channels=n, height=4, width=4) for n in range(1, 7)]


@st.composite
def factor_graphs(draw):
    """Small random factor graphs: option counts and factors over up to three choices each."""
    counts = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    scopes = draw(
        st.lists(
            st.lists(st.integers(0, len(counts) - 1), unique=True, max_size=3).map(tuple),
            max_size=6,
        )
    )
    seed = draw(st.integers(0, 2**16))
    random = np.random.default_rng(seed)
    factors = [
        Factor(scope, random.integers(-9, 9, [counts[p] for p in scope]) / 4) for scope in scopes
    ]
    return tuple(counts), factors, float(random.integers(-5, 5))


def every_architecture(counts):
    return np.array(list(itertools.product(*map(range, counts))), dtype=np.uint8)


def plain_sum(factors, constant, row):
    """What the model computes, the slow and obvious way."""
    return constant + sum(
        float(factor.values[tuple(row[position] for position in factor.positions)])
        for factor in factors
    )


@settings(max_examples=100, deadline=None)
@given(factor_graphs())
def test_latency_is_the_sum_of_the_factors_entries(graph):
    counts, factors, constant = graph
    rows = every_architecture(counts)
    expected = [plain_sum(factors, constant, row) for row in rows]
    assert CostModel(counts, factors, constant).latency_ms(rows) == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(factor_graphs())
def test_minimum_and_maximum_are_those_of_the_enumeration(graph):
    counts, factors, constant = graph
    model = CostModel(counts, factors, constant)
    costs = [plain_sum(factors, constant, row) for row in every_architecture(counts)]
    for (value, choices), extreme in ((model.minimum(), min(costs)), (model.maximum(), max(costs))):
        assert value == pytest.approx(extreme)
        assert plain_sum(factors, constant, choices) == pytest.approx(extreme)


@settings(max_examples=60, deadline=None)
@given(factor_graphs(), st.integers(0, 100))
def test_expected_is_the_probability_weighted_mean_of_the_enumeration(graph, seed):
    counts, factors, constant = graph
    random = np.random.default_rng(seed)
    probabilities = [random.dirichlet(np.ones(count)) for count in counts]
    mean = sum(
        plain_sum(factors, constant, row)
        * np.prod([vector[choice] for vector, choice in zip(probabilities, row, strict=True)])
        for row in every_architecture(counts)
    )
    assert CostModel(counts, factors, constant).expected(probabilities) == pytest.approx(mean)


@pytest.mark.parametrize("merged_entries", [1, 64, 1 << 18])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16])
@pytest.mark.parametrize("order", ["C", "F"])
def test_sums_do_not_depend_on_merging_chunks_dtype_or_memory_order(
    monkeypatch, merged_entries, dtype, order
):
    monkeypatch.setattr(cost_module, "MERGED_ENTRIES", merged_entries)
    monkeypatch.setattr(cost_module, "CHUNK", 7)
    random = np.random.default_rng(3)
    counts = (5, 4, 6, 3, 50, 50, 40)
    scopes = [(0, 1), (2, 1), (3,), (3, 4), (4, 5, 6)]
    factors = [Factor(scope, random.random([counts[p] for p in scope])) for scope in scopes]
    rows = np.array(random.integers(0, counts, (100, len(counts))), dtype=dtype, order=order)
    expected = [plain_sum(factors, 0.5, row) for row in rows]
    result = CostModel(counts, factors, 0.5).latency_ms(rows)
    np.testing.assert_allclose(result, expected, rtol=1e-14)


@pytest.mark.parametrize("row", [[2, 0], [-1, 0], [0, 3], [65536, 0]])
def test_index_that_names_no_option_is_refused(row):
    model = CostModel((2, 3), [Factor((0, 1), np.ones((2, 3)))])
    with pytest.raises(UsageError, match=r"choice [01] has options"):
        model.latency_ms(np.array([[0, 0], row], dtype=np.int64))


@pytest.mark.parametrize("rows", [np.zeros((4, 3), int), np.zeros((4, 2)), np.zeros(2, int)])
def test_array_of_another_shape_or_kind_is_refused(rows):
    with pytest.raises(UsageError, match="array of integers"):
        CostModel((2, 3), []).latency_ms(rows)


def test_no_architectures_cost_nothing():
    assert CostModel((2, 3), [], 1.0).latency_ms(np.zeros((0, 2), np.uint8)).shape == (0,)


def test_target_below_the_smallest_latency_names_it_and_its_architecture():
    model = CostModel(
        (2, 2), [Factor((0,), np.array([3.0, 1.25])), Factor((1,), np.array([2.0, 5.0]))], 0.5
    )
    model.require_reachable(3.75)
    with pytest.raises(UnreachableTargetError, match=r"3\.75 ms, of \(1, 0\)"):
        model.require_reachable(3.74)
    with pytest.raises(UsageError, match="positive"):
        model.require_reachable(float("nan"))


def test_factors_over_too_many_choices_at_once_are_refused(monkeypatch):
    monkeypatch.setattr(cost_module, "LARGEST_TABLE", 100)
    counts = (10,) * 4
    factors = [Factor(pair, np.zeros((10, 10))) for pair in itertools.combinations(range(4), 2)]
    with pytest.raises(UsageError, match="too many choices at once"):
        CostModel(counts, factors).minimum()


def test_factor_of_another_shape_is_refused():
    with pytest.raises(UsageError, match=r"must have shape \(2, 3\)"):
        CostModel((2, 3), [Factor((0, 1), np.zeros((3, 2)))])


@dataclass
class TinySpace:
    option_counts: tuple[int, ...] = (2, 3)

    def factors(self):
        return (
            BlockFactor((), (BLOCKS[0],)),
            BlockFactor((1, 0), (*BLOCKS[:5], None)),
        )

    def describe(self, choices):
        return f"tiny {tuple(choices)}"


def test_lay_out_prices_each_block_once_and_skips_cost_nothing():
    priced = []

    def cost(block):
        priced.append(block)
        return float(block.out_channels)

    model = lay_out(TinySpace(), cost, constant=10.0)
    assert sorted(block.out_channels for block in priced) == [1, 2, 3, 4, 5]
    rows = every_architecture((2, 3))
    # Piece (choice 1, choice 0): blocks 1 to 5 and a skip, the last position moving fastest.
    widths = {(0, 0): 1, (1, 0): 2, (0, 1): 3, (1, 1): 4, (0, 2): 5, (1, 2): 0}
    assert model.latency_ms(rows).tolist() == [11.0 + widths[tuple(row)] for row in rows.tolist()]
    assert model.minimum() == (11.0, (1, 2))
    with pytest.raises(UnreachableTargetError, match=r"tiny \(1, 2\)"):
        model.require_reachable(5)


def test_block_without_a_finite_cost_is_named():
    with pytest.raises(LatkitError, match="out_channels=4"):
        lay_out(TinySpace(), lambda block: float("nan") if block.out_channels == 4 else 1.0)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_factor_that_is_no_finite_number_is_refused_by_choice_and_option(wrong):
    values = np.ones((2, 3))
    values[1, 2] = wrong
    with pytest.raises(UsageError, match=r"choices \(0, 1\) is .*options \(1, 2\)"):
        CostModel((2, 3), [Factor((0, 1), values)])
    with pytest.raises(UsageError, match="constant"):
        CostModel((2, 3), [], wrong)


def test_costs_in_other_units_say_so():
    model = CostModel((2,), [Factor((0,), np.array([3.0, 5.0]))], unit="FLOPs")
    with pytest.raises(
        UnreachableTargetError, match=r"costs as little as 2 FLOPs.*cost is 3 FLOPs"
    ):
        model.require_reachable(2.0)
    with pytest.raises(UsageError, match="positive number of FLOPs"):
        model.require_reachable(0.0)


def test_scaled_cost_is_the_multiple():
    model = CostModel((2,), [Factor((0,), np.array([3.0, 5.0]))], 1.0)
    assert model.scaled(0.5).latency_ms(np.array([[0], [1]])).tolist() == [2.0, 3.0]
    assert model.of((1,)) == 6.0
