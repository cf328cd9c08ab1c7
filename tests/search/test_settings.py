"""Settings of training: rates by schedule, and what is refused."""

import pytest
from latkit.devices.errors import UsageError
from latkit.search.settings import TrainingSettings


def test_rate_rises_then_falls_to_nothing():
    for schedule, half in (("linear", 0.05), ("cosine", 0.05)):
        one = TrainingSettings(1, learning_rate=0.1, warmup_share=0.2, schedule=schedule)
        assert one.rate(0) == 0
        assert one.rate(0.1) == pytest.approx(0.05)
        assert one.rate(0.2) == pytest.approx(0.1)
        assert one.rate(0.6) == pytest.approx(half)
        assert one.rate(1) == pytest.approx(0)
    assert TrainingSettings(1, warmup_share=0, learning_rate=0.1).rate(0) == pytest.approx(0.1)
    straight, curved = (
        TrainingSettings(1, warmup_share=0, schedule=name) for name in ("linear", "cosine")
    )
    assert curved.rate(0.25) > straight.rate(0.25)


def test_exponential_rate_falls_to_a_floor_and_stays():
    falling = TrainingSettings(
        1, warmup_share=0, learning_rate=1, schedule="exponential", floor_share=0.05
    )
    rates = [falling.rate(progress) for progress in (0, 0.25, 0.5, 0.75, 1)]
    assert rates == pytest.approx([1, 0.01**0.25, 0.1, 0.05, 0.05])


def test_impossible_settings_are_refused():
    with pytest.raises(UsageError):
        TrainingSettings(epochs=0)
    with pytest.raises(UsageError):
        TrainingSettings(epochs=1, batch_size=1)
    with pytest.raises(UsageError, match="crop"):
        TrainingSettings(epochs=1, crop=0)
