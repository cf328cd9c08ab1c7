from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from latkit.devices import DeviceError, LatkitError, UsageError
from latkit.devices.adb import Adb, ShellResult
from latkit.devices.phone.facts import PROPERTIES, choose_cores, read_facts
from latkit.devices.phone.shell import LABEL_LENGTH, integer, label
from phone.sandbox import Core

SHELLS = {"dash": ["dash"], "mksh": ["mksh"], "busybox": ["busybox", "sh"]}

PIXEL_8_PRO = {
    "ro.serialno": "3A081FDJG0005P",
    "ro.product.manufacturer": "Google",
    "ro.product.model": "Pixel 8 Pro",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.build.fingerprint": "google/husky/husky:14/UQ1A.240105.004/11206848:user/release-keys",
    "ro.soc.manufacturer": "Google",
    "ro.soc.model": "Tensor G3",
    "ro.board.platform": "zuma",
    "ro.hardware": "husky",
    "ro.product.cpu.abilist": "arm64-v8a",
    "ro.product.cpu.abi": "arm64-v8a",
    "kernel": "5.15.110-android14-11-gcc48824eebe8-ab10865596",
    "kernel_build": "#1 SMP PREEMPT Mon Sep 25 20:22:41 UTC 2023",
    "memory": "MemTotal:       11840436 kB",
    "allowed": "Cpus_allowed_list:\t0-8",
    "online": "0-8",
    "cores": "\n".join(
        f"{core} present 1\n{core} cpu_capacity {capacity}\n{core} cpufreq/cpuinfo_max_freq {khz}"
        for core, (capacity, khz) in enumerate(
            [(247, 1704000)] * 4 + [(782, 2367000)] * 4 + [(1024, 2914000)]
        )
    ),
    "caches": "",
    "cpuinfo": "\n".join(
        f"processor\t: {core}\n"
        "Features\t: fp asimd evtstrm aes fphp asimdhp asimddp sve sve2 i8mm bf16\n"
        f"CPU implementer\t: 0x41\nCPU part\t: {part}"
        for core, part in enumerate(["0xd46"] * 4 + ["0xd4d"] * 4 + ["0xd4e"])
    ),
    "thermalservice": "IsStatusOverride: false\nThermal Status: 0",
}

GALAXY_S9_ANDROID_9 = {
    "ro.serialno": "21e3b1c6a10c7ece",
    "ro.product.manufacturer": "samsung",
    "ro.product.model": "SM-G960F",
    "ro.build.version.release": "9",
    "ro.build.version.sdk": "28",
    "ro.build.fingerprint": "samsung/starltexx/starlte:9/PPR1.180610.011/G960F:user/release-keys",
    "ro.board.platform": "exynos5",
    "ro.hardware": "samsungexynos9810",
    "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a,armeabi",
    "kernel": "4.9.59-15372311",
    "memory": "MemTotal:        3776116 kB",
    "allowed": "Cpus_allowed_list:\t0-3",
    "online": "0-7",
    "cores": "\n".join(
        f"{core} present 1\n{core} cpufreq/cpuinfo_max_freq {1794000 if core < 4 else 2704000}"
        for core in range(8)
    ),
    "cpuinfo": "processor\t: 0\nFeatures\t: fp asimd\nprocessor\t: 4\nFeatures\t: asimd fphp",
    "thermalservice": "Can't find service: thermalservice",
}

EMULATOR_ANDROID_12 = {
    "ro.product.manufacturer": "Google",
    "ro.product.model": "sdk_gphone64_x86_64",
    "ro.build.version.release": "12",
    "ro.build.version.sdk": "31",
    "ro.hardware": "ranchu",
    "ro.boot.qemu": "1",
    "ro.soc.model": "unknown",
    "ro.product.cpu.abilist": "x86_64,arm64-v8a",
    "cores": "0 present 1\n1 present 1",
    "allowed": "Cpus_allowed_list:\t0-1",
    "caches": "1 Data 32K 0\n1 Data 32K 1\n3 Unified 33792K 0-1\n3 Unified 33792K 0-1",
    "cpuinfo": "processor\t: 0\nflags\t\t: fpu sse4_2 avx2 fma avx512f avx512_bf16 hypervisor",
}


