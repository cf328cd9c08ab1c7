"""Kernel model: physical estimates corrected by a process, honest about kernels left out."""

import math
from dataclasses import replace

import numpy as np
import pytest
from latkit.latency.additive import INDUCING
from latkit.latency.counts import Kernel
from latkit.latency.models.kernel_features import categories, features, ranges, work
from latkit.latency.models.kernel_model import fit_kernel_model


def conv(channels, out, side, operation="Conv+Relu"):
    products = channels * out * side * side
    sizes = 4 * channels * out, 4 * channels * side * side, 4 * out * side * side
    return Kernel(
        *("pointwise", operation, 2 * products, *sizes),
        *(channels, out, side, side, side, side),
    )


def latency_ms(kernel):
    """Rounded up to vectors of 16, slower where the image is small: no sum of amounts of work."""
    padded = -(-kernel.out_channels // 16) * 16 / kernel.out_channels
    return 0.003 + kernel.flops * padded / 6e7 * (1 + 2 / kernel.out_width)


def drawn(count, seed=0):
    random = np.random.default_rng(seed)
    return [
        conv(
            *np.exp(random.uniform(math.log(8), math.log(400), 2)).astype(int).tolist(),
            int(random.integers(4, 80)),
        )
        for _ in range(count)
    ]


def fitted(count):
    kernels = drawn(count)
    latency = np.array([latency_ms(kernel) for kernel in kernels])
    model, left_out = fit_kernel_model(kernels, latency, np.arange(count) % 5)
    return model, np.abs(left_out / latency - 1)


@pytest.mark.parametrize(("count", "median"), [(60, 0.08), (400, 0.03), (INDUCING + 400, 0.03)])
def test_kernels_never_measured_are_predicted(count, median):
    model, left_out = fitted(count)
    unseen = drawn(300, seed=1)
    error = np.abs(model.predict(unseen) / [latency_ms(kernel) for kernel in unseen] - 1)
    assert np.median(error) < median
    assert np.median(left_out) < 1.5 * median
    assert np.median(left_out) > 0.5 * np.median(error)  # errors left out are no errors of a fit


def test_few_kernels_give_a_physical_estimate_alone():
    model, left_out = fitted(6)
    assert model.process is None
    assert np.isfinite(left_out).all()
    assert (model.predict(drawn(50, seed=2)) > 0).all()


def test_far_from_all_measured_kernels_the_physical_estimate_stands():
    model, _ = fitted(200)
    far = conv(10**9, 10**9, 10**6)
    (found,) = model.predict([far])
    (estimate,) = replace(model, process=None).predict([far])
    assert found == pytest.approx(estimate, rel=0.2)
    assert found > 1e5


def test_kernels_that_are_all_alike_need_no_process():
    kernels = [conv(8, 8, 8)] * 20
    model, left_out = fit_kernel_model(kernels, np.full(20, 0.5), np.arange(20) % 5)
    assert model.process is None
    assert left_out == pytest.approx(np.full(20, 0.5), rel=0.05)


def test_one_fold_alone_is_predicted_by_all():
    kernels = drawn(20)
    latency = np.array([latency_ms(kernel) for kernel in kernels])
    _, left_out = fit_kernel_model(kernels, latency, np.zeros(20, dtype=int))
    assert np.isfinite(left_out).all() and (left_out > 0).all()


def test_what_a_model_sees_of_a_kernel_is_finite_and_tells_kernels_apart():
    strange = Kernel("copy", "Reshape", 0, 0, 0, 0)
    for kernel in (strange, conv(3, 17, 1), conv(8, 8, 8, "Conv+Add+Relu")):
        assert all(math.isfinite(value) for value in features(kernel).values())
        assert all(value >= 0 and math.isfinite(value) for value in work(kernel).values())
        assert all(value > 0 for value in ranges(kernel).values())
    assert categories(conv(8, 8, 8, "Conv+Elu")) - categories(conv(8, 8, 8)) == {"operation Elu"}
