"""An ONNX node as its translation to torch sees it. Needs torch to be imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
from onnx import helper
from torch import Tensor

from ..errors import UsageError

Call = Callable[..., Any]
"""A node's inputs (`None`: left out) to its outputs."""


class Node:
    """An ONNX node: its attributes, and its inputs as far as they are constant."""

    def __init__(self, node: onnx.NodeProto, constants: Mapping[str, Tensor]) -> None:
        self.kind = node.op_type
        self.domain = node.domain
        self.name = node.name or ", ".join(node.output)
        self.inputs = tuple(node.input)
        self.outputs = tuple(node.output)
        self._constants = constants
        self._attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute; text is decoded."""
        value = self._attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def constant(self, index: int, default: Any = None) -> Any:
        """An input as plain numbers; `UsageError` where it depends on the data."""
        if index >= len(self.inputs) or not self.inputs[index]:
            return default
        if self.inputs[index] not in self._constants:
            raise self.refused(f"its input {self.inputs[index]} is not constant")
        return self._constants[self.inputs[index]].tolist()

    def axes(self) -> list[int] | None:
        """Axes: an attribute in older versions, the second input in newer ones."""
        axes: list[int] | None = self.attribute("axes")
        return self.constant(1) if axes is None else axes

    def require(self, name: str, *allowed: Any) -> None:
        """Refuse the node unless the attribute is absent or one of these."""
        value = self.attribute(name)
        if value is not None and value not in allowed:
            raise self.refused(f"{name} is {value}")

    def refused(self, why: str) -> UsageError:
        """The error for a node that can't be translated."""
        kind = f"{self.domain}.{self.kind}" if self.domain else self.kind
        return UsageError(
            f"the torch runtime can't run the operation {kind} that gives {self.name}: {why}. "
            "Use the runtime onnxruntime."
        )


def torch_pads(pads: Sequence[int]) -> list[int]:
    """ONNX's padding, all before and then all after, in torch's order: pairs from the last axis."""
    count = len(pads) // 2
    return [pads[axis + side * count] for axis in reversed(range(count)) for side in (0, 1)]