class Answering:
    """A link whose phone gives these sections, or this text, to every script."""

    def __init__(self, sections, before="", exit_code=0):
        self.sections = sections
        self.before = before
        self.exit_code = exit_code
        self.calls = 0

    def script(self, script, *words, timeout_s=None):
        self.calls += 1
        marked = "".join(f"\n{words[0]} {name}\n{text}\n" for name, text in self.sections.items())
        return ShellResult(self.exit_code, self.before + marked, "")


@dataclass
class HostShell:
    """A link that runs scripts in a shell of this host."""

    shell: list[str]
    stderr: list[str] = field(default_factory=list)

    def script(self, script, *words, timeout_s=None):
        command = [*self.shell, "-c", script, "latkit", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s)
        self.stderr.append(done.stderr)
        return ShellResult(done.returncode, done.stdout, done.stderr)


@pytest.fixture(params=SHELLS)
def host_shell(request):
    if shutil.which(request.param) is None:
        pytest.skip(f"needs the Debian package {request.param}")
    return HostShell(SHELLS[request.param])


def has_a_reason_for_every_none(found):
    return all(found.get(f"{name}_reason") for name, value in found.items() if value is None)


def test_facts_of_a_current_pixel():
    link = Answering(PIXEL_8_PRO)
    facts = read_facts(link)
    assert link.calls == 1
    assert facts["model"] == "Pixel 8 Pro"
    assert facts["soc"] == "Google Tensor G3"
    assert (facts["android"], facts["sdk"]) == ("14", 34)
    assert facts["abis"] == ["arm64-v8a"]
    assert facts["memory_bytes"] == 11840436 * 1024
    assert facts["allowed_cores"] == list(range(9))
    assert facts["cores"][8] == {
        "core": 8,
        "max_khz": 2914000,
        "capacity": 1024,
        "online": True,
        "part": "0x41-0xd4e",
    }
    assert facts["instruction_sets"] == [
        "asimd",
        "asimddp",
        "asimdhp",
        "bf16",
        "fphp",
        "i8mm",
        "sve",
        "sve2",
    ]
    assert facts["caches"] is None and facts["caches_reason"]
    assert facts["thermal_service"] is True
    assert facts["emulated"] is False


def test_facts_of_android_9_say_why_the_newer_ones_are_missing():
    facts = read_facts(Answering(GALAXY_S9_ANDROID_9))
    assert facts["soc"] == "exynos5"
    assert facts["abis"] == ["arm64-v8a", "armeabi-v7a", "armeabi"]
    assert facts["cores"][7]["capacity"] is None
    assert "cpu_capacity" in facts["cores"][7]["capacity_reason"]
    assert facts["thermal_service"] is False
    assert "Can't find service" in facts["thermal_service_reason"]
    assert facts["instruction_sets"] == ["asimd"], "only what every core has"
    assert has_a_reason_for_every_none({k: v for k, v in facts.items() if k != "emulated_reason"})


@pytest.mark.parametrize(
    ("properties", "named"),
    [
        ({"ro.kernel.qemu": "1"}, "ro.kernel.qemu"),
        ({"ro.boot.qemu": "1"}, "ro.boot.qemu"),
        ({"ro.hardware": "goldfish"}, "goldfish"),
        ({"ro.hardware": "cutf_cvm"}, "cutf_cvm"),
    ],
)
def test_an_emulator_is_told_from_a_phone(properties, named):
    facts = read_facts(Answering(properties))
    assert facts["emulated"] is True
    assert named in facts["emulated_reason"]


def test_facts_of_an_emulator():
    facts = read_facts(Answering(EMULATOR_ANDROID_12))
    assert facts["soc"] == "ranchu"
    assert facts["instruction_sets"] == ["avx2", "avx512_bf16", "avx512f", "fma", "sse4_2"]
    assert [cache["size_bytes"] for cache in facts["caches"]] == [32768, 32768, 33792 * 1024]
    assert facts["cores"][0]["online"] is None and facts["cores"][0]["online_reason"]


def test_a_shell_that_runs_nothing_is_an_error_that_tells_what_it_said():
    with pytest.raises(DeviceError, match=r"exit code 127.*sh: not found"):
        read_facts(Answering({}, before="sh: not found\n", exit_code=127))


