"""What LiteRT runs for a .tflite file on a processor, by rules.

XNNPACK takes the operators that it knows (`split_xnnpack`), in as few pieces as their order
allows, and fuses some; the interpreter's own kernels run the rest. The rules were found with small
probe graphs, and hold for what LiteRT's own profile names there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from ...devices.per_op import OperationTimes
from ..kernels import Kernel
from .tflite import IMAGE_RANK, Operator, TfliteGraph
from .tflite_kernels import clamp_kernel, operator_kernel
from .xnnpack import (
    CLAMPS,
    EIGHT_BITS,
    FOLDS_CLAMP,
    RESHAPE,
    SQUARE,
    TRANSPOSE,
    is_delegated,
    is_function,
    operator_name,
    variant,
)

REDUCED_SQUARES = {"Mean Reduce2": "Mean Squared Reduce2", "Sum Reduce2": "Normalize Reduce2"}
"""What a reduction of squares is called once the squaring is a part of it."""


TABLE = "Invalid Unary Op"
"""What XNNPACK calls a table that it looks 8-bit values up in."""


@dataclass(frozen=True, slots=True)
class RuntimeKernel:
    """A kernel and what the runtime calls it, element types left out."""

    name: str
    kernel: Kernel


def litert_kernels(graph: TfliteGraph, *, xnnpack: bool = True) -> tuple[RuntimeKernel, ...]:
    """The kernels in the order they run; without `xnnpack` the interpreter runs all of them."""
    delegated = [xnnpack and is_delegated(operator) for operator in graph.operators]
    kernels: list[RuntimeKernel] = []
    for piece in _pieces(graph, delegated):
        if delegated[piece[0]]:
            kernels += _Piece(graph, piece).kernels()
            continue
        for number in piece:
            operator = graph.operators[number]
            kernel = operator_kernel(operator)
            layout = kernel.layout if kernel.layout == "view" else "builtin"
            kernels.append(RuntimeKernel(operator.kind, replace(kernel, layout=layout)))
    return tuple(kernels)


def joined_kernels(kernels: Sequence[RuntimeKernel], times: OperationTimes) -> tuple[Kernel, ...]:
    """The kernel of each operation in `times`, in that order.

    Where the rules and the runtime disagree the runtime is right: what only it names becomes an
    element-wise kernel of that name, of which nothing more is known.
    """
    expected = [item.name for item in kernels]
    ran = [item.kind for item in times.operations]
    found = [Kernel("elementwise", name, 0, 0, 0, 0) for name in ran]
    matcher = SequenceMatcher(a=expected, b=ran, autojunk=False)
    for first, second, length in matcher.get_matching_blocks():
        for step in range(length):
            found[second + step] = kernels[first + step].kernel
    return tuple(found)


def _pieces(graph: TfliteGraph, delegated: Sequence[bool]) -> list[list[int]]:
    """Operators in pieces that run one after the other, each all delegated or all not.

    As TensorFlow Lite does: a piece takes, in order, every operator of its kind whose inputs are
    ready, until there is none left.
    """
    missing = {tensor.index for item in graph.operators for tensor in item.outputs}
    left = list(range(len(graph.operators)))
    pieces: list[list[int]] = []
    while left:
        piece: list[int] = []
        for number in left:
            operator = graph.operators[number]
            if piece and delegated[number] != delegated[piece[0]]:
                continue
            if any(tensor.index in missing for tensor in operator.read()):
                continue
            piece.append(number)
            missing -= {tensor.index for tensor in operator.outputs}
        if not piece:  # a cycle, which no interpreter would load
            return pieces
        pieces.append(piece)
        left = [number for number in left if number not in set(piece)]
    return pieces


class _Piece:
    """One piece that XNNPACK runs: its operators one by one, with its fusions."""

    def __init__(self, graph: TfliteGraph, numbers: Sequence[int]) -> None:
        self._graph = graph
        self._order = numbers
        self._here = set(numbers)
        self._consumers = graph.consumers()
        self._found: list[RuntimeKernel | None] = []
        self._made_by: dict[int, int] = {}
        """For each tensor's number, the place of the kernel that makes it."""
        self._functions: dict[int, int] = {}
        """The places of kernels that are functions of one 8-bit value, and what they read."""
        self._folded: dict[int, Operator] = {}
        """Operators that are part of a later one, by the tensor that they would make."""

    def kernels(self) -> list[RuntimeKernel]:
        """The kernels of the piece."""
        for number in self._order:
            operator = self._graph.operators[number]
            if self._folds_downstream(operator):
                self._folded[operator.outputs[0].index] = operator
                continue
            if not self._folds_upstream(operator):
                self._add(operator)
        return [kernel for kernel in self._found if kernel is not None]

    def _add(self, operator: Operator) -> None:
        """Append the kernels of an operator that is not part of another one."""
        operator = self._with_folded(operator)
        name, kernel = operator_name(operator), operator_kernel(operator)
        kernel = replace(kernel, layout=variant(operator) or kernel.layout)
        squares = self._squares(operator)
        if name in REDUCED_SQUARES and squares is not None:
            name, kernel = REDUCED_SQUARES[name], replace(kernel, flops=2 * kernel.flops)
            kernel = replace(kernel, operation=f"Square+{kernel.operation}")
            if self._only_consumer(operator.read()[0].index) is not None:
                self._found[squares] = None
        before, after = _around(operator)
        if is_function(operator):
            self._functions[len(self._found)] = operator.read()[0].index
        self._found += [*before, RuntimeKernel(name, kernel), *after]
        for tensor in operator.outputs:
            self._made_by[tensor.index] = len(self._found) - 1

    def _becomes_table(self, operator: Operator) -> bool:
        """Whether a chain of functions of 8-bit values becomes one look-up in a table; does so.

        `x * sigmoid(x)` is one too. The table stands where the last function stood.
        """
        place = self._function_before(operator)
        before = None if place is None else self._found[place]
        if place is None or before is None:
            return False
        operation = f"{before.kernel.operation}+{operator_kernel(operator).operation}"
        kernel = replace(before.kernel, operation=operation, layout="table")
        self._found[place] = None
        self._functions[len(self._found)] = self._functions[place]
        self._made_by[operator.outputs[0].index] = len(self._found)
        self._found.append(RuntimeKernel(TABLE, kernel))
        return True

    def _function_before(self, operator: Operator) -> int | None:
        """The place of the function that an 8-bit one is applied to; `None` for anything else."""
        if is_function(operator):
            tensor = operator.read()[0].index
            alone = tensor in self._made_by and self._only_consumer(tensor) is not None
            place = self._made_by[tensor] if alone else None
            return place if place in self._functions else None
        if operator.kind == "MUL" and operator.outputs[0].dtype in EIGHT_BITS:
            for gate, value in (operator.inputs, operator.inputs[::-1]):
                if gate is None or value is None or self._only_consumer(gate.index) is None:
                    continue
                place = self._made_by.get(gate.index)
                if place is not None and self._functions.get(place) == value.index:
                    return place
        return None

    def _folds_upstream(self, operator: Operator) -> bool:
        """Whether the operator becomes a part of the one before; does so."""
        if self._becomes_table(operator):
            return True
        if operator.kind not in CLAMPS and operator.kind != "RESHAPE":
            return False
        source = operator.read()[0].index if operator.read() else None
        place = None if source is None else self._made_by.get(source)
        before = None if place is None else self._found[place]
        if source is None or place is None or before is None:
            return False
        if self._only_consumer(source) is None:
            return False
        kernel = before.kernel
        if operator.kind in CLAMPS and before.name in FOLDS_CLAMP:
            operation = f"{kernel.operation}+{operator_kernel(operator).operation}"
            flops = kernel.flops + operator.outputs[0].elements
            kernel = replace(kernel, operation=operation, flops=flops)
        elif operator.kind != "RESHAPE" or before.name != RESHAPE:
            return False
        self._found[place] = RuntimeKernel(before.name, kernel)
        self._made_by[operator.outputs[0].index] = place
        return True

    def _folds_downstream(self, operator: Operator) -> bool:
        """Whether the operator becomes a part of the one that reads its output."""
        if operator.kind not in ("PAD", "TRANSPOSE"):
            return False
        output = operator.outputs[0]
        consumer = self._only_consumer(output.index)
        if consumer is None:
            return False
        if operator.kind == "TRANSPOSE":
            order = _constant(operator, 1)
            swapped = (*range(len(order) - 2), len(order) - 1, len(order) - 2)
            second = consumer.inputs[1] if consumer.kind == "BATCH_MATMUL" else None
            return order == swapped and second is not None and second.index == output.index
        padding = _constant(operator, 1)
        image = len(output.shape) == IMAGE_RANK
        return (
            image
            and padding[:2] == (0, 0)
            and padding[6:] == (0, 0)
            and operator_name(consumer).startswith("Convolution")
        )

    def _with_folded(self, operator: Operator) -> Operator:
        """The operator as if it read what the operators folded into it read."""
        inputs = tuple(
            self._folded[tensor.index].inputs[0]
            if tensor is not None and tensor.index in self._folded
            else tensor
            for tensor in operator.inputs
        )
        if inputs == operator.inputs:
            return operator
        return replace(operator, inputs=inputs, padded=operator.kind != "BATCH_MATMUL")

    def _squares(self, operator: Operator) -> int | None:
        """The place of the squaring whose result the operator reads; `None` for another source."""
        read = operator.read()
        place = self._made_by.get(read[0].index) if read else None
        before = None if place is None else self._found[place]
        return place if before is not None and before.name == SQUARE else None

    def _only_consumer(self, tensor: int) -> Operator | None:
        """The one operator that reads a tensor, in this piece; `None` for more, or an output."""
        readers = self._consumers.get(tensor, [])
        if len(readers) != 1 or tensor in self._graph.outputs or readers[0] not in self._here:
            return None
        return self._graph.operators[readers[0]]


