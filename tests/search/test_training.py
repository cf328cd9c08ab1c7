"""The training loop: its schedule, its checkpoints, and that a killed run ends the same."""

import math
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices.errors import DamagedFileError, LatkitError, UsageError
from latkit.search.checkpoint import read_tensors, write_tensors
from latkit.search.data import load_data
from latkit.search.loading import BatchLoader
from latkit.search.retraining import fresh_model, retrain
from latkit.search.settings import TrainingSettings
from latkit.search.spaces.mobile import MobileSpace, mobile_stage
from latkit.search.supernet import Supernet
from latkit.search.trainers.single_path import SinglePath
from latkit.search.trainers.supernet import train_supernet
from latkit.search.training import Trainer, fingerprint, set_threads

STAGES = (mobile_stage((8, 16), 2, 1), mobile_stage((16, 24), 2, 2))
SPACE = MobileSpace(10, stages=STAGES, resolution=16, stem_channels=8, hidden_channels=24)
SETTINGS = TrainingSettings(epochs=1, batch_size=32, seed=4)

KILLED_RUN = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_training import SETTINGS, SPACE, SinglePath, Supernet, Trainer, load_data, set_threads

set_threads(1)
supernet = Supernet(SPACE)
# Written after every third step, killed after the tenth.
trainer = Trainer(
    supernet, load_data(image_size=16), SETTINGS, subject="run", checkpoint=Path(sys.argv[1]),
    checkpoint_seconds=1e9,
)
for step in range(10):
    trainer.step(SinglePath(supernet))
    if step % 3 == 0:
        trainer.save()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


@pytest.fixture(scope="module")
def data():
    return load_data(image_size=16)


def trainer_of(supernet, data, *, settings=SETTINGS, **options):
    return Trainer(supernet, data, settings, subject="run", **options)


def uniform(supernet):
    return SinglePath(supernet)


def trained(data, **options):
    supernet = Supernet(SPACE)
    trainer_of(supernet, data, **options).run(uniform(supernet))
    return supernet


def test_run_that_was_killed_goes_on_to_the_same_weights(tmp_path, data):
    checkpoint = tmp_path / "run.checkpoint"
    folder = str(Path(__file__).parent)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_RUN, str(checkpoint), folder],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    supernet = Supernet(SPACE)
    trainer = trainer_of(supernet, data, checkpoint=checkpoint)
    assert (trainer.finished_steps, trainer.steps) == (10, 33)
    trainer.run(uniform(supernet))
    assert fingerprint(supernet) == fingerprint(trained(data))


def test_training_is_repeatable_and_depends_on_the_seed(data):
    settings = TrainingSettings(epochs=1, batch_size=256, seed=5)
    other = TrainingSettings(epochs=1, batch_size=256, seed=6)
    prints = [fingerprint(trained(data, settings=one)) for one in (settings, settings, other)]
    assert prints[0] == prints[1] != prints[2]


def test_checkpoint_is_written_as_often_as_asked(tmp_path, data):
    checkpoint = tmp_path / "run.checkpoint"
    supernet = Supernet(SPACE)
    seen = []

    def look(progress):
        written = checkpoint.exists() and read_tensors(checkpoint, "checkpoint", 1)
        seen.append(progress.step - (written["finished_steps"] if written else 0))

    trainer = trainer_of(supernet, data, checkpoint=checkpoint, checkpoint_seconds=0)
    trainer.run(uniform(supernet), look)
    assert seen == [1] * trainer.steps
    assert read_tensors(checkpoint, "checkpoint", 1)["finished_steps"] == trainer.steps


def test_finished_run_is_taken_as_it_is(tmp_path, data):
    checkpoint = tmp_path / "run.checkpoint"
    settings = TrainingSettings(epochs=1, batch_size=512)
    one, other = Supernet(SPACE), Supernet(SPACE)
    train_supernet(one, data, settings, checkpoint=checkpoint)
    steps = []
    train_supernet(other, data, settings, checkpoint=checkpoint, progress=steps.append)
    assert steps == []
    assert fingerprint(one) == fingerprint(other)


def test_loss_falls(data):
    losses = []
    supernet = Supernet(SPACE)
    settings = TrainingSettings(epochs=4, batch_size=32, shift=0)
    trainer = trainer_of(supernet, data, settings=settings)
    trainer.run(uniform(supernet), lambda progress: losses.append(progress.loss))
    assert losses[0] == pytest.approx(math.log(10), rel=0.1)
    assert sum(losses[-10:]) / 10 < 0.8 * losses[0]


