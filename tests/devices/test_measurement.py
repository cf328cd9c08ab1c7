from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices import DeviceError, Placement, Round, Setup, Summary, Visit
from latkit.devices.measurement import measurement

SETUP = Setup("cpu:test", "onnxruntime", "1.0")
KEY = ("block", 0)


def make_round(
    index,
    samples,
    *,
    preempted=(),
    run="a" * 32,
    process=None,
    accepted=True,
    canary=(100, 100),
    drift=0.0,
    failure=None,
    context=None,
):
    flags = None if preempted is None else tuple(i in preempted for i in range(len(samples)))
    return Round(
        run_id=run,
        process=index // 2 if process is None else process,
        index=index,
        attempt=0,
        accepted=accepted,
        started_at=0.0,
        duration_s=1.0,
        canary_ns=canary,
        canary_drift=drift,
        visits={} if failure else {KEY: Visit(tuple(samples), flags)},
        failures={KEY: failure} if failure else {},
        context=context or {},
    )


def quiet_rounds(count=8, **options):
    return [make_round(index, [1000, 1001, 1002], **options) for index in range(count)]


def slow_rounds(count, samples=(1200, 1201, 1202), **options):
    options = {"canary": (110, 110), "drift": 0.1, **options}
    return [make_round(index, samples, **options) for index in range(count)]


def test_quiet_rounds_are_stable():
    result = measurement(KEY, SETUP, quiet_rounds())
    assert result.verdict.kind == "stable"
    assert result.verdict.reasons == ()
    assert result.median_ns == 1001
    assert result.median_ms == pytest.approx(0.001001)
    assert result.sample_count == 24
    assert (result.model_id, result.eviction_bytes, result.setup) == ("block", 0, SETUP)


def test_median_is_over_rounds_so_a_long_disturbed_round_weighs_as_one():
    rounds = [make_round(i, [10 * (i + 1)] * 3) for i in range(6)]
    rounds.append(make_round(6, [10_000] * 100, process=3))
    assert measurement(KEY, SETUP, rounds).median_ns == 40


def test_preempted_samples_are_dropped():
    rounds = [make_round(i, [10, 11, 12, 99_999], preempted={3}) for i in range(8)]
    result = measurement(KEY, SETUP, rounds)
    assert result.p95_ns <= 12
    assert result.sample_count == 24
    assert result.verdict.kind == "stable"


def test_where_most_samples_are_preempted_all_are_used_and_it_is_noisy():
    rounds = [make_round(i, [10, 12, 14], preempted={0, 1, 2}) for i in range(8)]
    result = measurement(KEY, SETUP, rounds)
    assert result.median_ns == 12
    assert result.sample_count == 24
    assert result.verdict.kind == "noisy"
    assert "every sample (24) was preempted" in result.verdict.reasons[0]


def test_a_round_without_a_clean_sample_is_left_out_of_the_median():
    rounds = quiet_rounds(7)
    rounds.append(make_round(7, [50_000, 50_000], preempted={0, 1}))
    result = measurement(KEY, SETUP, rounds)
    assert result.sample_count == 21
    assert result.high_ms == pytest.approx(0.001001)


def test_unchecked_preemption_is_a_note_only():
    verdict = measurement(KEY, SETUP, quiet_rounds(preempted=None)).verdict
    assert verdict.kind == "stable"
    assert verdict.reasons == ("preemption unchecked in 8 of 8 rounds",)


@pytest.mark.parametrize(
    ("rounds", "reason"),
    [
        (quiet_rounds(5), "only 5 rounds"),
        (quiet_rounds(8, process=0), "only 1 processes"),
        ([make_round(i, [1000 + 30 * i]) for i in range(8)], "the rounds spread by 9.5%"),
        (
            [*quiet_rounds(5), *slow_rounds(3)],
            "the canary was slow in 3 of 8 rounds, by up to 10.0%",
        ),
        ([*quiet_rounds(7), make_round(7, [], failure="broke")], "failed in 1 of 8 rounds: broke"),
    ],
)
def test_noise_is_named(rounds, reason):
    verdict = measurement(KEY, SETUP, rounds).verdict
    assert verdict.kind == "noisy"
    assert any(reason in text for text in verdict.reasons), verdict.reasons


