"""Recognises functions that exporters write as several nodes, and makes one node of each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from onnx import helper

from .elementwise import is_hard_gate
from .graph import Graph, Node

TOLERANCE = 1e-4
"""By which share a constant may differ from the one that a function has."""


@dataclass(frozen=True)
class _Found:
    """Nodes that together are one operator of `source`; the last one gives `result`."""

    op: str
    source: str
    result: str
    nodes: tuple[Node, ...]
    attributes: tuple[tuple[str, Any], ...] = ()


def simplify(graph: Graph) -> Graph:
    """The same graph with Gelu, HardSigmoid, HardSwish and Mish where nodes add up to them."""
    absorbed: set[Node] = set()
    replacements: dict[Node, Node] = {}
    for seed in graph.nodes:
        for found in _candidates(graph, seed):
            if absorbed.isdisjoint(found.nodes) and _is_closed(graph, found):
                absorbed.update(found.nodes)
                replacements[graph.sources[found.result]] = _node(found)
                break
    if not absorbed:
        return graph
    kept = (replacements.get(node, node) for node in graph.nodes)
    nodes = tuple(node for node in kept if node not in absorbed)
    return simplify(replace(graph, nodes=nodes))


def _node(found: _Found) -> Node:
    name = found.nodes[0].proto.name
    proto = helper.make_node(found.op, [found.source], [found.result], name=name)
    proto.attribute.extend(helper.make_attribute(*item) for item in found.attributes)
    return Node(proto, (found.source,), (found.result,))


def _is_closed(graph: Graph, found: _Found) -> bool:
    """Whether nothing else reads what lies between the source and the result."""
    inner = {name for node in found.nodes for name in node.outputs} - {found.result}
    readers = (reader for name in inner for reader in graph.readers.get(name, ()))
    return inner.isdisjoint(graph.outputs) and set(found.nodes).issuperset(readers)


def _candidates(graph: Graph, seed: Node) -> Iterator[_Found]:
    if seed.op == "Erf":
        yield from _error_function_gelu(graph, seed)
    elif seed.op == "Tanh":
        yield from _tanh_gelu(graph, seed)
        yield from _mish(graph, seed)
    elif seed.op == "Clip":
        yield from _hard_swish(graph, seed)
    elif seed.op == "HardSigmoid" and is_hard_gate(seed):
        for product in _products(graph, seed.outputs[0], seed.inputs[0]):
            if product.with_source and _close(product.factor, 1):
                nodes = (seed, *product.nodes)
                yield _Found("HardSwish", seed.inputs[0], product.result, nodes)


def _error_function_gelu(graph: Graph, seed: Node) -> Iterator[_Found]:
    """x (1 + erf(x / sqrt 2)) / 2 (Hendrycks and Gimpel 2016)."""
    scaled, added = _scaled(graph, seed.inputs[0]), _plus(graph, seed.outputs[0], 1)
    if scaled is None or added is None or not _close(scaled.factor, math.sqrt(0.5)):
        return
    for product in _products(graph, added.outputs[0], scaled.source):
        if product.with_source and _close(product.factor, 0.5):
            nodes = (*scaled.nodes, seed, added, *product.nodes)
            yield _Found("Gelu", scaled.source, product.result, nodes)


def _tanh_gelu(graph: Graph, seed: Node) -> Iterator[_Found]:
    """x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, the same approximately."""
    outer, added = _scaled(graph, seed.inputs[0]), _plus(graph, seed.outputs[0], 1)
    if outer is None or added is None or not _close(outer.factor, math.sqrt(2 / math.pi)):
        return
    total = graph.sources.get(outer.source)
    if total is None or total.op != "Add":
        return
    for source, term in (total.inputs, total.inputs[::-1]):
        cubic = _scaled(graph, term)
        cube = cubic and _cube(graph, cubic.source, source)
        if not cubic or not cube or not _close(cubic.factor, 0.044715):
            continue
        for product in _products(graph, added.outputs[0], source):
            if product.with_source and _close(product.factor, 0.5):
                before = (*cube, *cubic.nodes, total, *outer.nodes, seed, added)
                nodes, kind = (*before, *product.nodes), (("approximate", "tanh"),)
                yield _Found("Gelu", source, product.result, nodes, kind)


def _cube(graph: Graph, name: str, source: str) -> tuple[Node, ...]:
    """The nodes that make `name` the third power of `source`; none if it isn't."""
    node = graph.sources.get(name)
    if node is None:
        return ()
    if node.op == "Pow" and node.inputs[0] == source:
        return (node,) if _number(graph, node.inputs[1]) == 3 else ()
    if node.op != "Mul" or source not in node.inputs:
        return ()
    other = node.inputs[1] if node.inputs[0] == source else node.inputs[0]
    square = graph.sources.get(other)
    if square is None:
        return ()
    power = square.op == "Pow" and square.inputs[0] == source
    if power and _number(graph, square.inputs[1]) == 2:
        return (square, node)
    return (square, node) if square.op == "Mul" and set(square.inputs) == {source} else ()


