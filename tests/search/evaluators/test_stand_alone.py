"""Training architectures on their own: what is kept, found again, and resumed."""

from dataclasses import replace

import pytest
from latkit.devices.errors import DamagedFileError, LatkitError, UsageError
from latkit.search.data import load_data
from latkit.search.evaluators.stand_alone import StandAlone
from latkit.search.retraining import fresh_model, retrain
from latkit.search.settings import TrainingSettings
from latkit.search.spaces import Scale
from latkit.search.spaces.nasbench201 import NasBench201Space
from latkit.search.training import Trainer, set_threads

SPACE = NasBench201Space(10, Scale(width=0.25, resolutions=(8,)), cells=1)
ARCHITECTURE = SPACE.architecture([3, 1, 0, 1, 2, 1])
SETTINGS = TrainingSettings(epochs=2, batch_size=32, shift=1)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


@pytest.fixture(scope="module")
def data():
    found = load_data(image_size=8)
    return replace(found, train=found.train.only(found.train.labels.argsort()[::4]), key="few")


@pytest.fixture(scope="module")
def expected(data):
    return retrain(fresh_model(SPACE.network(ARCHITECTURE), 3), data, SETTINGS).validation_accuracy


class Untouchable:
    def __getattr__(self, name):
        raise AssertionError(f"{name} of the test images was read")


def test_the_accuracy_is_the_networks_own_on_validation_images(data, expected):
    hidden = replace(data, test=Untouchable())
    assert StandAlone(SPACE, hidden, SETTINGS, seed=3).accuracy(ARCHITECTURE) == expected
    assert 0 < expected < 1


def steps_of(data, folder, settings=SETTINGS, **options):
    """Accuracy, and how many steps were trained for it."""
    steps = []
    evaluator = StandAlone(
        SPACE, data, settings, seed=3, folder=folder, progress=steps.append, **options
    )
    return evaluator.accuracy(ARCHITECTURE), len(steps)


def test_a_result_is_found_again_for_the_same_training_alone(data, expected, tmp_path):
    found, steps = steps_of(data, tmp_path)
    assert found == expected and steps > 0
    (file,) = tmp_path.iterdir()
    assert file.suffix == ".json", "no checkpoint stays behind"
    assert steps_of(data, tmp_path) == (expected, 0)
    assert steps_of(data, tmp_path, workers=2) == (expected, 0)
    for others in ((replace(data, key="others"), SETTINGS), (data, replace(SETTINGS, seed=1))):
        assert steps_of(others[0], tmp_path, others[1])[1] == steps
    set_threads(2)
    try:
        assert steps_of(data, tmp_path)[1] == steps, "threads change the last digits"
    finally:
        set_threads(1)


def test_a_training_that_was_cut_short_goes_on(data, expected, tmp_path, monkeypatch):

    class StopError(Exception):
        pass

    def stop(progress):
        if progress.step == 5:
            raise StopError

    monkeypatch.setitem(Trainer.__init__.__kwdefaults__, "checkpoint_seconds", 0.0)
    evaluator = StandAlone(SPACE, data, SETTINGS, seed=3, folder=tmp_path, progress=stop)
    with pytest.raises(StopError):
        evaluator.accuracy(ARCHITECTURE)
    assert [file.suffix for file in tmp_path.iterdir()] == [".checkpoint"]
    steps = []
    evaluator = StandAlone(SPACE, data, SETTINGS, seed=3, folder=tmp_path, progress=steps.append)
    assert evaluator.accuracy(ARCHITECTURE) == expected
    assert steps[0].step == 5, "the step whose checkpoint was not written yet is repeated"


def test_a_damaged_result_is_refused(data, tmp_path):
    steps_of(data, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(
        file.read_text().replace('"validation_accuracy": 0', '"validation_accuracy": 1')
    )
    with pytest.raises(DamagedFileError, match=file.name):
        steps_of(data, tmp_path)


def test_a_training_that_diverges_names_the_architecture(data):
    settings = replace(SETTINGS, learning_rate=1e30)
    with pytest.raises(LatkitError, match=r"edge0-1 nor_conv_3x3.*diverged"):
        StandAlone(SPACE, data, settings).accuracy(ARCHITECTURE)


def test_a_setting_that_cannot_be_is_a_usage_error(data):
    settings = replace(SETTINGS, accumulation=10_000)
    with pytest.raises(UsageError, match="smaller batches"):
        StandAlone(SPACE, data, settings).accuracy(ARCHITECTURE)
