"""The README's Python examples run as they stand, and its commands exist."""

import doctest
import re
import shutil
import subprocess
import sys
from pathlib import Path

import latkit.latency.predictor
import latkit.latency.table
import pytest
from latkit.latency.blocks import MBConv
from latkit.latency.subject import write_model

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
GOLDEN = ROOT / "tests" / "latency" / "golden"


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_of_the_readme_runs(number, tmp_path):
    model = write_model(MBConv(16, 14, 14, out_channels=16, expanded_channels=96), tmp_path)
    model.rename(tmp_path / "model.onnx")
    shutil.copy(GOLDEN / "model_predictor_v1.json", tmp_path / "models.json")
    shutil.copy(GOLDEN / "table_v1.json", tmp_path / "table.json")
    done = subprocess.run(
        [sys.executable, "-c", EXAMPLES[number]], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_readme_has_examples():
    assert len(EXAMPLES) >= 2


@pytest.mark.parametrize("module", [latkit.latency.predictor, latkit.latency.table])
def test_examples_of_docstrings_give_what_they_say(module):
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def test_benchmarks_of_the_readme_are_there():
    named = set(re.findall(r"benchmarks/\w+\.py", README))
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []
