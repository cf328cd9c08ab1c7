"""Latencies of rounds in which the device was now faster, now slower."""

from latkit.devices.device import Round, Setup, Visit
from latkit.devices.measurement import Measurement
from latkit.latency.one_speed import at_one_speed

SETUP = Setup("board", "toy", "1")


def measured(model: str, latency_ns: int, *canary_ns: int) -> tuple[tuple[str, int], Measurement]:
    key = (model, 0)
    rounds = tuple(
        Round(
            run_id="run",
            process=index,
            index=index,
            attempt=0,
            accepted=True,
            started_at=float(index),
            duration_s=0.1,
            canary_ns=canary_ns,
            canary_drift=0.0,
            visits={key: Visit((latency_ns,) * 3, (False,) * 3)},
            failures={},
        )
        for index in range(6)
    )
    return key, Measurement(model, SETUP, 0, rounds)


def test_what_was_measured_beside_a_slow_canary_is_faster_by_its_share():
    found = at_one_speed(
        dict(
            [
                measured("a", 1_000_000, 100, 100, 900),
                measured("b", 2_000_000, 105),
                measured("c", 3_000_000, 90),
            ]
        )
    )
    assert found["a", 0].median_ms == 1.0
    assert found["b", 0].median_ms == 2.0 * 100 / 105
    assert found["c", 0].median_ms == 3.0 * 100 / 90
    assert found["c", 0].low_ms == found["c", 0].high_ms == found["c", 0].median_ms


def test_the_usual_speed_is_that_of_those_named():
    both = dict([measured("a", 1_000_000, 100), measured("b", 2_000_000, 104)])
    found = at_one_speed(both, [("b", 0), ("never measured", 0)])
    assert (found["a", 0].median_ms, found["b", 0].median_ms) == (1.04, 2.0)


def test_what_has_no_canary_is_taken_as_it_is():
    both = dict([measured("a", 1_000_000, 100), measured("b", 2_000_000)])
    assert at_one_speed(both)["b", 0].median_ms == 2.0
    assert at_one_speed(dict([measured("b", 2_000_000)]))["b", 0].median_ms == 2.0