def _mish(graph: Graph, seed: Node) -> Iterator[_Found]:
    """x tanh(log(1 + exp x)) (Misra 2020)."""
    inner = graph.sources.get(seed.inputs[0])
    if inner is None or inner.op != "Softplus":
        return
    for product in _products(graph, seed.outputs[0], inner.inputs[0]):
        if product.with_source and _close(product.factor, 1):
            yield _Found("Mish", inner.inputs[0], product.result, (inner, seed, *product.nodes))


def _hard_swish(graph: Graph, seed: Node) -> Iterator[_Found]:
    """relu6(x + 3) / 6, with x or without (Howard et al. 2019, section 5.2)."""
    added = graph.sources.get(seed.inputs[0])
    bounds = [_setting(graph, seed, *item) for item in (("min", 1), ("max", 2))]
    if bounds != [0, 6] or added is None or added.op != "Add":
        return
    for source, term in (added.inputs, added.inputs[::-1]):
        if _number(graph, term) != 3:
            continue
        found = list(_products(graph, seed.outputs[0], source))
        for product in reversed(found):
            if _close(product.factor, 1 / 6):
                op = "HardSwish" if product.with_source else "HardSigmoid"
                kind = () if product.with_source else (("alpha", 1 / 6), ("beta", 0.5))
                yield _Found(op, source, product.result, (added, seed, *product.nodes), kind)


@dataclass(frozen=True)
class _Product:
    """A value times a number, and, `with_source`, times another value once."""

    factor: float
    source: str
    result: str
    nodes: tuple[Node, ...]
    with_source: bool = False


def _products(graph: Graph, value: str, source: str) -> Iterator[_Product]:
    """What becomes of a value as it is multiplied by numbers and at most once by `source`."""
    product = _Product(1.0, source, value, ())
    while True:
        reader = graph.only_reader(product.result)
        if reader is None or reader.op not in ("Mul", "Div"):
            return
        others = [name for name in reader.inputs if name != product.result]
        if len(others) != 1 or (reader.op == "Div" and reader.inputs[0] != product.result):
            return
        number, nodes = _number(graph, others[0]), (*product.nodes, reader)
        product = replace(product, result=reader.outputs[0], nodes=nodes)
        if number is not None and number != 0:
            factor = number if reader.op == "Mul" else 1 / number
            product = replace(product, factor=product.factor * factor)
        elif reader.op == "Mul" and not product.with_source:
            scaled = _scaled(graph, others[0])
            if others[0] == source:
                product = replace(product, with_source=True)
            elif scaled is not None and scaled.source == source:
                product = replace(
                    product,
                    factor=product.factor * scaled.factor,
                    nodes=(*scaled.nodes, *nodes),
                    with_source=True,
                )
            else:
                return
        else:
            return
        yield product


def _scaled(graph: Graph, name: str) -> _Product | None:
    """The value and the number whose product or quotient a value is."""
    node = graph.sources.get(name)
    if node is None or node.op not in ("Mul", "Div"):
        return None
    pairs: Iterable[tuple[str, ...]] = (node.inputs, node.inputs[::-1])
    for source, other in list(pairs)[: 1 if node.op == "Div" else 2]:
        number = _number(graph, other)
        if number is not None and number != 0:
            return _Product(number if node.op == "Mul" else 1 / number, source, name, (node,))
    return None


def _plus(graph: Graph, name: str, number: float) -> Node | None:
    """The one node that reads a value, if it adds this number to it."""
    node = graph.only_reader(name)
    if node is None or node.op != "Add":
        return None
    return node if number in [_number(graph, item) for item in node.inputs] else None


def _number(graph: Graph, name: str) -> float | None:
    constant = graph.constants.get(name)
    return float(constant.reshape(())) if constant is not None and constant.size == 1 else None


def _setting(graph: Graph, node: Node, attribute: str, index: int) -> float | None:
    if attribute in node.attributes:
        return float(node.attributes[attribute])
    return _number(graph, node.inputs[index]) if index < len(node.inputs) else None


def _close(number: float, wanted: float) -> bool:
    return math.isclose(number, wanted, rel_tol=TOLERANCE)
