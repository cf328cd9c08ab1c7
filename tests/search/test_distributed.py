"""Two processes with half of every batch each end with the weights of one that has it whole."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from latkit.devices.errors import UsageError
from latkit.latency.cost import lay_out
from latkit.latency.network import block_graph
from latkit.latency.ops import multiply_adds
from latkit.search import distributed
from latkit.search.checkpoint import read_tensors, write_tensors
from latkit.search.data import load_data
from latkit.search.learning import learn
from latkit.search.loading import BatchLoader
from latkit.search.relaxed import RelaxedSupernet
from latkit.search.retraining import fresh_model
from latkit.search.settings import TrainingSettings
from latkit.search.spaces.mobile import MobileSpace, mobile_stage
from latkit.search.spaces.nasbench201 import NasBench201Space
from latkit.search.spaces.scale import Scale
from latkit.search.strategies.policy import Policy
from latkit.search.strategies.recurrent_policy import RecurrentPolicy
from latkit.search.strategies.reward import reward_of
from latkit.search.supernet import Supernet
from latkit.search.trainers.bi_sampling import BiSampling
from latkit.search.trainers.bilevel import Bilevel
from latkit.search.trainers.controlled import Controlled
from latkit.search.trainers.joint import Joint
from latkit.search.trainers.path_dropout import PathDropout
from latkit.search.trainers.sandwich import Sandwich
from latkit.search.trainers.single_path import SinglePath
from latkit.search.training import Trainer, set_threads
from staged_cases import small_space

STAGES = (mobile_stage((8, 16), 2, 1),)
SPACE = MobileSpace(10, stages=STAGES, resolution=8, stem_channels=8, hidden_channels=24)
CELLS = NasBench201Space(10, Scale(width=0.25, resolutions=(8,)), cells=1)
STAGED = small_space()
IMAGES = 32
"""Of a step, in all processes together."""

SCRIPT = """
import sys
from pathlib import Path
tests = Path(sys.argv[1])
sys.path[:0] = [str(tests), str(tests.parent)]
from test_distributed import in_two_processes
in_two_processes(Path(sys.argv[2]))
"""


def trainer_of(model, checkpoint=None, clip=0.0, average_decay=0.0, images=IMAGES):
    settings = TrainingSettings(
        epochs=1,
        batch_size=images // distributed.replicas(),
        flip=True,
        seed=3,
        warmup_share=0,
        gradient_clip=clip,
        average_decay=average_decay,
    )
    data = load_data(image_size=8)
    return Trainer(model, data, settings, subject="run", checkpoint=checkpoint)


def stepped(model, rule, steps=3, **options):
    """Loss of the last of a few steps, and the state of the model then."""
    trainer = trainer_of(model, **options)
    for _ in range(steps):
        loss = trainer.step(rule)
    return {"loss": loss, "state": model.state_dict()}


def giga_multiply_adds(block):
    return multiply_adds(block_graph(block)) / 1e9


def supernet_of():
    return Supernet(SPACE, seed=1).double()


def single_path():
    supernet = supernet_of()
    return stepped(supernet, SinglePath(supernet), clip=0.5)


def plain_network():
    model = fresh_model(SPACE.network(SPACE.sample(np.random.default_rng(2)))).double()
    return stepped(model, lambda batch: learn(batch.loss(model(batch.inputs))))


def sandwich():
    supernet = supernet_of()
    return stepped(supernet, Sandwich(supernet, random_children=1, dropout=0), steps=2)


def path_dropout():
    supernet = RelaxedSupernet(CELLS, affine=True).double()
    rule = PathDropout(supernet, rate=0.8, ghost_size=8)
    found = stepped(supernet, rule)
    # One process follows its ghost batches one after the other: other running statistics.
    found["state"] = dict(supernet.named_parameters())
    return found


def held_out_images():
    size = IMAGES // distributed.replicas()
    return BatchLoader(load_data(image_size=8), 1, size, 7, 0, flip=False, label_smoothing=0)


def bi_sampling():
    supernet = RelaxedSupernet(STAGED).double()
    options = {"warm_epochs": 0, "interval": 1, "learning_rate": 0.1}
    rule = BiSampling(supernet, held_out_images(), giga_multiply_adds, 1e-3, **options)
    found = stepped(supernet, rule, steps=2)
    found["alphas"] = rule.state_dict()["alphas"]
    return found


def bilevel():
    supernet = RelaxedSupernet(CELLS).double()
    rule = Bilevel(supernet, held_out_images(), second_order=True, learning_rate=0.01)
    found = stepped(supernet, rule, steps=1)
    found["alphas"] = rule.state_dict()["alphas"]
    return found


@dataclass
class OwnPath:
    """Each process trains an architecture of its own; alone, this stands for both."""

    supernet: Supernet
    own_statistics = True

    def __call__(self, batch):
        if distributed.replicas() == 2:
            return self.learned(batch, batch.own_random())
        shared = int(batch.random.integers(2**63))
        return sum(
            self.learned(half, np.random.default_rng([shared, rank]), 0.5)
            for rank, half in enumerate(batch.split(2))
        )

    def learned(self, batch, random, share=1.0):
        architecture = self.supernet.space.sample(random)
        return learn(share * batch.loss(self.supernet(batch.inputs, architecture)))


def own_paths():
    supernet = supernet_of()
    return stepped(supernet, OwnPath(supernet))


def joint_of(supernet):
    cost = lay_out(SPACE, giga_multiply_adds)
    target_ms = cost.maximum()[0] / 2
    options = {"operation_warmup": 0.1, "filter_warmup": 0.1, "delay": 0.1, "learning_rate": 0.05}
    return Joint(supernet, load_data(image_size=8), cost, target_ms, per_step=2, **options)


def joint(folder):
    """What each process drew in each step of a joint run, and what two runs ended with.

    One of the runs was cut off, and went on from its checkpoint.
    """
    drawn, ends = [], []
    for cut in (False, True):
        checkpoint = folder / f"joint{cut}.checkpoint"
        supernet = Supernet(SPACE)
        rule, trainer = joint_of(supernet), trainer_of(supernet, checkpoint, images=128)
        while trainer.finished_steps < trainer.steps:
            if cut and trainer.finished_steps == 3:
                trainer.save()
                distributed.wait_for_all()
                supernet = Supernet(SPACE)
                rule, trainer = joint_of(supernet), trainer_of(supernet, checkpoint, images=128)
                assert trainer.finished_steps == 3
            progress = trainer.finished_steps / trainer.steps
            trainer.step(rule)
            rewards = reward_of(
                rule.reward,
                [item.accuracy for item in rule.evaluations],
                [item.latency_ms for item in rule.evaluations],
                rule.target_ms,
                rule.strength,
            )
            if not cut:
                rows = [
                    {"sampled": draw.sampled, "counted": draw.counted, "reward": float(reward)}
                    for draw, reward in zip(rule.draws, rewards, strict=True)
                ]
                drawn.append({"progress": progress, "rows": rows})
        ends.append({"state": supernet.state_dict(), "policy": rule.policy.state()})
    return {"drawn": drawn, "whole": ends[0], "cut": ends[1]}


def controlled():
    """What each process scored for the controller, and what it ended with."""
    supernet, cost = Supernet(SPACE), lay_out(SPACE, giga_multiply_adds)
    target_ms = cost.maximum()[0] / 2
    options = {"controller_steps": 3, "per_step": 2, "strength": -1.0}
    rule = Controlled(supernet, load_data(image_size=8), cost, target_ms, **options)
    trainer = trainer_of(supernet, images=256)
    trainer.run(rule)
    scored = [[item.choices, item.accuracy, item.latency_ms] for item in rule.evaluations]
    state = rule.policy.state()
    return {"scored": scored, "target": target_ms, "policy": state, "best": rule.best().choices}


CASES = {
    one.__name__: one
    for one in (
        single_path,
        sandwich,
        plain_network,
        path_dropout,
        bi_sampling,
        bilevel,
        own_paths,
    )
}


def whole_and_cut(folder):
    """Weights of a run, and of one that was cut off and went on from its checkpoint."""
    states = {}
    options = {"average_decay": 0.9, "images": 256}
    for name in ("whole", "cut"):
        checkpoint = folder / f"{name}.checkpoint"
        supernet = Supernet(SPACE)
        trainer = trainer_of(supernet, checkpoint, **options)
        if name == "cut":
            for _ in range(2):
                trainer.step(SinglePath(supernet))
            trainer.save()
            distributed.wait_for_all()
            supernet = Supernet(SPACE)
            trainer = trainer_of(supernet, checkpoint, **options)
            assert (trainer.finished_steps, trainer.steps) == (2, 4)
        trainer.run(SinglePath(supernet))
        assert checkpoint.exists()
        trainer.take_average()
        states[name] = supernet.state_dict()
    return states


def in_two_processes(folder):
    set_threads(1)
    with distributed.processes() as device:
        assert device.type == ("cuda" if torch.cuda.is_available() else "cpu")
        rank = distributed.rank()
        found = {name: case() for name, case in CASES.items()}
        found |= whole_and_cut(folder)
        found["joint"] = joint(folder)
        found["controlled"] = controlled()
        try:
            trainer_of(Supernet(SPACE, seed=rank))
        except UsageError as error:
            found["unequal"] = str(error)
        write_tensors(folder / f"{rank}.found", "found", 1, found)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of the two processes found."""
    folder = tmp_path_factory.mktemp("two")
    script = folder / "script.py"
    script.write_text(SCRIPT)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    done = subprocess.run(
        [sys.executable, *launcher, script, Path(__file__).parent, folder],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [read_tensors(folder / f"{rank}.found", "found", 1) for rank in range(2)]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_learn_as_one_with_the_whole_batch(found, case):
    expected = CASES[case]()
    for rank in range(2):
        assert found[rank][case]["loss"] == pytest.approx(expected["loss"], rel=1e-9)
        for part in expected.keys() - {"loss"}:
            for name, value in expected[part].items():
                torch.testing.assert_close(
                    found[rank][case][part][name], value.detach(), rtol=1e-8, atol=1e-10
                )


@pytest.mark.parametrize("case", CASES)
def test_processes_agree_bit_for_bit(found, case):
    for name, value in found[0][case]["state"].items():
        assert torch.equal(value, found[1][case]["state"][name])


def test_processes_that_were_cut_off_go_on_to_the_same_weights(found):
    for rank in range(2):
        for name, value in found[0]["whole"].items():
            assert torch.equal(value, found[rank]["cut"][name])


def test_processes_with_a_controller_sample_for_themselves_and_learn_one(found):
    both = [one["controlled"] for one in found]
    policy = RecurrentPolicy(
        SPACE.choices,
        hidden=32,
        layers=2,
        tanh_constant=1.1,
        temperature=1.0,
        learning_rate=0.0035,
        baseline_decay=0.99,
        entropy_weight=1e-4,
    )
    assert both[0]["scored"] != both[1]["scored"]
    for step in range(3):
        rows = [row for one in both for row in one["scored"][2 * step : 2 * step + 2]]
        sampled, accuracies, latencies_ms = zip(*rows, strict=True)
        target_ms = both[0]["target"]
        rewards = reward_of("absolute", accuracies, latencies_ms, target_ms, -1.0)
        policy.update(sampled, rewards)
    assert both[0]["policy"] == both[1]["policy"] == policy.state()
    assert both[0]["best"] == both[1]["best"]


def test_processes_that_search_jointly_draw_for_themselves_and_learn_one_policy(found):
    both = [one["joint"] for one in found]
    policy = Policy(SPACE.option_counts, learning_rate=0.05, delay=0.1)
    differing = 0
    for steps in zip(*(one["drawn"] for one in both), strict=True):
        rows = [row for step in steps for row in step["rows"]]
        differing += steps[0]["rows"] != steps[1]["rows"]
        policy.update(
            [row["sampled"] for row in rows],
            [row["counted"] for row in rows],
            np.array([row["reward"] for row in rows]),
            steps[0]["progress"],
        )
    assert policy.step == differing > 5
    assert max(abs(logit) for logits in policy.logits for logit in logits) > 0.05
    for one in both:
        assert one["whole"]["policy"] == one["cut"]["policy"] == policy.state()
        for name, value in both[0]["whole"]["state"].items():
            assert torch.equal(value, one["whole"]["state"][name])
            assert torch.equal(value, one["cut"]["state"][name])


def test_processes_that_begin_apart_are_refused(found):
    assert all("do not train the same" in one["unequal"] for one in found)


def test_every_process_reads_its_share_of_one_batch():
    data = load_data(image_size=8)

    def batch(size, rank, replicas):
        return BatchLoader(
            data, 1, size, 0, 2, flip=True, label_smoothing=0, rank=rank, replicas=replicas
        ).batch(3)

    whole = batch(30, 0, 1)
    shares = [batch(10, rank, 3) for rank in range(3)]
    assert torch.equal(torch.cat([share.inputs for share in shares]), whole.inputs)
    assert torch.equal(torch.cat([share.labels for share in shares]), whole.labels)
    assert all(
        share.random.bit_generator.state == whole.random.bit_generator.state for share in shares
    )


def test_a_process_that_torchrun_did_not_start_is_alone():
    with distributed.processes():
        assert (distributed.rank(), distributed.replicas()) == (0, 1)
