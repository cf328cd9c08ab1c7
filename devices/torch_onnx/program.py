"""Runs an ONNX graph with torch: every node becomes a call on tensors. Needs torch to be imported.

Shapes are fixed. What depends on constants and shapes alone is computed once, when the graph is
translated; nodes are neither fused nor reordered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
import torch
from onnx import numpy_helper, version_converter
from torch import Tensor

from ..errors import UsageError
from .node import Call, Node
from .ops import call_of

OLDEST_OPSET = 13
"""Older graphs are converted to this version first: since then most constants are inputs."""


@dataclass(frozen=True, slots=True)
class _Step:
    """One call: the values that it reads (`""`: left out) and gives, and those used up after it."""

    call: Call
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    used_up: tuple[str, ...] = ()

    def results(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        given = self.call(*[values[name] if name else None for name in self.inputs])
        several = given if isinstance(given, tuple | list) else (given,)
        return {name: value for name, value in zip(self.outputs, several, strict=False) if name}


class TorchProgram:
    """A translated graph: calling it with the inputs, in the graph's order, gives the outputs.

    An intermediate value is let go after its last use, as in a network written in torch.
    """

    def __init__(
        self,
        inputs: Sequence[str],
        outputs: Sequence[str],
        constants: Mapping[str, Tensor],
        steps: Sequence[_Step],
    ) -> None:
        self._inputs = tuple(inputs)
        self._outputs = tuple(outputs)
        self._constants = dict(constants)
        self._steps = tuple(steps)

    @property
    def operations(self) -> int:
        """How many operations a run executes."""
        return len(self._steps)

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Run the graph once; inputs must be on the device that it was translated for."""
        values = {**self._constants, **dict(zip(self._inputs, inputs, strict=True))}
        for step in self._steps:
            values.update(step.results(values))
            for name in step.used_up:
                del values[name]
        return [values[name] for name in self._outputs]


def translate(model: onnx.ModelProto, inputs: Sequence[Tensor], device: str) -> TorchProgram:
    """Translate a graph for inputs of these shapes and types, with its constants on `device`.

    Runs nothing on the device: shapes come from a pass over tensors without data. Raises
    `UsageError` where the graph uses what is not known here, or does not fit the inputs.
    """
    graph = _recent(model).graph
    constants = {
        item.name: torch.from_numpy(numpy_helper.to_array(item).copy())
        for item in graph.initializer
    }
    names = [item.name for item in graph.input if item.name not in constants]
    # Values without data, on the device `meta`, tell shapes and types; constants are on the host.
    values = dict(zip(names, (value.to("meta") for value in inputs), strict=True))
    steps: list[_Step] = []
    for proto in graph.node:
        node = Node(proto, constants)
        step = _Step(call_of(node), node.inputs, node.outputs)
        try:
            if all(name in constants for name in node.inputs if name):
                constants.update(step.results(constants))
            elif node.kind == "Shape":
                constants.update(step.results(values))
            else:
                read = {
                    name: constants[name].to("meta") for name in node.inputs if name in constants
                }
                values.update(step.results(values | read))
                steps.append(step)
        except (RuntimeError, TypeError, KeyError, IndexError) as error:
            raise node.refused(f"{type(error).__name__}: {error}") from error
    outputs = [item.name for item in graph.output]
    read_names = {name for step in steps for name in step.inputs}.union(outputs)
    on_device = {name: constants[name].to(device) for name in read_names & constants.keys()}
    return TorchProgram(names, outputs, on_device, _with_last_uses(steps, outputs))


def _recent(model: onnx.ModelProto) -> onnx.ModelProto:
    version = next((item.version for item in model.opset_import if not item.domain), 0)
    if version >= OLDEST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, OLDEST_OPSET)
    except Exception as error:
        raise UsageError(
            f"the model's opset {version} can't be converted to {OLDEST_OPSET} ({error}); export "
            "it again with a newer one, or use the runtime onnxruntime"
        ) from error


def _with_last_uses(steps: Sequence[_Step], outputs: Sequence[str]) -> list[_Step]:
    """The same steps, each with the values that no later one reads."""
    kept, finished = set(outputs), []
    computed = {name for step in steps for name in step.outputs if name}
    for step in reversed(steps):
        ending = {name for name in (*step.inputs, *step.outputs) if name in computed} - kept
        kept |= ending
        finished.append(_Step(step.call, step.inputs, step.outputs, tuple(sorted(ending))))
    return finished[::-1]
