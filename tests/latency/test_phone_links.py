"""The link to a phone is cut at every step of a profile; the same command then completes it."""

import hashlib
from collections import Counter
from dataclasses import replace

import pytest
from latkit.devices.adb import FOLDER, Adb
from latkit.devices.device import TimingProtocol
from latkit.devices.errors import DeviceError
from latkit.devices.options import DeviceOptions
from latkit.devices.phone.device import PhoneDevice
from latkit.devices.phone.settings import NOTE
from latkit.devices.runner import runner_path
from latkit.latency.blocks import ConvBlock
from latkit.latency.profile import profile
from latkit.latency.store import Store, round_key
from phone import libraries
from phone.faults import CutAt
from phone.fixtures import both_adb_versions

pytestmark = [both_adb_versions, pytest.mark.timeout(280)]

ROUNDS = 3
PROTOCOL = TimingProtocol(
    rounds=ROUNDS, processes=2, runs=2, warmups=1, warmup_ms=1, max_repeats=0, max_wait_s=0
)
REQUESTS = [
    (ConvBlock(in_channels=8, height=size, width=size, out_channels=8), 0) for size in (8, 16)
]
RUNNER = hashlib.sha256(runner_path("x86_64").read_bytes()).hexdigest()
RUNNING = f"{FOLDER}/{RUNNER}"
PUSHING = "sync:"
VERIFYING = 'chmod "$mode"'
READING_STATE = "mark low_power"
"""What only the services of starting the runner, pushing, accepting a push, and reading the
phone's state have in them."""

VERSIONS = ["debian", "adbutils"]


class Profiled:
    """A phone, and profiles of the same models on it into stores of their own."""

    def __init__(self, phone, folder):
        self.phone = phone
        self.files = phone.data / "local/tmp/latkit"
        self._folder = folder
        self._options = DeviceOptions(runtime_library=libraries.onnxruntime_library())
        self.settings = self.changeable_settings()
        self.device = self.opened()
        self.setup = self.device.setup
        self.stores = 0

    def opened(self):
        return PhoneDevice(Adb(timeout_s=10), self.phone.serial, self._options)

    def new_store(self):
        self.stores += 1
        return Store(self._folder / f"{self.stores}.sqlite")

    def profile(self, store, protocol=PROTOCOL):
        return profile(self.device, REQUESTS, store, protocol)

    def empty_phone(self):
        """Nothing that an earlier profile brought is there any more."""
        for file in self.files.iterdir():
            file.unlink()

    def changeable_settings(self):
        names = ("settings/global/stay_on_while_plugged_in", "fixed_performance")
        return {name: self.phone.state(name) for name in names}

    def cut_at(self, fault):
        """Profile with a cut and again without; how many rounds were stored before the cut."""
        with self.new_store() as store:
            self.phone.arm(fault)
            try:
                self.profile(store)
                raised = False
            except DeviceError:
                raised = True
            fired = bool(self.phone.fired)
            before = store.rounds(self.setup)
            # An error without a cut would be a defect, and so would silence about lost rounds.
            assert raised == fired or len(before) == ROUNDS, fault
            self.phone.clear_faults()
            if fired:
                self.phone.reconnect()
            result = self.profile(store)
            assert not result.failures, fault
            rounds = store.rounds(self.setup)
            assert rounds[: len(before)] == before, fault
            assert_complete(store, self.setup)
            if fired and not raised:
                # It was cut when all was stored: what it left changed, the next one puts back.
                self.profile(store, replace(PROTOCOL, rounds=ROUNDS + 1))
        assert self.changeable_settings() == self.settings, fault
        assert not (self.files / NOTE.rpartition("/")[2]).exists(), fault
        assert not list(self.files.glob("*.part")), fault
        return fired, len(before)


def assert_complete(store, setup):
    """The keys of a profile that nothing cut, each with its rounds, and none of them twice."""
    keys = {(block.key, size) for block, size in REQUESTS}
    assert store.finished_rounds(setup) == dict.fromkeys(keys, ROUNDS)
    assert set(store.all_measurements(setup)) == keys
    rounds = store.rounds(setup)
    assert len({round_key(item) for item in rounds}) == len(rounds)
    accepted = Counter(key for item in rounds if item.accepted for key in item.visits)
    assert accepted == dict.fromkeys(keys, ROUNDS)


def runners(link):
    """How many runners are alive on the phone."""
    found = link.script('for file in /proc/[0-9]*/cmdline; do head -c 200 "$file"; echo; done')
    return sum(line.startswith(RUNNING) for line in found.stdout.splitlines())


@pytest.fixture
def profiled(phone, tmp_path):
    return Profiled(phone, tmp_path)


def test_wherever_the_link_is_cut_the_same_command_completes_the_profile(profiled, request):
    phone = profiled.phone
    phone.reset_counters()
    with profiled.new_store() as store:
        profiled.profile(store)
        assert_complete(store, profiled.setup)
    sent_bytes = phone.counters["send_bytes"]
    phone.reset_counters()
    with profiled.new_store() as store:
        profiled.profile(store)
    services = phone.counters["open"]
    # Each version of adb has every other step of making ready, pushing, starting and reading.
    version = VERSIONS.index(request.node.callspec.params["adb_server"])
    pushing = [
        *(CutAt("open", push, match) for match in (PUSHING, VERIFYING) for push in range(4)),
        *(CutAt("send_bytes", round(sent_bytes * share)) for share in (0, 0.01, 0.5, 0.999)),
    ]
    later = [CutAt("open", index) for index in range(services)]
    later += [CutAt("shell_output", index, RUNNING) for index in (0, 1, 2, 4, 7, 11, 16, 22, 29)]
    # Both versions: at the look at the phone after each round.
    reading = [CutAt("open", index, READING_STATE) for index in range(1, ROUNDS + 1)]
    points = 0
    stored = set()
    for fault in pushing[version::2] + later[version::2] + reading:
        if fault in pushing:
            profiled.empty_phone()
        fired, before = profiled.cut_at(fault)
        assert fired or fault.kind == "shell_output", fault
        points += fired
        stored.add(before)
    assert points >= 15 + ROUNDS, "two versions of adb are to have 30 different points in all"
    # Some cuts came before the first round, some between rounds, some after the last.
    assert stored == set(range(ROUNDS + 1))
    with Adb().connect(phone.serial) as link:
        assert runners(link) == 0
        process = link.start([RUNNING, f"{FOLDER}/progress"])
        process.write_line("threads 1")
        with pytest.raises(TimeoutError):
            process.read_line(0.5)
        assert runners(link) == 1  # So it would have been seen.
        process.end()


@pytest.mark.parametrize("share", [0, 0.01, 0.6, 0.999])
def test_a_pull_that_is_cut_leaves_nothing_and_succeeds_when_repeated(phone, tmp_path, share):
    adb = Adb(timeout_s=10)
    local, sent = tmp_path / "pulled" / "file", tmp_path / "file"
    sent.write_bytes(bytes(range(256)) * 4000)
    with adb.connect(phone.serial) as link:
        (remote,) = link.push([sent])
        phone.arm(CutAt("receive_bytes", round(share * sent.stat().st_size)))
        with pytest.raises(DeviceError):
            link.pull(remote, local)
    assert phone.fired
    assert not list(local.parent.iterdir())
    phone.reconnect()
    with adb.connect(phone.serial) as link:
        link.pull(remote, local)
    assert local.read_bytes() == sent.read_bytes()
