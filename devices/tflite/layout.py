"""How an ONNX value lies in a stored tensor, and what reshapes and transpositions do to that.

ONNX keeps images as NCHW, TFLite as NHWC, so a value's axes may be stored in another order. A
reshape or a transposition of a value needs no operator as long as nobody asks for its elements in
a certain order: a `View` describes the result on the tensor that is there. Only what an operator
really asks for is then moved, a whole chain of reshapes and transpositions at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .graph import Shape

Order = tuple[int, ...]
"""The ONNX axes of a value in the order in which they are stored, outermost first."""

IMAGE_RANK = 4
NHWC: Order = (0, 2, 3, 1)


@dataclass(frozen=True)
class View:
    """An ONNX value as it lies in a tensor.

    The tensor's elements form a grid of `atoms`, the sizes from the outermost to the innermost,
    none of them 1. Each ONNX axis is made of atoms: `axes` has their indices, outermost first.
    """

    tensor: int
    stored: Shape
    """The tensor's own shape, in the file."""
    atoms: Shape
    axes: tuple[tuple[int, ...], ...]

    @property
    def shape(self) -> Shape:
        """The value's shape in ONNX."""
        return tuple(math.prod(self.atoms[atom] for atom in axis) for axis in self.axes)

    def sequence(self, order: Sequence[int]) -> list[int]:
        """The atoms in the order that they have if the axes are stored in this one."""
        return [atom for axis in order for atom in self.axes[axis]]

    def lies_in(self, order: Sequence[int]) -> bool:
        """Whether the elements lie as they do if the axes are stored in this order."""
        return self.sequence(order) == list(range(len(self.atoms)))

    def stored_in(self, order: Sequence[int]) -> bool:
        """Whether, besides, the tensor has the axes' sizes in this order as its shape."""
        return self.lies_in(order) and self.stored == tuple(self.shape[axis] for axis in order)

    def transposed(self, axes: Sequence[int]) -> View:
        """The view of the transposed value."""
        return replace(self, axes=tuple(self.axes[axis] for axis in axes))

    def reshaped(self, shape: Shape) -> View | None:
        """The view of the reshaped value; `None` if its axes would cut atoms where they can't."""
        whole = self._merged()
        atoms = list(whole.atoms)
        waiting = list(whole.sequence(range(len(whole.axes))))
        axes: list[tuple[int, ...]] = []
        for size in shape:
            axis: list[int] = []
            while size > 1:
                atom = waiting.pop(0)
                if atoms[atom] > size:
                    if atoms[atom] % size:
                        return None
                    # the atom's outer part belongs to this axis, its inner one to the next
                    atoms[atom : atom + 1] = [size, atoms[atom] // size]
                    waiting = [index + (index > atom) for index in waiting]
                    axes = [tuple(index + (index > atom) for index in done) for done in axes]
                    axis = [index + (index > atom) for index in axis]
                    waiting.insert(0, atom + 1)
                elif size % atoms[atom]:
                    return None
                axis.append(atom)
                size //= atoms[atom]
            axes.append(tuple(axis))
        return replace(whole, atoms=tuple(atoms), axes=tuple(axes))

    def _merged(self) -> View:
        """The same with each run of atoms that lie as ONNX has them made one; axes are lost."""
        runs = _runs(self.sequence(range(len(self.axes))))
        starts = sorted(run[0] for run in runs)
        sizes = {run[0]: math.prod(self.atoms[atom] for atom in run) for run in runs}
        axis = tuple(starts.index(run[0]) for run in runs)
        return replace(self, atoms=tuple(sizes[start] for start in starts), axes=(axis,))


@dataclass(frozen=True)
class Move:
    """Operators that bring a view into an order: reshape, transpose, reshape, each if needed."""

    before: Shape | None
    axes: tuple[int, ...]
    between: Shape
    """The transposition's result."""
    after: Shape | None


def view_of(tensor: int, shape: Shape, order: Order) -> View:
    """The view of a value of an ONNX shape whose axes are stored in an order."""
    kept = [axis for axis in order if shape[axis] > 1]
    axes = tuple((kept.index(axis),) if axis in kept else () for axis in range(len(shape)))
    stored = tuple(shape[axis] for axis in order)
    return View(tensor, stored, tuple(shape[axis] for axis in kept), axes)


def move(view: View, order: Order) -> Move:
    """How to bring a view into an order, with as few operators as can be."""
    target = tuple(view.shape[axis] for axis in order)
    runs_of_axes = [_runs(view.axes[axis]) for axis in order]
    runs = [run for runs in runs_of_axes for run in runs]
    lying = sorted(runs)
    sizes = [math.prod(view.atoms[atom] for atom in run) for run in lying]
    # the places in the target, one after the other, of what lies there as one piece
    places = [lying.index(run) for run in runs]
    own = _pieces(view.stored, sizes)
    if own is not None:
        ones = [place for place, size in enumerate(view.stored) if size == 1]
        moved = [place for piece in places for place in own[piece]]
        between = [view.stored[place] for place in moved]
        if between == [size for size in target if size > 1] and len(target) == len(view.stored):
            axes = _with_ones(target, moved, ones)
            return Move(None, axes, target, None)
        axes = (*ones, *moved)
        return Move(None, axes, tuple(view.stored[axis] for axis in axes), target)
    if any(len(runs) > 1 for runs in runs_of_axes):
        return Move(tuple(sizes), tuple(places), tuple(sizes[place] for place in places), target)
    missing = target.count(1)
    axes = _with_ones(target, [missing + place for place in places], list(range(missing)))
    return Move((1,) * missing + tuple(sizes), axes, target, None)


def _pieces(stored: Shape, sizes: Sequence[int]) -> list[list[int]] | None:
    """The dimensions of a tensor that make up each size; `None` where one is cut."""
    waiting = [place for place, size in enumerate(stored) if size > 1]
    pieces = []
    for size in sizes:
        piece: list[int] = []
        while math.prod(stored[place] for place in piece) < size:
            piece.append(waiting.pop(0))
        if math.prod(stored[place] for place in piece) != size:
            return None
        pieces.append(piece)
    return pieces


def _with_ones(target: Shape, moved: Sequence[int], ones: Sequence[int]) -> tuple[int, ...]:
    """The dimension that each one of the target is: moved ones in turn, those of size 1 in turn."""
    filled, free = iter(moved), iter(ones)
    return tuple(next(free) if size == 1 else next(filled) for size in target)


def _runs(sequence: Sequence[int]) -> list[tuple[int, ...]]:
    """The atoms cut into runs that follow each other as they are stored."""
    runs: list[list[int]] = []
    for atom in sequence:
        if runs and runs[-1][-1] == atom - 1:
            runs[-1].append(atom)
        else:
            runs.append([atom])
    return [tuple(run) for run in runs]


def onnx_order(rank: int) -> Order:
    """The order in which ONNX has the axes."""
    return tuple(range(rank))


def outer_order(rank: int) -> Order:
    """How the model's own inputs and outputs are stored: images as NHWC, others as in ONNX."""
    return NHWC if rank == IMAGE_RANK else onnx_order(rank)


def lying_order(view: View) -> Order | None:
    """An order in which a view's axes are stored, in its tensor's own shape if it can be.

    `None` where an axis lies in pieces between others.
    """
    rank = len(view.axes)
    starts = {axis: atoms[0] for axis, atoms in enumerate(view.axes) if atoms}
    filled = iter(sorted(starts, key=starts.__getitem__))
    if len(view.stored) == rank:
        ones = iter(axis for axis in outer_order(rank) if axis not in starts)
        own = [next(ones if size == 1 else filled, -1) for size in view.stored]
        if -1 not in own and view.stored_in(own):
            return tuple(own)
        filled = iter(sorted(starts, key=starts.__getitem__))
    plain = tuple(axis for axis in range(rank) if axis not in starts) + tuple(filled)
    for order in (outer_order(rank), onnx_order(rank), plain):
        if view.lies_in(order):
            return order
    return None


def nearest_order(view: View) -> Order:
    """The order to move a view in pieces to: an image's if channels are innermost, else ONNX's."""
    rank = len(view.axes)
    if rank == IMAGE_RANK and len(view.atoms) - 1 in view.axes[1]:
        return NHWC
    return onnx_order(rank)


def widened(order: Order, rank: int) -> Order:
    """An order of fewer axes as one of `rank`: those that are missing come first."""
    missing = rank - len(order)
    return (*range(missing), *(axis + missing for axis in order))


def narrowed(order: Order, shape: Shape) -> Order:
    """An order of more axes as that of a value that is broadcast to them."""
    missing = len(order) - len(shape)
    return tuple(axis - missing for axis in order if axis >= missing)
