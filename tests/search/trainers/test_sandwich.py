"""The sandwich rule trains the largest child by labels and others by what it says."""

import numpy as np
import pytest
import torch
from latkit.search.data import load_data
from latkit.search.loading import Batch
from latkit.search.settings import TrainingSettings
from latkit.search.spaces.mobile import MobileSpace, mobile_stage
from latkit.search.supernet import Supernet
from latkit.search.trainers.sandwich import Sandwich, extremes, soft_cross_entropy
from latkit.search.trainers.supernet import train_supernet
from latkit.search.training import set_threads
from torch.nn import functional

STAGES = (mobile_stage((8, 16), 2, 1), mobile_stage((16, 24), 2, 2))
SPACE = MobileSpace(10, stages=STAGES, resolution=16, stem_channels=8, hidden_channels=24)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


def batch_of(seed=0, count=12):
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        torch.randn(count, 3, 16, 16, generator=generator, dtype=torch.float64),
        torch.randint(0, 10, (count,), generator=generator),
        np.random.default_rng(seed),
        0,
        0.0,
        0.1,
        10,
    )


def gradients(supernet):
    return {
        name: None if weight.grad is None else weight.grad.clone()
        for name, weight in supernet.named_parameters()
    }


def test_extremes_have_the_fewest_and_the_most_multiply_adds():
    smallest, largest = extremes(SPACE)
    blocks = SPACE.network(smallest).blocks, SPACE.network(largest).blocks
    assert [len(listed) for listed in blocks] == [4, 6]
    assert all(block.kernel == 5 for block in blocks[1][1:-1])
    assert all(block.expanded_channels == 3 * block.in_channels for block in blocks[0][1:-1])


def test_gradients_are_the_sum_of_what_each_child_gives():
    supernet = Supernet(SPACE).double()
    rule = Sandwich(supernet, dropout=0.0, weight_decay=0.01)
    rule(batch_of())
    found = gradients(supernet)
    supernet.zero_grad()
    batch = batch_of()
    smallest, largest = extremes(SPACE)
    children = [smallest] + [SPACE.sample(batch.random) for _ in range(2)]
    logits = supernet(batch.inputs, largest)
    decay = sum(weight.square().sum() for weight in supernet.parameters() if weight.ndim > 1)
    total = functional.cross_entropy(logits, batch.labels, label_smoothing=0.1) + 0.005 * decay
    for child in children:
        outputs = supernet(batch.inputs, child).log_softmax(1)
        total = total - (logits.detach().softmax(1) * outputs).sum(1).mean()
    total.backward()
    for name, gradient in gradients(supernet).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-11)


def test_teacher_is_not_taught_by_its_pupils():
    logits = torch.randn(4, 10, requires_grad=True)
    teacher = torch.randn(4, 10, requires_grad=True)
    soft_cross_entropy(logits, teacher.detach()).backward()
    assert teacher.grad is None
    hard = functional.one_hot(torch.arange(4), 10) * 1e4
    torch.testing.assert_close(
        soft_cross_entropy(logits, hard.float()),
        functional.cross_entropy(logits, torch.arange(4)),
    )


def test_dropout_and_decay_reach_the_largest_child_alone():
    supernet = Supernet(SPACE).double()
    dropped = []
    forward = supernet.forward

    def watched(images, architecture, statistics=None, *, dropout=0.0):
        dropped.append((architecture, dropout))
        return forward(images, architecture, statistics, dropout=dropout)

    supernet.forward = watched
    Sandwich(supernet)(batch_of())
    _, largest = extremes(SPACE)
    assert [share for _, share in dropped] == [0.2, 0.0, 0.0, 0.0]
    assert dropped[0][0] == largest


def test_residual_blocks_begin_as_identities():
    supernet = Supernet(SPACE, zero_gamma=True)
    zero = {
        name
        for name, weight in supernet.named_parameters()
        if name.endswith("norm_weight") and not weight.any()
    }
    # Layers other than a stage's first keep their shape; the two first ones change it.
    assert {name.split(".")[1].split("_", 1)[1] for name in zero} == {"project_1"}
    assert len(zero) == 2


def test_a_supernet_learns_by_it(tmp_path):
    data = load_data(image_size=16)
    supernet = Supernet(SPACE, zero_gamma=True)
    losses = []
    settings = TrainingSettings(3, 64, weight_decay=0.0, schedule="exponential", floor_share=0.05)
    train_supernet(
        supernet,
        data,
        settings,
        learn=Sandwich(supernet),
        progress=lambda progress: losses.append(progress.loss),
    )
    assert sum(losses[-5:]) / 5 < 0.93 * losses[0]