@pytest.mark.parametrize("slow_first", [True, False])
def test_rounds_whose_canary_is_slow_are_left_out_where_enough_are_quiet(slow_first):
    slow, quiet = slow_rounds(4), quiet_rounds(6)
    result = measurement(KEY, SETUP, slow + quiet if slow_first else quiet + slow)
    assert result.median_ns == 1001
    assert result.verdict.kind == "stable"
    assert result.verdict.reasons == (
        "4 of 10 rounds left out: the canary was slow by up to 10.0%",
    )
    assert not result.unsteady


def test_what_the_first_rounds_took_for_quiet_is_judged_by_the_last_one():
    mistaken = slow_rounds(4, drift=0.0)  # there was nothing faster to compare with yet
    result = measurement(KEY, SETUP, mistaken + quiet_rounds(6))
    assert result.median_ns == 1001


def test_too_few_quiet_rounds_are_unsteady_and_all_are_used():
    result = measurement(KEY, SETUP, slow_rounds(6) + quiet_rounds(5))
    assert result.median_ns == 1201
    assert result.verdict.kind == "noisy"
    assert result.unsteady


def test_runs_whose_canaries_differ_are_named_with_the_difference():
    rounds = quiet_rounds(4) + [
        make_round(i, [1000, 1001, 1002], run="b" * 32, canary=(105, 105), drift=0.05)
        for i in range(4, 8)
    ]
    verdict = measurement(KEY, SETUP, rounds).verdict
    assert verdict.kind == "noisy"
    slow, reason = verdict.reasons
    assert "slow in 4 of 8" in slow
    assert "5.0% more in run bbbbbbbb than in run aaaaaaaa" in reason


def test_runs_whose_canaries_agree_join():
    rounds = quiet_rounds(4) + [
        make_round(i, [1001], run="b" * 32, canary=(102, 102)) for i in range(4, 8)
    ]
    assert measurement(KEY, SETUP, rounds).verdict.kind == "stable"


def test_throttling_goes_before_noise():
    rounds = quiet_rounds(2, process=0, context={"throttled": "the processor slowed down"})
    verdict = measurement(KEY, SETUP, rounds).verdict
    assert verdict.kind == "throttled"
    assert verdict.reasons[0] == "throttled in 2 of 2 rounds: the processor slowed down"
    assert len(verdict.reasons) == 3


def test_rounds_that_were_repeated_do_not_count():
    rounds = [*quiet_rounds(), make_round(0, [9999], accepted=False, drift=0.5)]
    result = measurement(KEY, SETUP, rounds)
    assert len(result.rounds) == 8
    assert result.verdict.kind == "stable"


def test_a_model_that_always_failed_raises_with_its_cause():
    rounds = [make_round(i, [], failure="no such operator") for i in range(8)]
    with pytest.raises(DeviceError, match="no such operator"):
        measurement(KEY, SETUP, rounds)


@pytest.mark.parametrize("rounds", [[], quiet_rounds(8, accepted=False)])
def test_no_accepted_round_is_an_error(rounds):
    with pytest.raises(DeviceError, match="no accepted round"):
        measurement(KEY, SETUP, rounds)


def test_another_eviction_is_another_model():
    with pytest.raises(DeviceError):
        measurement(("block", 1024), SETUP, quiet_rounds())


@pytest.mark.parametrize(("count", "rank"), [(5, 0), (6, 0), (8, 0), (9, 1), (12, 2), (25, 7)])
def test_interval_is_the_narrowest_pair_of_rounds_with_95_percent(count, rank):
    # Ranks from the table of the sign test: the interval is the (rank + 1)th value of each end.
    rounds = [make_round(i, [1000 + i]) for i in range(count)]
    result = measurement(KEY, SETUP, rounds)
    assert result.low_ms * 1e6 == pytest.approx(1000 + rank)
    assert result.high_ms * 1e6 == pytest.approx(1000 + count - 1 - rank)


