"""Rules that all of the source keeps: data never runs, no error is swallowed, layers hold."""

import ast
import io
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("devices", "latency", "search")
FILES = [
    ROOT / "__init__.py",
    *sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")),
]
BENCHMARKS = sorted((ROOT / "benchmarks").rglob("*.py"))

TORCH_MODULES = {
    "devices/torch_onnx/__init__.py",
    "devices/torch_onnx/node.py",
    "devices/torch_onnx/ops.py",
    "devices/torch_onnx/program.py",
    "devices/torch_onnx/shapes.py",
    "latency/batch_norm.py",
    "latency/quantisers.py",
    "latency/torch_model.py",
    "search/aimed.py",
    "search/alphas.py",
    "search/channels.py",
    "search/checkpoint.py",
    "search/data.py",
    "search/distributed.py",
    "search/evaluators/stand_alone.py",
    "search/export.py",
    "search/finalists.py",
    "search/initialisation.py",
    "search/learning.py",
    "search/loading.py",
    "search/narrowable.py",
    "search/pipeline.py",
    "search/precision.py",
    "search/recalibration.py",
    "search/recipes/__init__.py",
    "search/recipes/learning.py",
    "search/recipes/named.py",
    "search/recipes/overriding.py",
    "search/recipes/papers.py",
    "search/recipes/quick.py",
    "search/recipes/recipe.py",
    "search/recipes/running.py",
    "search/recipes/spaces.py",
    "search/recipes/strategies.py",
    "search/recipes/task.py",
    "search/relaxed.py",
    "search/relaxed_latency.py",
    "search/retraining.py",
    "search/rmsprop.py",
    "search/sgd.py",
    "search/sharing.py",
    "search/skeleton.py",
    "search/supernet.py",
    "search/trainers/bi_sampling.py",
    "search/trainers/bilevel.py",
    "search/trainers/controlled.py",
    "search/trainers/joint.py",
    "search/trainers/path_dropout.py",
    "search/trainers/rewarded.py",
    "search/trainers/sandwich.py",
    "search/trainers/single_path.py",
    "search/trainers/supernet.py",
    "search/training.py",
}
"""Modules that need torch to be imported at all; whoever imports one does so where it is used."""

NAMES_THE_KIND = {"devices/registry.py", "devices/phone/kind.py", "devices/phone/device.py"}
"""Files that have `adb` as the name of a kind of device, not of the program."""

MAY_IMPORT = {
    "devices": {"devices"},
    "latency": {"devices", "latency"},
    "search": {"devices", "latency", "search"},
}
RUNS_DATA = {"cloudpickle", "cPickle", "dill", "joblib", "marshal", "pickle", "shelve"}
RUNS_TEXT = {"eval", "exec", "__import__"}
RUNS_SHELL = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def sources(files):
    return pytest.mark.parametrize("path", files, ids=name_of)


def tree_of(path):
    return ast.parse(path.read_text("utf-8"), str(path))


def imported(node):
    """Dotted names that an import statement asks for, `..` kept in front of relative ones."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return ["." * node.level + (node.module or "")]
    return []


def only_names_an_error(node, tree):
    """Whether pickle is there to catch what `torch.load(weights_only=True)` raises, and no more."""
    if isinstance(node, ast.ImportFrom):
        return {alias.name for alias in node.names} == {"UnpicklingError"}
    if [alias.name for alias in node.names if alias.asname is None] != ["pickle"]:
        return False
    parts = list(ast.walk(tree))
    uses = sum(isinstance(part, ast.Name) and part.id == "pickle" for part in parts)
    errors = sum(
        isinstance(part, ast.Attribute) and ast.unparse(part) == "pickle.UnpicklingError"
        for part in parts
    )
    return uses == errors


def dangers(tree):
    """What in this source lets data run, as lines of text."""
    found = []
    for node in ast.walk(tree):
        for name in imported(node):
            if name.split(".")[0] in RUNS_DATA and not only_names_an_error(node, tree):
                found.append(f"line {node.lineno}: imports {name}")
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        words = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called in RUNS_TEXT | RUNS_SHELL:
            found.append(f"line {node.lineno}: calls {called}")
        if words.get("shell", "False") != "False":
            found.append(f"line {node.lineno}: shell={words['shell']}")
        if called == "torch.load" and words.get("weights_only") != "True":
            found.append(f"line {node.lineno}: torch.load without weights_only=True")
        if words.get("allow_pickle", "False") != "False" or called.endswith(".read_pickle"):
            found.append(f"line {node.lineno}: {called} may unpickle")
        if called in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"):
            found.append(f"line {node.lineno}: calls {called}")
    return found


def swallowed(tree):
    """Lines of handlers that catch everything without naming it, or do nothing with it."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (
            node.type is None
            or (
                ast.unparse(node.type) in ("Exception", "BaseException")
                and all(isinstance(step, ast.Pass) for step in node.body)
            )
        )
    ]


def ignored_types(source):
    """Lines whose comment silences the type checker."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [
        token.start[0]
        for token in tokens
        if token.type == tokenize.COMMENT and "type: ignore" in " ".join(token.string.split())
    ]


def run_at_import(body):
    """Statements that run when a module is imported: not those in functions or for the checker."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from run_at_import(node.orelse)
            continue
        for part in ("body", "orelse", "finalbody"):
            yield from run_at_import(getattr(node, part, []))
        for handler in getattr(node, "handlers", []):
            yield from run_at_import(handler.body)