def test_every_epoch_visits_every_image_once_in_another_order(data):
    loader = BatchLoader(data, 2, 7, seed=0, shift=0, flip=False, label_smoothing=0)
    epochs = [[], []]
    for step in range(loader.steps):
        epochs[2 * step // loader.steps] += loader.indices(step).tolist()
    for visited in epochs:
        assert len(set(visited)) == len(visited) == len(data.train) // 7 * 7
    assert epochs[0] != epochs[1]


def test_threads_that_make_batches_change_nothing_in_them(data):
    def loader(workers):
        return BatchLoader(data, 1, 64, 3, 2, flip=True, label_smoothing=0, workers=workers)

    alone = [loader(1).batch(step) for step in range(loader(1).steps)]
    for workers in (1, 3):
        made = list(loader(workers).batches(0))
        assert len(made) == len(alone) > 4
        for one, other in zip(made, alone, strict=True):
            assert torch.equal(one.inputs, other.inputs)
            assert torch.equal(one.labels, other.labels)
            assert one.random.bit_generator.state == other.random.bit_generator.state
    later = list(loader(2).batches(3))
    assert torch.equal(later[0].inputs, alone[3].inputs)
    assert len(later) == len(alone) - 3


def test_an_error_in_a_thread_is_raised_where_the_batch_is_asked_for(data):
    broken = replace(data, train=replace(data.train, places=data.train.places[:10]))
    loader = BatchLoader(broken, 1, 64, 3, 2, flip=True, label_smoothing=0)
    with pytest.raises(IndexError):
        list(loader.batches(0))


def test_checkpoint_of_another_run_is_refused(tmp_path, data):
    checkpoint = tmp_path / "run.checkpoint"
    trainer_of(Supernet(SPACE), data, checkpoint=checkpoint).save()
    with pytest.raises(UsageError, match="its epochs, seed differ"):
        trainer_of(
            Supernet(SPACE), data, settings=TrainingSettings(7, 32, seed=1), checkpoint=checkpoint
        )
    with pytest.raises(UsageError, match="its data differ"):
        trainer_of(Supernet(SPACE), load_data(image_size=16, seed=9), checkpoint=checkpoint)


@settings(deadline=None, max_examples=60)
@given(place=st.integers(0, 10**9), value=st.integers(1, 255), cut=st.booleans())
def test_damaged_checkpoint_is_refused(tmp_path_factory, place, value, cut):
    file = tmp_path_factory.mktemp("damage") / "a.checkpoint"
    write_tensors(file, "checkpoint", 1, {"finished_steps": 3, "x": torch.arange(50)})
    content = bytearray(file.read_bytes())
    place %= len(content)
    if cut:
        del content[place:]
    else:
        content[place] ^= value
    file.write_bytes(content)
    with pytest.raises((DamagedFileError, UsageError)) as caught:
        read_tensors(file, "checkpoint", 1)
    assert str(file) in str(caught.value)


def test_damaged_checkpoint_says_to_delete_it(tmp_path, data):
    checkpoint = tmp_path / "run.checkpoint"
    trainer_of(Supernet(SPACE), data, checkpoint=checkpoint).save()
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedFileError, match="Delete it"):
        trainer_of(Supernet(SPACE), data, checkpoint=checkpoint)
    write_tensors(checkpoint, "checkpoint", 2, {})
    with pytest.raises(DamagedFileError, match="newer latkit"):
        trainer_of(Supernet(SPACE), data, checkpoint=checkpoint)


def test_file_that_would_run_code_is_not_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'sprung')!r}, 'w')",))

    file = tmp_path / "a.checkpoint"
    write_tensors(file, "checkpoint", 1, {"trap": Trap()})
    with pytest.raises(DamagedFileError):
        read_tensors(file, "checkpoint", 1)
    assert not (tmp_path / "sprung").exists()


def test_divergence_and_wrong_class_count_are_errors(data):
    supernet = Supernet(SPACE)
    wild = TrainingSettings(epochs=3, batch_size=32, learning_rate=1e30, warmup_share=0)
    with pytest.raises(LatkitError, match="diverged in step"):
        trainer_of(supernet, data, settings=wild).run(uniform(supernet))
    seven = MobileSpace(7, stages=STAGES, resolution=16)
    other = Supernet(seven)
    with pytest.raises(UsageError, match="7 classes"):
        train_supernet(other, data, SETTINGS)


def test_steps_taken_one_by_one_are_those_of_a_run_and_read_ahead(data, monkeypatch):
    threads = []
    batch = BatchLoader.batch

    def noted(self, step):
        threads.append(threading.current_thread().name)
        return batch(self, step)

    monkeypatch.setattr(BatchLoader, "batch", noted)
    settings = TrainingSettings(epochs=1, batch_size=256)
    supernet = Supernet(SPACE)
    trainer = trainer_of(supernet, data, settings=settings)
    while trainer.finished_steps < trainer.steps:
        trainer.step(uniform(supernet))
    assert len(threads) == trainer.steps
    assert all(name.startswith("latkit-batches") for name in threads)
    assert fingerprint(supernet) == fingerprint(trained(data, settings=settings))


def test_random_parts_are_trained_on_where_asked(data):
    plain, cropped, again = (
        TrainingSettings(epochs=1, batch_size=256, shift=0, crop=crop) for crop in (1, 0.3, 0.3)
    )
    prints = [fingerprint(trained(data, settings=one)) for one in (plain, cropped, again)]
    assert prints[0] != prints[1] == prints[2]


@pytest.mark.parametrize("train", ["supernet", "network"])
def test_as_many_threads_as_asked_make_batches(data, monkeypatch, train):
    together, batch = threading.Barrier(3), BatchLoader.batch

    def awaited(self, step):
        if step < 3:
            together.wait(timeout=20)
        return batch(self, step)

    monkeypatch.setattr(BatchLoader, "batch", awaited)
    settings = TrainingSettings(epochs=1, batch_size=256)
    supernet = Supernet(SPACE)
    if train == "supernet":
        train_supernet(supernet, data, settings, workers=3)
    else:
        network = SPACE.network(SPACE.architecture([0] * len(SPACE.choices)))
        retrain(fresh_model(network), data, settings, workers=3)
    assert not together.broken


def test_a_supernet_ends_with_the_average_of_its_weights_however_often_it_is_asked(tmp_path, data):
    settings = TrainingSettings(epochs=1, batch_size=256, average_decay=0.9)
    checkpoint = tmp_path / "supernet.checkpoint"
    averaged, again = Supernet(SPACE), Supernet(SPACE)
    followed = Supernet(SPACE)
    trainer = Trainer(followed, data, settings, subject="run")
    trainer.run(SinglePath(followed))
    for supernet in (averaged, again):
        train_supernet(supernet, data, settings, checkpoint=checkpoint)
    assert fingerprint(averaged) == fingerprint(again) != fingerprint(followed)
    trainer.take_average()
    assert fingerprint(averaged) == fingerprint(followed)
