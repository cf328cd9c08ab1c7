"""An ONNX graph as a translation reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import helper

from ..errors import UsageError

Array = NDArray[Any]
Shape = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Node:
    """An ONNX node; inputs that it leaves out are empty names."""

    proto: onnx.NodeProto
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def op(self) -> str:
        """Operator type."""
        return self.proto.op_type

    @cached_property
    def attributes(self) -> Mapping[str, Any]:
        """Attributes by name, as plain Python values."""
        return {item.name: helper.get_attribute_value(item) for item in self.proto.attribute}

    def __str__(self) -> str:
        return f"node {self.proto.name or self.proto.output[0]!r} ({self.op})"


@dataclass(frozen=True)
class Graph:
    """What a translation reads: nodes in the order they run, constants, and all values' shapes."""

    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Array]
    shapes: Mapping[str, Shape]

    @cached_property
    def readers(self) -> Mapping[str, Sequence[Node]]:
        """The nodes that read a value, once for each time they do."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                readers.setdefault(name, []).append(node)
        return readers

    @cached_property
    def sources(self) -> Mapping[str, Node]:
        """The node that gives a value."""
        return {name: node for node in self.nodes for name in node.outputs}

    def only_reader(self, name: str) -> Node | None:
        """The one node that reads a value; `None` if there are more, or the model returns it."""
        readers = self.readers.get(name, ())
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def shape(self, name: str) -> Shape:
        """Shape of a value as ONNX has it. Raises `UsageError` where it isn't known."""
        if name in self.constants:
            return self.constants[name].shape
        if name not in self.shapes:
            raise UsageError(
                f"the shape of {name!r} in the ONNX model can't be inferred; export the model "
                "with fixed input shapes"
            )
        return self.shapes[name]