def imports_torch(tree):
    return any(
        name.split(".")[0] in ("torch", "torchvision")
        for node in run_at_import(tree.body)
        for name in imported(node)
    )


@sources(FILES + BENCHMARKS)
def test_data_never_runs(path):
    assert dangers(tree_of(path)) == []


@sources(FILES)
def test_no_error_is_swallowed(path):
    assert swallowed(tree_of(path)) == []


@sources(FILES)
def test_no_type_error_is_silenced(path):
    assert ignored_types(path.read_text("utf-8")) == []


@sources(FILES)
def test_torch_is_imported_at_top_level_by_torch_modules_only(path):
    assert not imports_torch(tree_of(path)) or name_of(path) in TORCH_MODULES


@sources([path for path in FILES if name_of(path) not in TORCH_MODULES])
def test_modules_without_torch_reach_none_by_their_imports(path):
    """Follow our own imports, as importing the module would, and meet no torch module."""
    waiting, seen = [path], set()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        assert name_of(current) not in TORCH_MODULES, f"{name_of(path)} reaches {name_of(current)}"
        waiting.extend(imported_files(current))


@sources([path for path in FILES if path.parent != ROOT])
def test_folders_import_only_what_lies_below_them(path):
    folder = path.relative_to(ROOT).parts[0]
    for node in ast.walk(tree_of(path)):
        for target in files_meant_by(path, node):
            assert target.relative_to(ROOT).parts[0] in MAY_IMPORT[folder], (
                f"line {node.lineno} imports {name_of(target)}"
            )


@sources([path for path in FILES if not name_of(path).startswith("devices/adb/")])
def test_only_the_adb_folder_calls_adb(path):
    """No other file names the program: links are asked for through `Adb`."""
    words = [node.value for node in ast.walk(tree_of(path)) if isinstance(node, ast.Constant)]
    assert "adb" not in words or name_of(path) in NAMES_THE_KIND


@sources(FILES)
def test_modules_say_what_they_are_for(path):
    assert ast.get_docstring(tree_of(path))


def imported_files(path):
    return [
        target
        for node in run_at_import(tree_of(path).body)
        for target in files_meant_by(path, node)
    ]


def files_meant_by(path, node):
    """Files of the package that an import statement in `path` runs."""
    if not isinstance(node, ast.ImportFrom) or not node.level:
        return []
    base = path.parents[node.level - 1]
    if node.module:
        base = base.joinpath(*node.module.split("."))
    candidates = [base.with_suffix(".py"), base / "__init__.py"]
    for alias in node.names:
        candidates += [base / f"{alias.name}.py", base / alias.name / "__init__.py"]
    return [file for file in candidates if file.is_file() and file.is_relative_to(ROOT)]


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.loads(text)",
        "import pickle\nload = pickle\npickle.UnpicklingError",
        "import pickle as error",
        "import marshal",
        "from pickle import loads",
        "from pickle import UnpicklingError, loads",
        "import os\nos.system(line)",
        "eval(text)",
        "exec(text)",
        "subprocess.run(line, shell=True)",
        "subprocess.run(line, shell=wanted)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "numpy.load(path, allow_pickle=True)",
        "pandas.read_pickle(path)",
        "yaml.load(text)",
    ],
)
def test_what_would_let_data_run_is_found(source):
    assert len(dangers(ast.parse(source))) == 1


def test_what_only_looks_dangerous_is_not_found():
    source = "model.eval()\nsubprocess.run(line)\ntorch.load(path, weights_only=True)\n'eval(x)'"
    source += "\nimport pickle\ntry:\n    f()\nexcept pickle.UnpicklingError:\n    raise"
    assert dangers(ast.parse(source)) == []


def test_swallowed_errors_and_silenced_types_are_found():
    source = "try:\n    f()\nexcept:\n    raise\ntry:\n    f()\nexcept Exception:\n    pass\n"
    assert swallowed(ast.parse(source)) == [3, 7]
    assert swallowed(ast.parse("try:\n    f()\nexcept OSError:\n    pass")) == []
    assert ignored_types("x = 1  # type:  ignore[misc]\ny = '# type: ignore'\n") == [1]


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import torch.nn as nn", True),
        ("try:\n    import torch\nexcept ImportError:\n    raise", True),
        ("class A:\n    from torch import nn", True),
        ("def f():\n    import torch", False),
        ("if TYPE_CHECKING:\n    import torch\nelse:\n    torch = None", False),
        ("from . import torch_model", False),
    ],
)
def test_imports_of_torch_at_top_level_are_found(source, found):
    assert imports_torch(ast.parse(source)) == found


def test_devices_and_latency_models_load_no_torch():
    modules = [
        "latkit." + name_of(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in FILES
        if path.parent != ROOT
        and path.relative_to(ROOT).parts[0] != "search"
        and name_of(path) not in TORCH_MODULES
    ]
    code = f"import importlib, sys\nfor name in {modules!r}:\n    importlib.import_module(name)\n"
    code += "    assert 'torch' not in sys.modules, name"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
