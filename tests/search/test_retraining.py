"""Training a winner to the end, and its export."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from latkit.devices.errors import LatkitError
from latkit.latency.cost import lay_out
from latkit.latency.counts import block_counts
from latkit.latency.document import read_document
from latkit.latency.onnx_model import build_onnx
from latkit.search.data import load_data
from latkit.search.export import export
from latkit.search.learning import learn
from latkit.search.log import SearchLog
from latkit.search.loop import run_strategy
from latkit.search.recalibration import (
    SupernetEvaluator,
    accuracy,
    calibration_batches,
    recalibrate,
)
from latkit.search.retraining import fresh_model, retrain
from latkit.search.retraining import test_accuracy as accuracy_on_test_images
from latkit.search.settings import RETRAINING_SETTINGS, TrainingSettings
from latkit.search.space import Architecture
from latkit.search.spaces.mobile import MobileSpace, mobile_stage
from latkit.search.strategies.evolution import Evolution
from latkit.search.supernet import Supernet
from latkit.search.trainers.sandwich import Sandwich
from latkit.search.trainers.supernet import train_supernet
from latkit.search.training import Trainer, fingerprint, set_threads

STAGES = (mobile_stage((8, 16), 2, 1), mobile_stage((16, 24), 2, 2))
SPACE = MobileSpace(10, stages=STAGES, resolution=16, stem_channels=8, hidden_channels=24)
ARCHITECTURE = SPACE.architecture([1, 0, 2, 1, 1, 4])
SETTINGS = TrainingSettings(epochs=4, batch_size=32, schedule="cosine", shift=1)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    set_threads(1)


@pytest.fixture(scope="module")
def data():
    return load_data(image_size=16)


@pytest.fixture(scope="module")
def retrained(data):
    return retrain(fresh_model(SPACE.network(ARCHITECTURE)), data, SETTINGS)


def test_retraining_learns_and_reports_validation_accuracy(data, retrained):
    assert retrained.validation_accuracy > 0.3
    assert retrained.validation_accuracy == accuracy(retrained.model, data, data.validation)
    assert accuracy_on_test_images(retrained.model, data) == accuracy(
        retrained.model, data, data.test
    )


def test_retraining_starts_from_the_weights_given(data):
    evaluator = SupernetEvaluator(Supernet(SPACE), data, batches=1)
    model = evaluator.calibrated(ARCHITECTURE)
    before = fingerprint(model)
    assert before == fingerprint(evaluator.calibrated(ARCHITECTURE))
    still = TrainingSettings(epochs=1, batch_size=512, learning_rate=0, weight_decay=0)
    first = {name: value.clone() for name, value in model.named_parameters()}
    retrain(model, data, still)
    assert all(value.equal(first[name]) for name, value in model.named_parameters())


def test_retraining_goes_on_from_its_checkpoint(tmp_path, data, retrained):
    network, checkpoint = SPACE.network(ARCHITECTURE), tmp_path / "winner.checkpoint"

    class StopError(Exception):
        pass

    def stop(progress):
        if progress.step == 20:
            raise StopError

    model = fresh_model(network)
    subject = f"network with initial weights {fingerprint(model)}"
    options = {"subject": subject, "checkpoint": checkpoint, "checkpoint_seconds": 0}
    trainer = Trainer(model, data, SETTINGS, **options)
    with pytest.raises(StopError):
        trainer.run(lambda batch: learn(batch.loss(model(batch.inputs))), stop)
    steps = []
    again = retrain(
        fresh_model(network), data, SETTINGS, checkpoint=checkpoint, progress=steps.append
    )
    assert steps[0].step == 20, "the step whose checkpoint was not written yet is repeated"
    expected = retrained.model.state_dict()
    assert all(value.equal(expected[name]) for name, value in again.model.state_dict().items())


def operators(model):
    return [node.op_type for node in model.graph.node]


def test_export_is_what_was_profiled_and_agrees_with_torch(tmp_path, data, retrained):
    exported = export(retrained.model, data, tmp_path, "winner")
    assert max(exported.differences.values()) < 1e-4
    written = onnx.load(exported.onnx)
    profiled = build_onnx(SPACE.network(ARCHITECTURE))
    assert operators(written) == operators(profiled)
    shapes = [
        {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        for model in (written, profiled)
    ]
    assert shapes[0] == shapes[1]
    onnx.checker.check_model(written)
    assert exported.tflite.read_bytes()[4:8] == b"TFL3"
    body = read_document(exported.description, "exported_model", 1)
    assert body["classes"] == list(data.classes)
    assert body["mean"] == pytest.approx(data.mean)


def test_exported_files_give_the_accuracy_of_the_trained_network(tmp_path, data, retrained):
    exported = export(retrained.model, data, tmp_path)
    session = onnxruntime.InferenceSession(str(exported.onnx), providers=["CPUExecutionProvider"])
    images = data.inputs(data.test.read(range(len(data.test)))).contiguous().numpy()
    found = [session.run(None, {"input": image[None]})[0].argmax() for image in images]
    right = float(np.mean(np.array(found) == data.test.labels.numpy()))
    assert right == pytest.approx(accuracy_on_test_images(retrained.model, data), abs=0.006)


def test_network_whose_files_disagree_is_not_written(tmp_path, data):
    model = Supernet(SPACE).extract(ARCHITECTURE)
    model.eval()
    with torch.no_grad():
        model.layers["0_conv"].conv.weight.fill_(torch.nan)
    with pytest.raises(LatkitError, match="other outputs than torch"):
        export(model, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Untouchable:
    """Stands where test images are, and lets nobody look."""

    def __getattr__(self, name):
        raise AssertionError(f"{name} of the test images was read")

    def __len__(self):
        raise AssertionError("the test images were counted")


def test_only_the_final_number_reads_test_images(tmp_path):
    data = replace(load_data(image_size=16), test=Untouchable())
    supernet = Supernet(SPACE)
    settings = TrainingSettings(epochs=1, batch_size=256)
    train_supernet(supernet, data, settings)
    train_supernet(supernet, data, settings, learn=Sandwich(supernet))
    evaluator = SupernetEvaluator(supernet, data)
    cost = lay_out(SPACE, lambda block: float(block_counts(block).flops))
    strategy = Evolution(SPACE, cost, cost.maximum()[0], population=4, rounds=2, parents=2)
    log = SearchLog(tmp_path / "search.jsonl", {})
    assert run_strategy(strategy, cost, evaluator.accuracy, log) == 8
    best = Architecture(max(log.entries(), key=lambda entry: entry.accuracy).architecture)
    retrained = retrain(evaluator.calibrated(best), data, settings)
    export(retrained.model, data, tmp_path)
    with pytest.raises(AssertionError, match="test images"):
        accuracy_on_test_images(retrained.model, data)


def test_a_network_ends_with_the_average_of_its_weights_and_statistics(tmp_path, data):
    settings = TrainingSettings(epochs=1, batch_size=64, average_decay=0.9)
    network = SPACE.network(SPACE.sample(np.random.default_rng(1)))
    followed = fresh_model(network)
    states = []

    def remember(_):
        states.append({name: value.clone() for name, value in followed.state_dict().items()})

    trainer = Trainer(followed, data, settings, subject="run")
    trainer.run(lambda batch: learn(batch.loss(followed(batch.inputs))), remember)
    average, *later = states
    for number, state in enumerate(later, start=2):
        decay = min(0.9, number / (9 + number))
        average = {
            name: average[name] * decay + value * (1 - decay) for name, value in state.items()
        }
    model = fresh_model(network)
    retrained = retrain(model, data, settings)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, average[name], rtol=1e-4, atol=1e-6)
        else:
            assert value.equal(states[-1][name]), "how many batches were seen has no average"
    assert retrained.validation_accuracy == accuracy(model, data, data.validation)
    assert max(export(model, data, tmp_path).differences.values()) < 1e-4
    assert not torch.equal(next(model.parameters()), next(followed.parameters()))


def test_statistics_of_an_averaged_network_fit_its_weights(data):
    """They are the average too, and near what training images give those weights."""
    settings = replace(SETTINGS, average_decay=0.9)
    model = retrain(fresh_model(SPACE.network(ARCHITECTURE)), data, settings).model
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    averaged = [(norm.running_mean.clone(), norm.running_var.clone()) for norm in norms]
    weights = fingerprint(model)
    recalibrate(model, calibration_batches(data, 8, 64, seed=0))
    assert fingerprint(model) == weights
    for norm, (mean, variance) in zip(norms, averaged, strict=True):
        deviation = norm.running_var.sqrt()
        assert ((norm.running_mean - mean).abs() / deviation).mean() < 0.05
        assert (variance.sqrt() / deviation - 1).abs().mean() < 0.05
        assert norm.momentum == 0.1 and norm.num_batches_tracked == 8


def test_a_winner_is_trained_by_the_usual_recipe():
    recipe = RETRAINING_SETTINGS
    assert (recipe.schedule, recipe.label_smoothing) == ("cosine", 0.1)
    assert recipe.average_decay == 0.999
