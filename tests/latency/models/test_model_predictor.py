"""Model predictor: wholes from kernels, intervals, unknown operations, and its file."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.device import Setup
from latkit.devices.errors import DamagedFileError, UsageError
from latkit.devices.options import DeviceOptions
from latkit.devices.registry import open_device
from latkit.latency.counts import Kernel, count
from latkit.latency.models.kernel_predictor import KernelPredictor, family
from latkit.latency.models.predictor import FEWEST_NETWORKS, ModelPredictor, predict_model
from latkit.latency.models.probe_networks import probe_network
from latkit.latency.splitting.model_split import NamedKernel, Split, split, timed_split

GOLDEN = Path(__file__).parents[1] / "golden" / "model_predictor_v1.json"
SETUP = Setup("cpu:test", "onnxruntime", "1.0", cores=(1,))
NETWORKS = 60
CONSTANT_MS, SCALE, OVERHEAD_MS = 0.01, 0.95, -0.002


def kernel_ms(kernel):
    """What kernels take on a machine that is simple, but not linear."""
    speed = 3e7 if kernel.kind == "depthwise" else 6e7
    bound = max(kernel.flops / speed, kernel.moved_bytes / 8e6)
    return 0.004 + bound * (1 + 0.3 * (kernel.out_channels % 8 > 0))


def split_of(seed, random=None):
    """A probe network split by rules, timed on that machine with some scatter."""
    kernels = count(probe_network(seed)).kernels
    named = []
    for index, kernel in enumerate(kernels):
        scatter = 1.0 if random is None else float(np.exp(random.normal(0, 0.03)))
        named.append(NamedKernel(f"k{index}", kernel, kernel_ms(kernel) * scatter))
    total = sum(kernel_ms(kernel) for kernel in kernels)
    whole = CONSTANT_MS + SCALE * total + OVERHEAD_MS * len(kernels)
    return Split(tuple(named), "runtime", whole)


def untimed(item):
    return Split(tuple(replace(k, median_ms=None) for k in item.kernels), item.source)


@pytest.fixture(scope="module")
def splits():
    random = np.random.default_rng(0)
    return [split_of(seed, random) for seed in range(NETWORKS)]


@pytest.fixture(scope="module")
def predictor(splits):
    return ModelPredictor(SETUP).fit(splits)


@pytest.fixture(scope="module")
def unseen():
    return [split_of(seed) for seed in range(1000, 1020)]


def test_networks_that_took_no_part_are_predicted(predictor, unseen):
    found = [predictor.predict(untimed(item)) for item in unseen]
    off = [p.latency_ms / item.whole_ms - 1 for p, item in zip(found, unseen, strict=True)]
    assert np.mean(np.abs(off) < 0.1) >= 0.85
    assert abs(np.median(off)) < 0.03


def test_the_calibration_of_kernels_to_wholes_is_found(predictor):
    assert predictor.calibration_.scale == pytest.approx(SCALE, rel=0.05)
    assert predictor.calibration_.overhead_ms == pytest.approx(OVERHEAD_MS, abs=0.001)


def test_kernels_shares_and_remainder_add_up_to_the_whole(predictor, unseen):
    for item in unseen[:5]:
        found = predictor.predict(untimed(item))
        assert [k.name for k in found.kernels] == [k.name for k in item.kernels]
        total = sum(kernel.latency_ms for kernel in found.kernels)
        assert total + found.remainder_ms == pytest.approx(found.latency_ms)
        assert sum(kernel.share for kernel in found.kernels) == pytest.approx(
            total / found.latency_ms
        )
        assert found.low_ms < found.latency_ms < found.high_ms
        assert found.unknown_share == 0
        frame = found.frame()
        assert len(frame) == len(item.kernels)
        assert frame["latency_ms"].sum() == pytest.approx(total)
        assert {"name", "operation", "share", "reason", "in_channels"} <= set(frame.columns)


def test_intervals_hold_most_networks_that_took_no_part(predictor, unseen):
    found = [predictor.predict(untimed(item)) for item in unseen]
    inside = [p.low_ms <= item.whole_ms <= p.high_ms for p, item in zip(found, unseen, strict=True)]
    assert np.mean(inside) >= 0.75


def test_a_network_is_left_out_with_all_its_kernels(splits):
    other = replace(
        splits[0],
        kernels=tuple(replace(k, median_ms=1000 * k.median_ms) for k in splits[0].kernels),
    )
    kernels = [k.kernel for item in splits[1:] for k in item.kernels]
    own = [k.kernel for k in other.kernels if k.kernel.kind == "conv" and k.kernel not in kernels]
    assert own
    found = ModelPredictor(SETUP).fit([other, *splits[1:]])
    assert found.left_out_[0] < 5 * splits[0].whole_ms


def test_an_unknown_operation_is_named_with_its_share_and_widens_the_interval(predictor, unseen):
    kernel = Kernel("elementwise", "FancyOp", 10**6, 0, 8 * 10**6, 8 * 10**6, 64, 64, 1, 1)
    plain = untimed(unseen[0])
    strange = replace(plain, kernels=(*plain.kernels, NamedKernel("fancy", kernel)))
    before, after = predictor.predict(plain), predictor.predict(strange)
    assert list(after.unknown_operations()) == ["FancyOp"]
    assert after.unknown_share == pytest.approx(after.kernels[-1].share)
    assert after.unknown_share > 0.01
    assert "FancyOp" in after.reason and "never profiled" in after.reason
    assert not after.kernels[-1].known
    assert after.high_ms - after.latency_ms > before.high_ms - before.latency_ms
    assert after.kernels[-1].low_ms < 2 < after.kernels[-1].high_ms  # 16 MB at 8e6 bytes a ms


def test_kernels_unlike_all_profiled_are_told_and_widen_the_interval(predictor, unseen):
    plain = untimed(unseen[0])
    conv = next(k.kernel for k in plain.kernels if k.kernel.kind == "conv")
    huge = replace(conv, flops=10**12, in_channels=9000, out_channels=9000, weight_bytes=10**9)
    found = predictor.predict(replace(plain, kernels=(NamedKernel("huge", huge),)))
    assert found.kernels[0].known and "FLOPs" in found.kernels[0].reason
    assert "1 kernels" in found.reason and "unlike" in found.reason
    assert found.high_ms / found.latency_ms > 1.2


def test_a_model_without_kernels_takes_the_constant(predictor):
    found = predictor.predict(Split((), "runtime"))
    assert found.latency_ms == pytest.approx(predictor.calibration_.constant_ms)
    assert found.kernels == () and found.remainder_ms == found.latency_ms


def test_rules_are_named_as_the_source(predictor, unseen):
    found = predictor.predict(replace(untimed(unseen[0]), source="rules"))
    assert "rules" in found.reason


def test_a_file_predicts_as_the_predictor_that_wrote_it(predictor, unseen, tmp_path):
    path = tmp_path / "p.json"
    predictor.save(path)
    loaded = ModelPredictor.load(path)
    for item in unseen[:5]:
        assert loaded.predict(untimed(item)) == predictor.predict(untimed(item))
    assert loaded.setup == SETUP
    again = tmp_path / "again.json"
    loaded.save(again)
    assert again.read_bytes() == path.read_bytes()


def test_damaged_newer_and_other_files_are_refused(predictor, tmp_path):
    path = tmp_path / "p.json"
    predictor.save(path)
    content = path.read_bytes()
    for changed in (content[:-40], content.replace(b'"scale"', b'"scald"'), b"{}"):
        path.write_bytes(changed)
        with pytest.raises(DamagedFileError):
            ModelPredictor.load(path)
    newer = json.loads(content)
    newer["version"] = 99
    path.write_text(json.dumps(newer))
    with pytest.raises(DamagedFileError, match="version 99"):
        ModelPredictor.load(path)
    with pytest.raises(UsageError):
        ModelPredictor.load(tmp_path / "none.json")


def test_a_golden_file_of_version_1_predicts_what_it_did():
    loaded = ModelPredictor.load(GOLDEN)
    products = 64 * 64 * 28 * 28
    sizes = 4 * 64 * 64, 4 * 64 * 28 * 28, 4 * 64 * 28 * 28
    kernel = Kernel("pointwise", "Conv+Relu", 2 * products, *sizes, 64, 64, 28, 28, 28, 28)
    found = loaded.predict(Split((NamedKernel("k", kernel),), "runtime"))
    assert found.latency_ms == pytest.approx(0.100102774, rel=1e-6)
    interval = pytest.approx((0.0577769284, 0.173435412), rel=1e-6)
    assert (found.low_ms, found.high_ms) == interval


@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, GOLDEN.stat().st_size - 1), bit=st.integers(0, 7), cut=st.booleans())
def test_any_flipped_bit_and_any_truncation_is_refused(tmp_path_factory, place, bit, cut):
    content = bytearray(GOLDEN.read_bytes())
    if cut:
        del content[place:]
    else:
        content[place] ^= 1 << bit
    path = tmp_path_factory.mktemp("damage") / "p.json"
    path.write_bytes(content)
    with pytest.raises((DamagedFileError, UsageError), match=r"p\.json"):
        ModelPredictor.load(path)


def test_too_few_or_untimed_networks_are_refused(splits):
    with pytest.raises(UsageError, match=str(FEWEST_NETWORKS)):
        ModelPredictor(SETUP).fit(splits[: FEWEST_NETWORKS - 1])
    with pytest.raises(UsageError, match="no times"):
        ModelPredictor(SETUP).fit([untimed(item) for item in splits])
    with pytest.raises(UsageError, match="fit first"):
        ModelPredictor(SETUP).predict(splits[0])


def test_another_setup_is_refused(predictor):
    predictor.check_setup(SETUP)
    with pytest.raises(UsageError, match="does not hold"):
        predictor.check_setup(replace(SETUP, threads=2))


def test_families_are_apart_where_runtimes_go_other_ways():
    conv = Kernel("conv", "Conv+Relu", 9, 9, 9, 9, 64, 64, 7, 7, 7, 7)
    assert family(conv) == family(replace(conv, operation="Conv+Clip")) == "conv Conv"
    others = [
        replace(conv, layout="nchwc"),
        replace(conv, groups=4),
        replace(conv, in_channels=3),
        replace(conv, out_height=1, out_width=1),
        replace(conv, kind="depthwise"),
    ]
    assert len({family(item) for item in [conv, *others]}) == 6


def test_kernel_predictor_refuses_what_are_no_latencies():
    kernel = Kernel("copy", "Concat", 0, 0, 9, 9)
    for latency in (0.0, float("nan"), -1.0):
        with pytest.raises(UsageError, match="positive"):
            KernelPredictor().fit([kernel], [latency], [0])
    with pytest.raises(UsageError, match="as many"):
        KernelPredictor().fit([kernel], [1.0], [0, 1])


def test_files_and_torch_modules_are_predicted_by_the_runtime_s_own_kernels(splits, tmp_path):
    torch = pytest.importorskip("torch")
    setup = open_device("cpu", DeviceOptions()).setup
    path = tmp_path / "m.onnx"
    networks = []
    for seed in (1, 3):
        onnx.save(probe_network(seed), path)
        networks.append(timed_split(path, setup, runs=3))
    # Real kernels beside the made up ones, so that this runtime's families are known.
    fitted = ModelPredictor(setup).fit([*splits, *networks])
    found = predict_model(path, fitted)
    assert found.source == "runtime"
    # Branches may run in another order whenever the runtime optimizes a model.
    told = Counter(item.kernel for item in split(path, setup).kernels)
    assert Counter(item.kernel for item in found.kernels) == told

    module = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.BatchNorm2d(16), torch.nn.ReLU()
    )
    found = predict_model(module, fitted, torch.zeros(1, 3, 32, 32))
    assert any(k.kernel.operation == "Conv+Relu" for k in found.kernels)
    assert module.training
    with pytest.raises(UsageError, match="example_input"):
        predict_model(module, fitted)
    with pytest.raises(UsageError):
        predict_model(tmp_path / "none.onnx", fitted)