def test_interval_covers_the_true_median_as_often_as_it_says():
    random = np.random.default_rng(0)
    covered = 0
    for values in random.lognormal(size=(400, 9)) * 1000:
        result = measurement(KEY, SETUP, [make_round(i, [int(v)]) for i, v in enumerate(values)])
        covered += result.low_ms * 1e6 <= 1000 <= result.high_ms * 1e6
    assert covered / 400 >= 0.94


samples = st.lists(st.integers(1, 10**10), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(st.lists(samples, min_size=1, max_size=9), st.randoms(use_true_random=False))
def test_statistics_do_not_depend_on_the_order_and_are_ordered(values, random):
    rounds = [make_round(i, samples) for i, samples in enumerate(values)]
    result = measurement(KEY, SETUP, rounds)
    assert result.low_ms <= result.median_ms <= result.high_ms
    assert result.p5_ns <= result.p95_ns
    assert result.spread >= 0
    shuffled = rounds.copy()
    random.shuffle(shuffled)
    again = measurement(KEY, SETUP, shuffled)
    assert (again.median_ns, again.spread, again.low_ms) == (
        result.median_ns,
        result.spread,
        result.low_ms,
    )


@settings(deadline=None, max_examples=60)
@given(st.lists(samples, min_size=6, max_size=9), st.integers(1, 10**12))
def test_the_value_of_a_preempted_sample_never_matters(values, garbage):
    def result(value):
        rounds = [
            make_round(i, [*samples, value], preempted={len(samples)})
            for i, samples in enumerate(values)
        ]
        return measurement(KEY, SETUP, rounds)

    assert result(garbage).median_ns == result(1).median_ns
    assert result(garbage).p95_ns == result(1).p95_ns


def test_a_measurement_is_a_value():
    one, other = (measurement(KEY, SETUP, quiet_rounds()) for _ in range(2))
    assert one == other
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.model_id = "else"


def with_visit(rounds, visit):
    return [dataclasses.replace(item, visits={KEY: visit}) for item in rounds]


def test_summaries_name_their_statistic_and_have_no_percentiles():
    visit = Visit((), None, None, Summary("mean", 2000.0, 50))
    result = measurement(KEY, SETUP, with_visit(quiet_rounds(), visit))
    assert (result.statistic, result.median_ns, result.sample_count) == ("mean", 2000.0, 400)
    assert result.p5_ns is None and result.p95_ns is None
    assert result.verdict.kind == "stable"
    assert "the mean of each round's runs" in result.verdict.reasons[0]


@pytest.mark.parametrize(
    "other", [Visit((5, 6), None), Visit((), None, None, Summary("median", 5.0, 2))]
)
def test_statistics_are_never_mixed(other):
    rounds = quiet_rounds()
    mean = Visit((), None, None, Summary("mean", 2000.0, 50))
    with pytest.raises(DeviceError, match="never mixed"):
        measurement(KEY, SETUP, with_visit(rounds[:4], mean) + with_visit(rounds[4:], other))


def test_a_fallback_and_a_partial_delegation_are_told():
    setup = dataclasses.replace(SETUP, accelerator="gpu")
    fallback = with_visit(quiet_rounds(), Visit((1000, 1001), None, Placement("cpu")))
    assert "gpu was asked for, and cpu ran it" in measurement(KEY, setup, fallback).verdict.reasons
    partly = with_visit(quiet_rounds(), Visit((1000, 1001), None, Placement("gpu", 2, 9, 12)))
    reasons = measurement(KEY, setup, partly).verdict.reasons
    assert "9 of 12 nodes ran on gpu, in 2 partitions" in reasons
