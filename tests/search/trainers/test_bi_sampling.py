"""TF-NAS's learning: two paths a batch, and an architecture that moves towards a latency."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from latkit.devices.errors import UsageError
from latkit.latency.cost import lay_out
from latkit.latency.network import block_graph
from latkit.latency.ops import multiply_adds
from latkit.search.data import divided, load_data
from latkit.search.elasticity import architecture_latency
from latkit.search.loading import BatchLoader
from latkit.search.relaxed import RelaxedSupernet
from latkit.search.trainers.bi_sampling import BI_SAMPLING_SETTINGS, HELD_OUT_SHARE, BiSampling
from latkit.search.training import Trainer, fingerprint, set_threads
from staged_cases import small_space

SPACE = small_space()


def cost_ms(block):
    return multiply_adds(block_graph(block)) / 1e5


COST = lay_out(SPACE, cost_ms)
TARGET_MS = 2.5


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


@pytest.fixture(scope="module")
def data():
    return load_data(image_size=8)


def loader_of(data, size=16, epochs=1):
    return BatchLoader(data, epochs, size, 0, shift=0, flip=False, label_smoothing=0)


def batch_of(data, step=0, epoch=0, size=16):
    return replace(loader_of(data, size).batch(step), step=step, epoch=epoch)


def rule_of(data, seed=0, **changes):
    supernet = RelaxedSupernet(SPACE, seed).train()
    return BiSampling(supernet, loader_of(data), cost_ms, TARGET_MS, **changes)


def prefer_the_largest(rule):
    """The largest network, which is above the target."""
    with torch.no_grad():
        for alpha in rule.alphas.values():
            alpha[-1] += 1


def run_operations(supernet, learn):
    """How often each operation of each layer ran, by the name of its candidate."""
    seen = dict.fromkeys(supernet.candidates, 0)
    hooks = [
        item.register_forward_hook(lambda *_, name=name: seen.update({name: seen[name] + 1}))
        for name, item in supernet.candidates.items()
    ]
    learn()
    for hook in hooks:
        hook.remove()
    return seen


def layers_of(seen, supernet):
    return [
        [seen[f"{index}_{number}"] for number in range(len(mixture.candidates))]
        for index, mixture in supernet.mixtures.items()
    ]


def test_warm_epochs_train_one_path_and_leave_the_architecture(data):
    rule = rule_of(data)
    before = {name: alpha.clone() for name, alpha in rule.alphas.items()}
    for step in range(3):
        batch = batch_of(data, step, epoch=9)
        seen = run_operations(rule.supernet, lambda batch=batch: rule(batch))
        assert all(sorted(counts) == [0, 0, 1] for counts in layers_of(seen, rule.supernet))
    for name, alpha in rule.alphas.items():
        assert torch.equal(alpha, before[name])


def test_then_two_paths_share_no_operation(data):
    rule = rule_of(data, interval=1000)
    pairs = set()
    for step in range(1, 12):
        batch = batch_of(data, step, epoch=10)
        seen = run_operations(rule.supernet, lambda batch=batch: rule(batch))
        counts = layers_of(seen, rule.supernet)
        assert all(sorted(layer) == [0, 1, 1] for layer in counts)
        pairs |= {tuple(layer) for layer in counts}
    assert len(pairs) == 3


def test_gradients_are_those_of_the_two_losses_summed(data):
    rule = rule_of(data)
    rule.supernet.double()
    batch = batch_of(data, step=1, epoch=10)
    batch = replace(batch, inputs=batch.inputs.double())
    state = batch.random.bit_generator.state
    value = rule(batch)
    found = {name: weight.grad for name, weight in rule.supernet.named_parameters()}
    rule.supernet.zero_grad()
    batch.random.bit_generator.state = state
    one = rule.gumbel_path(batch)
    other = rule.other_path(one, batch.random)
    losses = []
    for path in (one, other):
        weights = {name: alpha.detach().softmax(0) for name, alpha in rule.alphas.items()}
        weights |= {name: [float(n == taken) for n in range(3)] for name, taken in path.items()}
        losses.append(batch.loss(rule.supernet(batch.inputs, weights)))
    assert value == pytest.approx(float(sum(losses).detach()), rel=1e-12)
    sum(losses).backward()
    for name, weight in rule.supernet.named_parameters():
        assert (weight.grad is None) == (found[name] is None)
        if weight.grad is not None:
            torch.testing.assert_close(found[name], weight.grad, rtol=1e-9, atol=1e-12)


def test_paths_are_drawn_by_their_weights_and_the_other_uniformly_among_the_rest(data):
    rule = rule_of(data)
    name = "stage3.layer2"
    shares = torch.tensor([0.6, 0.3, 0.1])
    with torch.no_grad():
        rule.alphas[name].copy_(shares.log() + 3)  # logarithms of weights up to a constant
    batch = batch_of(data)
    drawn, others = [], []
    for _ in range(3000):
        path = rule.gumbel_path(batch)
        drawn.append(path[name])
        others.append((path[name], rule.other_path(path, batch.random)[name]))
    found = np.bincount(drawn, minlength=3) / len(drawn)
    # At any temperature the largest weight is each operation's as often as its softmax says.
    assert found == pytest.approx(shares.numpy(), abs=0.03)
    beside_first = [other for taken, other in others if taken == 0]
    assert np.bincount(beside_first, minlength=3) / len(beside_first) == pytest.approx(
        [0, 0.5, 0.5], abs=0.04
    )


def test_temperature_falls_from_the_end_of_the_warm_epochs(data):
    rule = rule_of(data, warm_epochs=3)
    found = [rule.temperature(epoch) for epoch in range(6)]
    assert found == pytest.approx([5, 5, 5, 5, 4.8, 4.608])
    cold, hot = rule_of(data, temperature=1e-3), rule_of(data, temperature=1e3)
    for rule, largest in ((cold, 1.0), (hot, 1 / 3)):
        weights = rule.gumbel_weights(batch_of(data))["stage2.layer1"]
        assert weights.max().item() == pytest.approx(largest, abs=0.01)


def test_the_architecture_moves_every_second_step_by_all_operations(data):
    rule = rule_of(data)
    moved = []
    for step in range(4):
        before = {name: alpha.clone() for name, alpha in rule.alphas.items()}
        batch = batch_of(data, step, epoch=10)
        seen = run_operations(rule.supernet, lambda batch=batch: rule(batch))
        moved.append(all(not torch.equal(a, before[n]) for n, a in rule.alphas.items()))
        counts = [sorted(layer) for layer in layers_of(seen, rule.supernet)]
        assert counts == [[1, 2, 2] if moved[-1] else [0, 1, 1]] * len(counts)
        for alpha in rule.alphas.values():
            assert alpha.exp().sum().item() == pytest.approx(1, abs=1e-5)
            assert alpha.grad is None
    assert moved == [True, False, True, False]


def test_gradient_of_the_architectures_loss_is_the_finite_difference(data):
    rule = rule_of(data, latency_weight=0.5)
    rule.supernet.double()
    batch = batch_of(data)
    batch = replace(batch, inputs=batch.inputs.double())
    names = ["stage2.layer1", "stage3.layer3", "stage3.depth"]
    random = np.random.default_rng(0)
    weights = {
        name: torch.tensor(random.dirichlet(np.ones(len(alpha))), requires_grad=True)
        for name, alpha in rule.alphas.items()
    }
    loss = rule.architecture_loss(batch, weights)
    probabilities = [weights[choice.name].detach().numpy() for choice in SPACE.choices]
    gap = abs(COST.expected(probabilities) / TARGET_MS - 1)
    plain = batch.loss(rule.supernet(batch.inputs, weights))
    assert loss.item() == pytest.approx(plain.item() + 0.5 * gap, rel=1e-12)
    gradients = torch.autograd.grad(loss, [weights[name] for name in names])
    step = 1e-7  # larger ones pass kinks of the activations
    for name, gradient in zip(names, gradients, strict=True):
        moved = step * torch.eye(len(gradient), dtype=torch.float64)[0]
        with torch.no_grad():
            sides = [
                rule.architecture_loss(batch, weights | {name: weights[name] + sign * moved})
                for sign in (1, -1)
            ]
        difference = ((sides[0] - sides[1]) / (2 * step)).item()
        assert difference == pytest.approx(gradient[0].item(), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("target_ms", [1.5, 3.5])
def test_latency_moves_to_the_target(data, target_ms):
    """Where the latency weighs much more than the images."""
    rule = BiSampling(
        RelaxedSupernet(SPACE).train(),
        loader_of(data, 4),
        cost_ms,
        target_ms,
        interval=1,
        warm_epochs=0,
        latency_weight=100.0,
        learning_rate=0.1,
        temperature=1.0,
    )
    smallest, largest = COST.minimum()[0], COST.maximum()[0]
    assert smallest < target_ms < largest

    def expected():
        probabilities = [
            rule.alphas[choice.name].detach().softmax(0).double().numpy()
            for choice in SPACE.choices
        ]
        return COST.expected(probabilities)

    before = expected()
    for step in range(40):
        rule._move(batch_of(data, step % 4, size=4))
    assert abs(expected() - target_ms) < 0.3 * abs(before - target_ms)


@pytest.mark.parametrize("target_ms", [0.0, -1.0, float("nan"), float("inf")])
def test_targets_that_are_none_are_refused(data, target_ms):
    with pytest.raises(UsageError, match="target"):
        BiSampling(RelaxedSupernet(SPACE), loader_of(data), cost_ms, target_ms)


def test_widths_are_scaled_after_each_epoch_from_the_first_that_is_not_warm(data):
    rule = rule_of(data, warm_epochs=2, width_grid=8, interval=1000)
    prefer_the_largest(rule)
    latency_of = architecture_latency(SPACE, cost_ms)
    full = rule.best()
    for step, epoch in enumerate((0, 1, 2), 1):
        rule(batch_of(data, step, epoch))
        assert rule.best() == full
    assert latency_of(full) > TARGET_MS
    rule(batch_of(data, 4, 3))
    scaled = rule.best()
    assert scaled.choices == full.choices
    assert 0.95 * TARGET_MS < latency_of(scaled) <= TARGET_MS
    assert rule.supernet.extract(scaled).graph == SPACE.network(scaled).graph()


def test_widths_that_no_scaling_brings_to_the_target_stay(data):
    supernet = RelaxedSupernet(SPACE).train()
    rule = BiSampling(supernet, loader_of(data), cost_ms, 0.01, warm_epochs=0, width_grid=8)
    for epoch in range(2):
        rule(batch_of(data, 1, epoch))
    assert rule.best().expanded_channels is None


def run(data, folder, stop=None):
    train, held_out = divided(data, 1 - HELD_OUT_SHARE)
    settings = replace(BI_SAMPLING_SETTINGS, epochs=3, batch_size=256)
    supernet = RelaxedSupernet(SPACE)
    rule = BiSampling(
        supernet,
        loader_of(held_out, 64),
        cost_ms,
        TARGET_MS,
        warm_epochs=1,
        learning_rate=0.1,
        width_grid=8,
    )
    prefer_the_largest(rule)
    checkpoint = folder / "a.checkpoint"
    trainer = Trainer(supernet, train, settings, subject="run", checkpoint=checkpoint)
    if stop is None:
        trainer.run(rule)
    else:
        for _ in range(stop):
            trainer.step(rule)
        trainer.save()
    return supernet, rule


def test_run_that_was_cut_off_goes_on_with_its_architecture(tmp_path, data):
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    whole, whole_rule = run(data, tmp_path / "whole")
    run(data, tmp_path / "cut", stop=7)
    again, again_rule = run(data, tmp_path / "cut")
    assert fingerprint(again) == fingerprint(whole)
    assert fingerprint(again) != fingerprint(RelaxedSupernet(SPACE))
    for name, alpha in whole_rule.alphas.items():
        assert torch.equal(alpha, again_rule.alphas[name])
        assert (alpha - alpha.mean()).abs().max() > 0.005
    assert again_rule.best() == whole_rule.best()
    narrow = {name: item for name, item in whole.candidates.items() if hasattr(item, "kept")}
    assert any(module.kept is not None for module in narrow.values())
    for name, module in narrow.items():
        assert module.block == again.candidates[name].block
        assert module.kept is None or torch.equal(module.kept, again.candidates[name].kept)