@pytest.mark.parametrize(
    ("name", "text", "fact"),
    [
        ("ro.build.version.sdk", "thirty", "sdk"),
        ("ro.build.version.sdk", "-3", "sdk"),
        ("ro.build.version.sdk", "9" * 400, "sdk"),
        ("ro.build.version.sdk", "٣٤", "sdk"),
        ("memory", "MemTotal: lots kB", "memory_bytes"),
        ("memory", "MemTotal:       11840436", "memory_bytes"),
        ("allowed", "Cpus_allowed_list:\t0-", "allowed_cores"),
        ("allowed", "Cpus_allowed_list:\t0-9999", "allowed_cores"),
        ("allowed", "Cpus_allowed_list:\t3-0", "allowed_cores"),
        ("cores", "x present 1", "cores"),
    ],
)
def test_a_malformed_number_is_none_with_its_reason(name, text, fact):
    facts = read_facts(Answering({**PIXEL_8_PRO, name: text}))
    assert facts[fact] is None
    assert facts[f"{fact}_reason"]


def test_a_core_whose_frequency_makes_no_sense_has_none():
    text = "0 present 1\n0 cpufreq/cpuinfo_max_freq 0\n0 cpu_capacity 1e3"
    (core,) = read_facts(Answering({**PIXEL_8_PRO, "cores": text}))["cores"]
    assert core["max_khz"] is None and "'0'" in core["max_khz_reason"]
    assert core["capacity"] is None and "'1e3'" in core["capacity_reason"]


def test_a_label_is_one_short_printable_line_without_separators():
    assert label("  Phone|9\nPro\x1b[31m\u202e  X ") == "Phone/9 Pro [31m X"
    assert len(label("x" * 10_000)) == LABEL_LENGTH
    assert label("|") == "/"


@given(st.text())
def test_labels_hold_for_any_text(text):
    made = label(text)
    assert label(made) == made
    assert made.isprintable() and "|" not in made and len(made) <= LABEL_LENGTH


@given(st.text() | st.from_regex(r"-?[0-9]{0,20}"))
def test_an_integer_is_in_its_range_or_none(text):
    number = integer(text, 1, 1000)
    assert number is None or (1 <= number <= 1000 and int(text.strip()) == number)


ANY_SECTIONS = st.dictionaries(
    st.sampled_from([*PROPERTIES, *PIXEL_8_PRO]),
    st.text(max_size=200)
    | st.text(alphabet="0123456789-,: \nkBKM", max_size=80)
    | st.sampled_from(list(PIXEL_8_PRO.values())),
    min_size=1,
)


@settings(deadline=None)
@given(ANY_SECTIONS)
def test_facts_of_garbage_are_plain_and_explained(sections):
    facts = read_facts(Answering(sections))
    json.dumps(facts, allow_nan=False)
    for core in facts["cores"] or ():
        assert has_a_reason_for_every_none(core)
    plain = {name: value for name, value in facts.items() if name != "emulated_reason"}
    assert has_a_reason_for_every_none(plain)
    for threads in (1, 4):
        try:
            chosen = choose_cores(facts, threads, None)
        except LatkitError:
            continue
        assert chosen is None or set(chosen) <= set(facts["allowed_cores"])


def test_the_script_runs_in_a_shell_of_this_host(host_shell):
    facts = read_facts(host_shell)
    assert host_shell.stderr == [""]
    assert facts["kernel"]
    assert facts["memory_bytes"] > 1 << 20
    assert facts["allowed_cores"]
    assert {core["core"] for core in facts["cores"]} >= set(facts["allowed_cores"])
    assert facts["model"] is None and "ro.product.model" in facts["model_reason"]
    assert facts["thermal_service"] is False


def made_of(*clusters, allowed=None, offline=(), measure="capacity"):
    cores, speeds = [], [speed for count, speed in clusters for _ in range(count)]
    for core, speed in enumerate(speeds):
        described = {"core": core, "max_khz": None, "capacity": None, "online": core not in offline}
        cores.append({**described, measure: speed})
    return {
        "cores": cores,
        "allowed_cores": list(range(len(cores)) if allowed is None else allowed),
    }


LITTLE_FIRST = made_of((4, 250), (3, 800), (1, 1024))