def _around(operator: Operator) -> tuple[list[RuntimeKernel], list[RuntimeKernel]]:
    """Kernels that XNNPACK adds before and after an operator's own."""
    before, after = [], []
    if operator.kind == "FULLY_CONNECTED" and not operator.option("keepNumDims", False):
        before.append(_moved(operator, RESHAPE, "Reshape"))
    if operator.kind == "BATCH_MATMUL" and operator.option("adjX", False):
        before.append(_moved(operator, TRANSPOSE, "Transpose"))
    if operator.kind in ("ADD", "SUB", "MUL", "DIV") and operator.activation in CLAMPS:
        after.append(RuntimeKernel("Clamp", clamp_kernel(operator)))
    return before, after


def _moved(operator: Operator, name: str, operation: str) -> RuntimeKernel:
    """A copy of an operator's first input."""
    source = operator.read()[0]
    kernel = Kernel(
        kind="copy",
        operation=operation,
        flops=0,
        weight_bytes=0,
        input_bytes=source.size_bytes,
        output_bytes=source.size_bytes,
        layout="strided" if operation == "Transpose" else "",
    )
    return RuntimeKernel(name, kernel)


def _constant(operator: Operator, place: int) -> tuple[int, ...]:
    tensor = operator.inputs[place]
    return () if tensor is None else tensor.values
