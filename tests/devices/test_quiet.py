import pytest
from latkit.devices import quiet as quiet_module
from latkit.devices.quiet import QuietWatch, quiet_canary_ns


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch):
    monkeypatch.setattr(quiet_module.time, "sleep", lambda seconds: None)


def test_quiet_is_what_a_third_of_the_rounds_reach():
    assert quiet_canary_ns([150, 151, 134, 135, 134, 152, 153, 150, 149, 150]) == 135
    assert quiet_canary_ns([140]) == 140


def test_drift_is_against_the_fastest_that_is_known():
    watch = QuietWatch(known_ns=100.0, max_wait_s=0)
    assert watch.drift(110) == pytest.approx(0.1)
    assert QuietWatch(known_ns=None, max_wait_s=0).drift(110) == 0
    faster = QuietWatch(known_ns=200.0, max_wait_s=0)
    faster.drift(100)
    assert faster.drift(150) == pytest.approx(0.5)


def test_waits_until_quiet():
    times = iter([120.0, 118.0, 101.0, 150.0])
    QuietWatch(known_ns=100.0, max_wait_s=60).wait(lambda: next(times))
    assert next(times) == 150.0


def test_waiting_is_bounded_over_all_calls():
    calls = []

    def busy():
        calls.append(1)
        return 200.0

    watch = QuietWatch(known_ns=100.0, max_wait_s=4 * quiet_module.POLL_S)
    watch.wait(busy)
    watch.wait(busy)
    assert len(calls) == 4


def test_nothing_is_waited_for_where_nothing_is_known():
    QuietWatch(known_ns=None, max_wait_s=60).wait(lambda: pytest.fail("was timed"))
