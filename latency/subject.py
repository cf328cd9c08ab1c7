"""What can be timed: a block, a network or a model file, as JSON and as an .onnx file."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from ..devices.errors import UsageError
from ..devices.files import write_atomically
from .blocks import BLOCK_KINDS, Block
from .network import Network, NetworkNode
from .onnx_model import build_onnx, parameter_shapes, subject_graph

ONNX_SIZE_LIMIT = 2**31
"""Bytes that a protobuf message, and so an .onnx file, can hold."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model that the user gave as a file: .onnx, or .tflite. Its content is its identity."""

    path: Path
    sha256: str

    @classmethod
    def read(cls, path: Path) -> ModelFile:
        """The model file at `path`; `UsageError` where there is none."""
        return cls(path.absolute(), _file_sha256(path))

    @property
    def key(self) -> str:
        """Identity of the model, equal exactly for equal contents."""
        return f"file:{self.sha256}"


Subject = Block | Network | ModelFile

SubjectType = TypeVar("SubjectType", Block, ModelFile)


def subject_id(subject: Subject) -> str:
    """What a subject's measurements are filed under, equal exactly for equal subjects."""
    return subject.key


def subject_label(subject: Subject) -> str:
    """A short name to show: a file's name, a block without what is as by default."""
    match subject:
        case ModelFile():
            return subject.path.name
        case Network():
            return subject.key
        case Block():
            values = ((item, getattr(subject, item.name)) for item in fields(subject))
            shown = (f"{item.name}={value}" for item, value in values if value != item.default)
            return f"{type(subject).__name__}({', '.join(shown)})"


def subject_to_json(subject: Subject) -> dict[str, Any]:
    """The subject as plain JSON values; `kind` says what it is."""
    match subject:
        case ModelFile():
            return {"kind": "ModelFile", "path": str(subject.path), "sha256": subject.sha256}
        case Network():
            nodes = [
                {"block": subject_to_json(node.block), "inputs": list(node.inputs)}
                for node in subject.nodes
            ]
            return {"kind": "Network", "input_shape": list(subject.input_shape), "nodes": nodes}
        case Block():
            return {"kind": type(subject).__name__, **asdict(subject)}


def subject_from_json(data: Any, where: str = "subject") -> Subject:
    """Read what `subject_to_json` gave.

    Raises `UsageError` that begins with `where`, and names the field, for an unknown kind, an
    unknown or missing field, or a value that the field can't have.
    """
    kind = _take(data, "kind", where)
    if kind == "ModelFile":
        return _validated(ModelFile, data, where)
    if kind == "Network":
        return _network(data, where)
    return block_from_json(data, where)


def block_from_json(data: Any, where: str = "block") -> Block:
    """Read one block, `{"kind": "MBConv", "in_channels": 16, ...}`; errors as `subject_from_json`.

    The kinds are those of `BLOCK_KINDS`.
    """
    kind = _take(data, "kind", where)
    if not isinstance(kind, str) or kind not in BLOCK_KINDS:
        raise UsageError(
            f'{where}: there is no kind of block {kind!r}. "kind" is one of '
            f"{', '.join(sorted(BLOCK_KINDS))}."
        )
    return _validated(BLOCK_KINDS[kind], data, f"{where} ({kind})")


def read_block_list(path: Path) -> list[Block]:
    """Read a file that holds a JSON list of blocks; `UsageError` names file, index and field."""
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is no JSON: {error}") from error
    if not isinstance(data, list) or not data:
        raise UsageError(f'{path}: a list of blocks, [{{"kind": "MBConv", ...}}, ...], is needed')
    return [block_from_json(item, f"{path}, block {index}") for index, item in enumerate(data)]


def write_model(subject: Subject, folder: Path) -> Path:
    """Write the subject's .onnx file, parameters random, into `folder`; return its path.

    The file is named by its content, so that equal models are written once, and a later builder
    never meets an earlier one's file. A `ModelFile` stays where it is; `UsageError` where it is
    gone or is not the file that it was.
    """
    if isinstance(subject, ModelFile):
        if _file_sha256(subject.path) != subject.sha256:
            raise UsageError(
                f"{subject.path} has changed since it was read (its sha256 was {subject.sha256})"
            )
        return subject.path
    shapes = parameter_shapes(subject_graph(subject)).values()
    size_bytes = 4 * sum(math.prod(shape) for shape in shapes)
    if size_bytes >= ONNX_SIZE_LIMIT:
        raise UsageError(
            f"{subject_label(subject)} has {size_bytes // 2**20} MiB of parameters, and an "
            "ONNX file holds 2 GiB at most. Give it fewer channels."
        )
    content = build_onnx(subject).SerializeToString(deterministic=True)
    path = folder / f"{hashlib.sha256(content).hexdigest()[:32]}.onnx"
    if not path.is_file() or path.read_bytes() != content:
        write_atomically(path, content)
    return path


def _network(data: Any, where: str) -> Network:
    where = f"{where} (Network)"
    _check_names(data, {"kind", "input_shape", "nodes"}, where)
    shape, nodes = _take(data, "input_shape", where), _take(data, "nodes", where)
    if not isinstance(nodes, list):
        raise UsageError(f"{where}: field nodes: a list is needed")
    built = []
    for index, node in enumerate(nodes):
        place = f"{where}, node {index}"
        _check_names(node, {"block", "inputs"}, place)
        block = block_from_json(_take(node, "block", place), place)
        inputs = _whole_numbers(_take(node, "inputs", place), f"{place}: field inputs")
        built.append(NetworkNode(block, inputs))
    try:
        return Network(_whole_numbers(shape, f"{where}: field input_shape"), tuple(built))
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _whole_numbers(values: Any, where: str) -> tuple[int, ...]:
    if not isinstance(values, list) or any(type(value) is not int for value in values):
        raise UsageError(f"{where}: a list of whole numbers is needed, not {values!r}")
    return tuple(values)


def _take(data: Any, name: str, where: str) -> Any:
    if not isinstance(data, Mapping):
        raise UsageError(f"{where}: an object with the fields of a block is needed, not {data!r}")
    if name not in data:
        raise UsageError(f"{where}: field {name} is missing")
    return data[name]


def _check_names(data: Any, known: set[str], where: str) -> None:
    if not isinstance(data, Mapping):
        raise UsageError(f"{where}: an object is needed, not {data!r}")
    for name in data:
        if name not in known:
            raise UsageError(
                f"{where}: there is no field {name}. The fields are {', '.join(sorted(known))}."
            )


_adapters: dict[type[Any], TypeAdapter[Any]] = {}


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def _validated(kind: type[SubjectType], data: Any, where: str) -> SubjectType:
    """Make a dataclass from its JSON fields, types checked strictly."""
    values = {name: value for name, value in data.items() if name != "kind"}
    _check_names(values, {item.name for item in fields(kind)}, where)
    try:
        made: SubjectType = _adapter(kind).validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        problems = (
            f"field {'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            for problem in error.errors(include_url=False)
        )
        raise UsageError(f"{where}: {'; '.join(problems)}") from error
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    return made


def _file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"can't read the model file {path}: {error.strerror}") from error
