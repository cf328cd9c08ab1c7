"""The wheel: all of the kit is in it, and it runs from an environment without the checkout."""

import json
import os
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from shutil import copy, copytree, ignore_patterns

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("devices", "latency", "search")
REASON = "needs {} (pip install 'latkit[dev]')"

pytest.importorskip("build", reason=REASON.format("build"))
pytest.importorskip("setuptools", "77", reason=REASON.format("setuptools>=77"))


@dataclass(frozen=True)
class Environment:
    """A fresh environment with the wheel in it; `elsewhere` is an empty folder to run from."""

    folder: Path
    elsewhere: Path
    wheel: Path

    def run(self, program, *arguments):
        """Run one of the environment's programs as a user would, away from the checkout."""
        variables = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [self.folder / "bin" / program, *arguments],
            cwd=self.elsewhere,
            env=variables,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def python(self, code):
        return self.run("python", "-c", code)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Build from a copy, so that nothing left in the checkout by earlier builds can slip in."""
    place = tmp_path_factory.mktemp("package")
    source = place / "source"
    source.mkdir()
    for entry in ROOT.iterdir():
        if entry.is_file():
            copy(entry, source)
        elif (entry / "__init__.py").is_file():
            copytree(entry, source / entry.name, ignore=ignore_patterns("__pycache__"))
    quietly_run("-m", "build", "--wheel", "--no-isolation", "--outdir", place, source)
    (wheel,) = place.glob("latkit-*.whl")

    folder = place / "environment"
    venv.create(folder, with_pip=False, symlinks=True)
    quietly_run(
        *("-m", "pip", "--disable-pip-version-check", "--python", folder / "bin" / "python"),
        *("install", "--no-deps", "--no-index", wheel),
    )
    # The dependencies come from this environment. A path in a .pth file is searched, but .pth files
    # that lie there, such as an editable install's of the checkout, are not run.
    (packages,) = folder.glob("lib/python*/site-packages")
    paths = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "dependencies.pth").write_text("\n".join(paths) + "\n")

    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    return Environment(folder, elsewhere, wheel)


def quietly_run(*arguments):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr


def files_of_the_package():
    found = {"latkit/__init__.py", "latkit/py.typed"}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            hidden = any(part.startswith((".", "__pycache__")) for part in path.parts)
            if path.is_file() and not hidden:
                found.add(f"latkit/{path.relative_to(ROOT).as_posix()}")
    return found


def test_wheel_holds_every_file_of_the_package_and_no_other(environment):
    with zipfile.ZipFile(environment.wheel) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert held == files_of_the_package()
    assert "latkit/search/report.html.jinja" in held
    assert "latkit/devices/tflite/__init__.py" in held


def test_imports_come_from_the_fresh_environment(environment):
    shown = environment.python(
        "import latkit.devices, latkit.devices.tflite, latkit.latency, latkit.search\n"
        "import latkit\n"
        "print(*(module.__file__ for module in (latkit, latkit.devices.tflite, latkit.search)),"
        " sep='\\n')"
    )
    for path in shown.splitlines():
        assert Path(path).is_relative_to(environment.folder)


def test_every_module_of_the_wheel_can_be_imported(environment):
    modules = sorted(
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in files_of_the_package()
        if name.endswith(".py") and not name.endswith("__main__.py")
    )
    environment.python(
        f"import importlib, pathlib\n"
        f"for name in {modules!r}:\n"
        f"    module = importlib.import_module(name)\n"
        f"    path = pathlib.Path(module.__file__)\n"
        f"    assert path.is_relative_to({str(environment.folder)!r}), path\n"
    )


@pytest.mark.parametrize("module", ["latkit", "latkit.devices", "latkit.latency", "latkit.search"])
def test_package_is_imported_without_torch(environment, module):
    environment.python(
        f"import sys, {module}\nassert 'torch' not in sys.modules, 'import {module} loads torch'"
    )


def test_spaces_are_found_by_their_entry_points(environment):
    shown = environment.python(
        "from importlib.metadata import entry_points\n"
        "for entry in entry_points(group='latkit.spaces'):\n"
        "    print(entry.name, callable(entry.load()))"
    )
    assert "mobile True" in shown.splitlines()


def test_report_finds_its_template_in_the_wheel(environment):
    environment.python(
        "import pathlib, pandas\n"
        "from latkit.search.report import ReportInput, write_report\n"
        "none = pandas.DataFrame()\n"
        "data = ReportInput('Nothing', {}, none, {}, none, none, none, (), ())\n"
        "write_report(data, pathlib.Path('written'))"
    )
    page = environment.elsewhere / "written" / "report.html"
    assert "<h1>Nothing</h1>" in page.read_text()


def test_command_runs_and_needs_no_torch_to_start(environment):
    assert "Usage" in environment.run("latkit", "--help")
    environment.python("import sys, latkit.search.cli\nassert 'torch' not in sys.modules")


def test_blocks_are_profiled_fitted_and_predicted(environment):
    blocks = [
        {
            "kind": "ConvBlock",
            "in_channels": 8,
            "height": 8,
            "width": 8,
            "out_channels": 8 * (1 + index % 4),
            "kernel": 1 + 2 * (index // 4),
        }
        for index in range(12)
    ]
    (environment.elsewhere / "blocks.json").write_text(json.dumps(blocks))
    quick = ("--rounds", "2", "--processes", "1", "--runs", "2")
    profiled = environment.run("latkit", "profile", "--blocks", "blocks.json", *quick, "--json")
    measured = [item["median_ms"] for item in json.loads(profiled)["measurements"]]
    assert len(measured) == 12 and min(measured) > 0
    environment.run("latkit", "fit", "--output", "predictor.json")
    shown = environment.run(
        *("latkit", "predict", "--predictor", "predictor.json"), "--blocks", "blocks.json", "--json"
    )
    estimates = json.loads(shown)["estimates"]
    assert len(estimates) == 12
    assert all(0 < item["low_ms"] <= item["latency_ms"] <= item["high_ms"] for item in estimates)