@pytest.mark.parametrize(
    ("facts", "threads", "chosen"),
    [
        (LITTLE_FIRST, 1, (7,)),
        (LITTLE_FIRST, 2, (5, 6)),
        (LITTLE_FIRST, 3, (4, 5, 6)),
        (LITTLE_FIRST, 4, (0, 1, 2, 3)),
        (LITTLE_FIRST, 5, (3, 4, 5, 6, 7)),
        (LITTLE_FIRST, 8, (0, 1, 2, 3, 4, 5, 6, 7)),
        (made_of((1, 1024), (3, 800), (4, 250)), 1, (0,)),
        (made_of((4, 400), (4, 1024)), 2, (6, 7)),
        (made_of((8, 1024)), 4, (4, 5, 6, 7)),
        (made_of((4, 250), (3, 800), (1, 1024), allowed=range(4)), 1, (3,)),
        (made_of((4, 250), (3, 800), (1, 1024), offline=[7]), 1, (6,)),
        (made_of((4, 1794000), (4, 2704000), measure="max_khz"), 1, (7,)),
        (made_of((4, None)), 1, None),
        ({"cores": None, "allowed_cores": [0, 1]}, 1, None),
        ({"cores": LITTLE_FIRST["cores"], "allowed_cores": None}, 1, None),
    ],
)
def test_default_cores(facts, threads, chosen):
    assert choose_cores(facts, threads, None) == chosen


def test_a_capacity_that_only_some_cores_tell_is_not_mixed_with_frequencies():
    facts = made_of((2, 500), (2, None))
    for described in facts["cores"]:
        described["max_khz"] = 3_000_000 if described["core"] < 2 else 1_000_000
    assert choose_cores(facts, 1, None) == (1,)


def test_capacity_counts_more_than_frequency():
    facts = made_of((2, 1024), (2, 400))
    for described in facts["cores"]:
        described["max_khz"] = 2_000_000 if described["core"] < 2 else 2_500_000
    assert choose_cores(facts, 1, None) == (1,)


def test_given_cores_are_taken_sorted():
    assert choose_cores(LITTLE_FIRST, 2, [6, 4, 6]) == (4, 6)
    assert choose_cores({"cores": None, "allowed_cores": None}, 1, [3]) == (3,)


@pytest.mark.parametrize(
    ("threads", "cores", "message"),
    [
        (1, [3, 9], r"\[9\] .* \[0, 1, 2, 3, 4, 5, 6, 7\]"),
        (1, [-1], r"\[-1\]"),
        (2, [3], "2 threads need as many cores"),
        (9, None, "9 threads .* 8 cores"),
        (0, None, "at least 1"),
    ],
)
def test_cores_that_do_not_fit_are_named(threads, cores, message):
    with pytest.raises(UsageError, match=message):
        choose_cores(LITTLE_FIRST, threads, cores)


def test_an_offline_core_can_not_be_given():
    with pytest.raises(UsageError, match=r"\[7\]"):
        choose_cores(made_of((8, 1024), offline=[7]), 1, [7])


def test_facts_of_a_phone_on_a_link(make_phone):
    cores = (Core(1_800_000, 300), Core(2_800_000, 1024), Core(2_800_000, 1024, online=False))
    phone = make_phone(model="Pixel 8", manufacturer="Google", soc=("Google", "G3"), cores=cores)
    with Adb().connect(phone.serial) as link:
        phone.commands.clear()
        facts = read_facts(link)
    assert len(phone.commands) == 1
    assert (facts["model"], facts["soc"], facts["sdk"]) == ("Pixel 8", "Google G3", 34)
    assert facts["abis"] == ["x86_64"]
    assert [core["max_khz"] for core in facts["cores"]] == [1_800_000, 2_800_000, 2_800_000]
    assert [core["online"] for core in facts["cores"]] == [True, True, False]
    assert facts["emulated"] is True
    assert facts["thermal_service"] is True
    if {0, 1} <= set(facts["allowed_cores"]):
        assert choose_cores(facts, 1, None) == (1,)


def test_a_phones_properties_stay_text(make_phone):
    evil = "a|b'\"`touch /data/local/tmp/run`$(touch /data/local/tmp/run)\n[ro.boot.qemu]: [0]\\c"
    properties = {"ro.boot.qemu": None, "ro.hardware": "ranchu"}
    phone = make_phone(manufacturer=evil, soc=("A", evil), properties=properties)
    with Adb().connect(phone.serial) as link:
        facts = read_facts(link)
    assert facts["manufacturer"] == label(evil)
    assert facts["soc"] == label(f"A {evil}")
    assert facts["emulated_reason"] == "ro.hardware is ranchu"
    assert not (phone.data / "local/tmp/run").exists()
