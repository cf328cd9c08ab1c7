from dataclasses import replace

import pytest
from latkit.devices import Round, Setup, TimingProtocol, UsageError, Visit
from latkit.latency.blocks import ConvBlock
from latkit.latency.options import SetupChoice, refuse_emulated
from latkit.latency.store import Store

PHONE = Setup("adb:X1 Pixel", "litert", "sha256:1", accelerator="xnnpack", cores=(7,))
GPU = replace(PHONE, accelerator="gpu:0123456789ab+fallback", batch_size=4)


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "s.sqlite") as store:
        (key,) = store.add_subjects([ConvBlock(8, 8, 8, out_channels=8)])
        for setup in (PHONE, GPU):
            visits = {(key, 0): Visit((5,), None)}
            item = Round(setup.accelerator, 0, 0, 0, True, 0.0, 1.0, (9,), 0.0, visits)
            store.add_round(setup, TimingProtocol(), {}, item)
        yield store


@pytest.mark.parametrize(
    ("choice", "setup"),
    [
        (SetupChoice(accelerator="xnnpack"), PHONE),
        (SetupChoice(accelerator="gpu"), GPU),
        (SetupChoice(accelerator=GPU.accelerator), GPU),
        (SetupChoice(batch_size=4), GPU),
        (SetupChoice(device="x1", batch_size=1), PHONE),
    ],
)
def test_a_setup_is_chosen_by_what_tells_it_from_the_others(store, choice, setup):
    assert choice.choose(store) == setup


@pytest.mark.parametrize("choice", [SetupChoice(), SetupChoice(device="pixel", threads=1)])
def test_several_that_fit_are_listed(store, choice):
    with pytest.raises(UsageError, match=r"several setups(.|\n)*xnnpack(.|\n)*gpu:0123"):
        choice.choose(store)


@pytest.mark.parametrize("choice", [SetupChoice(accelerator="nnapi"), SetupChoice(cores="1,2")])
def test_none_that_fits_lists_all(store, choice):
    with pytest.raises(UsageError, match=r"no setup that fit(.|\n)*xnnpack(.|\n)*gpu:0123"):
        choice.choose(store)


def test_what_was_made_for_another_setup_is_refused_with_both_named():
    SetupChoice(accelerator="gpu").check(GPU, "the table")
    with pytest.raises(UsageError, match=r"made for .*gpu:0123.* ask for .*\|xnnpack\|"):
        SetupChoice(accelerator="xnnpack").check(GPU, "the table")


def test_emulated_setups_are_refused_unless_asked_for():
    refuse_emulated(PHONE, False)
    emulated = replace(PHONE, emulated=True)
    with pytest.raises(UsageError, match="--allow-emulated"):
        refuse_emulated(emulated, False)
    refuse_emulated(emulated, True)
    assert emulated.key.endswith("|emulated") and emulated.key != PHONE.key
