import numpy as np
import pytest
from tabular_search.judging import difference, holm, passes, regret, regret_curve, violations
from tabular_search.ours import OURS
from tabular_search.run import ASKS, Evaluations, SpentError, run
from tabular_search.table import SPACE, Table

RANDOM = np.random.default_rng(0)
ACCURACY = RANDOM.random(SPACE.size())
TRUE_MS = 1 + RANDOM.integers(0, 30, SPACE.size()).astype(float)
TABLE = Table("made up", ACCURACY, TRUE_MS, TRUE_MS * RANDOM.uniform(0.9, 1.1, SPACE.size()))
TARGET = float(np.quantile(TRUE_MS, 0.5))


def choices_of(row):
    return [int(option) for option in np.unravel_index(row, SPACE.option_counts)]


def test_cost_is_the_seen_latency_of_each_architecture():
    rows = RANDOM.integers(0, SPACE.size(), 50)
    choices = np.array([choices_of(row) for row in rows])
    assert TABLE.cost.latency_ms(choices) == pytest.approx(TABLE.seen_ms[rows])
    assert [TABLE.index(row) for row in choices] == rows.tolist()


def test_regret_counts_only_what_is_truly_within_the_target():
    inside = np.flatnonzero(TRUE_MS <= TARGET)
    best = inside[ACCURACY[inside].argmax()]
    above = np.flatnonzero(TRUE_MS > TARGET)[:3]
    assert regret(TABLE, np.array([best, *above]), TARGET) == 0
    some = inside[:3]
    wanted = ACCURACY[best] - ACCURACY[some].max()
    assert regret(TABLE, np.array([*above, *some]), TARGET) == pytest.approx(wanted)
    curve = regret_curve(TABLE, np.array([*above, *some]), TARGET, 10)
    assert len(curve) == 10 and curve[0] == ACCURACY[best] and curve[-1] == pytest.approx(wanted)


def test_violations_are_of_what_was_seen_to_be_inside():
    seen = np.flatnonzero(TABLE.seen_ms <= TARGET)
    share, winner = violations(TABLE, seen, TARGET)
    assert share == pytest.approx((TRUE_MS[seen] > TARGET).mean()) and 0 < share < 1
    assert winner == (TRUE_MS[seen[ACCURACY[seen].argmax()]] > TARGET)


def test_hypervolume_ratio_of_the_whole_table_is_one_and_of_parts_less():
    assert TABLE.hypervolume_ratio(np.arange(SPACE.size())) == 1
    assert 0 < TABLE.hypervolume_ratio(np.arange(100)) < 1


def test_repeats_and_rejections_are_free_up_to_a_bound():
    evaluations = Evaluations(TABLE, TARGET, 2)
    inside = [choices_of(row) for row in np.flatnonzero(TABLE.seen_ms <= TARGET)[:3]]
    above = choices_of(np.flatnonzero(TABLE.seen_ms > TARGET)[0])
    for _ in range(3):
        evaluations.accuracy(inside[0])
    assert evaluations.rejected(above) and len(evaluations.charged) == 1
    evaluations.accuracy(inside[1])
    with pytest.raises(SpentError):
        evaluations.accuracy(inside[2])
    endless = Evaluations(TABLE, TARGET, 2)
    with pytest.raises(SpentError):
        for _ in range(ASKS * 2 + 1):
            endless.accuracy(inside[0])


@pytest.mark.parametrize("name", OURS)
def test_every_strategy_keeps_to_its_budget_and_repeats_itself(name):
    found = [run(OURS[name].search, TABLE, TARGET, 40, 1) for _ in range(2)]
    assert 20 <= len(found[0].rows) <= 40
    assert found[0].rows.tolist() == found[1].rows.tolist()


def test_holm_adjusts_as_it_steps_down():
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])


def test_difference_is_paired_and_its_sign_says_better():
    theirs = RANDOM.normal(size=20)
    own = theirs - 0.1 - 0.01 * RANDOM.random(20)
    found = difference("regret", 100, "random", own, theirs, -1.0)
    assert 0.1 < found.low <= found.mean <= found.high < 0.11 and found.p < 0.001
    assert difference("regret", 100, "random", own, own, -1.0).p == 1


def test_curve_passes_where_it_stays_below():
    baseline = np.array([5.0, 4.0, 3.0, 2.0, 2.0])
    assert passes(np.array([6.0, 3.0, 4.0, 1.0, 1.0]), baseline) == 4
    assert passes(np.array([1.0, 1.0, 1.0, 1.0, 1.0]), baseline) == 1
    assert passes(np.array([1.0, 1.0, 1.0, 1.0, 2.0]), baseline) is None
