import numpy as np
import pytest
from latkit.latency.transfer.gaussian import (
    Part,
    Task,
    left_out,
    most_likely,
    most_telling,
    posterior,
)


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture
def parts(random):
    wide = random.standard_normal((60, 4))
    gram = np.diag([1.0, 2.0, 0.5, 0.1])
    return [
        Part("line", random.standard_normal((60, 1)), 1.0),
        Part("weighted", wide, 0.1, gram),
        Part("plain", wide, 0.1),
    ]


def drawn(parts, variances, random, noise=0.05):
    """Latencies that the parts give with these variances."""
    latency = np.sqrt(noise) * random.standard_normal(60)
    for part, variance in zip(parts, variances, strict=True):
        root = np.linalg.cholesky(part.gram_matrix())
        latency += part.basis @ root @ random.standard_normal(len(root)) * np.sqrt(variance)
    return latency


def test_parts_are_scaled_to_a_prior_variance_of_one(parts):
    for part in parts:
        every = np.arange(60)
        assert np.mean(np.diag(part.between(every, every))) == pytest.approx(1)


def test_part_that_tells_nothing_stays_nothing(random):
    part = Part("empty", np.zeros((60, 2)), 1.0)
    assert not part.between(np.arange(60), np.arange(60)).any()


def test_gradient_of_the_evidence_is_the_right_one(parts, random):
    rows = np.arange(0, 60, 3)
    task = Task.of(parts, rows, random.standard_normal(20), known_noise=0.01)
    at = np.log([0.5, 0.2, 0.1, 0.03])
    steps = 1e-4 * np.eye(len(at))
    expected = [
        (task.surprise(at + step)[0] - task.surprise(at - step)[0]) / 2e-4 for step in steps
    ]
    np.testing.assert_allclose(task.surprise(at)[1], expected, rtol=1e-4, atol=1e-4)


def test_the_part_that_made_the_latencies_gets_the_variance(parts, random):
    latency = [drawn(parts, (1.0, 1e-9, 1e-9), random) for _ in range(8)]
    rows = np.arange(60)
    found = most_likely(
        [Task.of(parts, rows, each - each.mean()) for each in latency], np.full(4, -2.0), 3.0
    )
    assert found[0] > found[1] + 2
    assert found[0] > found[2] + 2


def test_posterior_equals_the_textbook_formula(parts, random):
    rows, wanted = np.arange(15), np.arange(15, 60)
    variances = np.array([0.5, 0.2, 0.1, 0.03])
    latency = random.standard_normal(15)
    task = Task.of(parts, rows, latency, known_noise=0.01)
    mean, variance = posterior(parts, rows, task, np.log(variances), wanted)

    def prior(these, those):
        weighted = zip(parts, variances[:-1], strict=True)
        return 100.0 + sum(v * part.between(these, those) for part, v in weighted)

    inverse = np.linalg.inv(prior(rows, rows) + 0.04 * np.eye(15))
    between = prior(wanted, rows)
    np.testing.assert_allclose(mean, between @ inverse @ latency, rtol=1e-6)
    expected = np.diag(prior(wanted, wanted) - between @ inverse @ between.T) + 0.04
    np.testing.assert_allclose(variance, expected, rtol=1e-4)


def test_left_out_errors_equal_those_of_really_leaving_out(parts, random):
    rows, latency = np.arange(12), random.standard_normal(12)
    log_variances = np.log([0.5, 0.2, 0.1, 0.03])
    squares, ratios = [], []
    for out in range(12):
        kept = np.delete(rows, out)
        task = Task.of(parts, kept, latency[kept])
        mean, variance = posterior(parts, kept, task, log_variances, rows[[out]])
        squares.append((latency[out] - mean[0]) ** 2)
        ratios.append(squares[-1] / variance[0])
    task = Task.of(parts, rows, latency)
    expected = pytest.approx((np.mean(squares), np.mean(ratios)), rel=1e-4)
    assert left_out(task, log_variances) == expected


def test_most_telling_item_is_the_one_that_leaves_least_variance(parts, random):
    log_variances = np.log([0.5, 0.2, 0.1, 0.03])
    candidates, wanted = np.arange(0, 60, 2), np.arange(60)

    def left(rows):
        task = Task.of(parts, np.array(rows), np.zeros(len(rows)))
        return posterior(parts, np.array(rows), task, log_variances, wanted)[1].mean()

    chosen = most_telling(parts, log_variances, candidates, wanted, 6)
    assert len(set(chosen.tolist())) == 6
    for step in range(6):
        before = chosen[:step].tolist()
        others = [row for row in candidates.tolist() if row not in before]
        best = min(left([*before, row]) for row in others)
        assert left(chosen[: step + 1].tolist()) == pytest.approx(best, rel=1e-5)
