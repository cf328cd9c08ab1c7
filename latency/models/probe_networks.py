"""Probe networks: random networks whose kernels teach a model predictor what kernels take.

Each is drawn whole from a seed: a pyramid of stages with the motifs of published networks
(latency/probe_blocks.py), or a transformer, with heads of classifiers, detectors and segmenters;
so kernels come in the shapes, and behind the neighbours, that they have in real networks. No
network of a benchmark takes part, as a whole or by its numbers.
"""

from __future__ import annotations

import math

import numpy as np
import onnx

from .probe_blocks import BLOCKS, BlockWriter, Draw, squeeze_excite
from .probe_graph import ProbeActivation, ProbeGraph, Value

GENERATOR = 1
"""Version of what a seed means: networks of another one are other networks."""

SIDES = (32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 299, 320)
"""Sides of the input image, in pixels."""

PRODUCTS = (10e6, 4e9)
"""Least and greatest multiply-accumulates of a network."""

MOST_WEIGHTS = 24_000_000
"""Weights of a network at most: what is drawn and written each time."""

DRAWS = 200
"""Draws until a network of that size comes out; about one in two does."""


def probe_name(seed: int) -> str:
    """What a probe network is filed under."""
    return f"probe:{GENERATOR}:{seed}"


def probe_network(seed: int) -> onnx.ModelProto:
    """The probe network of a seed, always the same; float32, one image, opset 17."""
    random = np.random.default_rng((GENERATOR, seed))
    low, high = PRODUCTS
    # Aim first, so that small networks are as frequent as large ones on a logarithmic scale.
    aim = float(np.exp(random.uniform(math.log(low), math.log(high))))
    best: tuple[float, ProbeGraph, list[Value]] | None = None
    for _ in range(DRAWS):
        graph, outputs = _draw_network(Draw(random))
        if graph.weights > MOST_WEIGHTS or not low <= graph.products <= high:
            continue
        miss = abs(math.log(graph.products / aim))
        if best is None or miss < best[0]:
            best = miss, graph, outputs
        if miss < math.log(2):
            break
    assert best is not None, "draws of all sizes occur"
    return best[1].model(best[2], seed)


def _draw_network(draw: Draw) -> tuple[ProbeGraph, list[Value]]:
    side = draw.choice(SIDES)
    graph = ProbeGraph((1, 3, side, side))
    if draw.chance(0.15):
        return graph, [_transformer(graph, draw)]
    act = draw.activation()
    levels = _pyramid(graph, draw, act)
    kind = draw.random.random()
    if kind < 0.3 and len(levels) > 1:
        return graph, [_segmenter(graph, draw, levels, act)]
    if kind < 0.45 and len(levels) > 2:
        return graph, _detector(graph, draw, levels, act)
    if kind < 0.6 and levels[-1].pixels * levels[-1].shape[3] <= 1024:
        return graph, [_classifier(graph, draw, _attended(graph, draw, levels[-1]), act)]
    return graph, [_classifier(graph, draw, levels[-1], act)]


def _pyramid(graph: ProbeGraph, draw: Draw, act: ProbeActivation) -> list[Value]:
    """Stem and stages; the last value of each stage, the largest image first."""
    width = draw.log_uniform(10, 72)
    value = graph.input
    if draw.chance(0.06) and not value.pixels % 2:
        value = _space_to_depth(graph, value)
    kernel = draw.choice((2, 3, 4, 5, 7), (0.05, 0.62, 0.05, 0.05, 0.23))
    stride = draw.choice((1, 2, 4), (0.15, 0.8, 0.05))
    value = graph.conv(
        value, draw.channels(width), max(kernel, stride), stride=stride, activation=act
    )
    if draw.chance(0.25) and value.pixels >= 32:
        value = graph.pool(value, "Max", draw.choice((2, 3)), 2)
    levels = []
    for stage in range(draw.choice((2, 3, 4, 5), (1, 2, 3, 2))):
        block = _block(draw)
        if stage:
            width *= draw.log_uniform(1.2, 2.3)
        out = draw.channels(width)
        shrinks = stage > 0 or draw.chance(0.3)
        for index in range(draw.choice((1, 2, 3))):
            stride = 2 if shrinks and index == 0 and value.pixels >= 6 else 1
            # A stage keeps its motif, as in published networks, but not its numbers.
            used = act if draw.chance(0.65) else draw.activation()
            value = block(graph, draw, value, out, stride, used)
        levels.append(value)
    return levels


def _space_to_depth(graph: ProbeGraph, value: Value) -> Value:
    """Every second pixel of every second row, four times (the focus of YOLOv5, Jocher 2020)."""
    side = value.pixels
    rows = [graph.slice(value, start, side, 2, 2) for start in (0, 1)]
    parts = [graph.slice(row, start, side, 3, 2) for start in (0, 1) for row in rows]
    return graph.concat(parts)


def _block(draw: Draw) -> BlockWriter:
    weights = np.array([weight for _, weight in BLOCKS])
    return BLOCKS[int(draw.random.choice(len(BLOCKS), p=weights / weights.sum()))][0]


def _classifier(graph: ProbeGraph, draw: Draw, value: Value, act: ProbeActivation) -> Value:
    if draw.chance(0.5):
        value = graph.conv(value, draw.channels(draw.log_uniform(128, 2048)), activation=act)
    if draw.chance(0.15):
        value = squeeze_excite(graph, draw, value)
    pooled = graph.global_pool(value, reduce=draw.chance(0.3))
    if draw.chance(0.5):
        features = graph.flatten(pooled)
    else:
        features = graph.reshape(pooled, (1, pooled.channels))
    if draw.chance(0.3):
        features = graph.linear(features, draw.channels(draw.log_uniform(64, 2048)), act)
    logits = graph.linear(features, _classes(draw))
    return graph.softmax(logits) if draw.chance(0.4) else logits


def _classes(draw: Draw) -> int:
    """ImageNet's thousand, or any number."""
    return 1000 if draw.chance(0.5) else round(draw.log_uniform(10, 2000))


def _segmenter(graph: ProbeGraph, draw: Draw, levels: list[Value], act: ProbeActivation) -> Value:
    """A decoder that grows back and takes the encoder's images in (U-Net, Ronneberger 2015)."""
    value = levels[-1]
    for skip in reversed(levels[:-1]):
        if skip.pixels % value.pixels or skip.pixels == value.pixels:
            continue
        value = _enlarged(graph, draw, value, skip.pixels // value.pixels)
        if value.shape[2:] == skip.shape[2:]:
            value = graph.concat([value, skip])
        kernel = draw.choice((1, 3), (0.2, 0.8))
        value = graph.conv(value, draw.channels(skip.channels), kernel, activation=act)
        if draw.chance(0.6):
            value = graph.conv(value, value.channels, 3, activation=act)
    if draw.chance(0.5) and value.pixels <= 112:
        value = _enlarged(graph, draw, value, 2)
    return graph.activation(
        graph.conv(value, draw.choice((1, 2, 8, 21))), "sigmoid" if draw.chance(0.5) else "none"
    )


def _enlarged(graph: ProbeGraph, draw: Draw, value: Value, factor: int) -> Value:
    if draw.chance(0.35):
        channels = draw.channels(value.channels / 2)
        kernel = factor if draw.chance(0.6) else 2 * factor
        return graph.conv_transpose(value, channels, kernel, factor)
    return graph.resize(value, factor, "nearest" if draw.chance(0.5) else "linear")


def _detector(
    graph: ProbeGraph, draw: Draw, levels: list[Value], act: ProbeActivation
) -> list[Value]:
    """Feature pyramid (Lin 2017) or plain levels, with heads for boxes and classes (Liu 2016)."""
    used = levels[-3:]
    if draw.chance(0.6):
        channels = draw.channels(draw.log_uniform(32, 160))
        merged = [graph.conv(used[-1], channels)]
        for level in reversed(used[:-1]):
            side = graph.conv(level, channels)
            factor = side.pixels // merged[0].pixels
            if factor > 1 and side.shape[2:] == tuple(factor * s for s in merged[0].shape[2:]):
                side = graph.add(side, graph.resize(merged[0], factor, "nearest"))
            merged.insert(0, graph.conv(side, channels, 3) if draw.chance(0.5) else side)
        used = merged
    anchors, classes = draw.choice((1, 3, 6)), round(draw.log_uniform(2, 90))
    separable = draw.chance(0.4)
    boxes: list[Value] = []
    scores: list[Value] = []
    for level in used:
        for found, each in ((boxes, 4), (scores, classes)):
            inner = level
            if separable:
                inner = graph.conv(inner, inner.channels, 3, groups=inner.channels, activation=act)
            elif draw.chance(0.5):
                inner = graph.conv(inner, inner.channels, 3, activation=act)
            inner = graph.conv(inner, anchors * each, 1 if separable else 3)
            count = anchors * math.prod(inner.shape[2:])
            last = graph.transpose(inner, (0, 2, 3, 1))
            found.append(graph.reshape(last, (1, count, each)))
    joined = [graph.concat(parts, axis=1) for parts in (boxes, scores)]
    ending = (
        graph.softmax(joined[1]) if draw.chance(0.4) else graph.activation(joined[1], "sigmoid")
    )
    return [joined[0], ending]


def _attended(graph: ProbeGraph, draw: Draw, value: Value) -> Value:
    """Self-attention over the pixels of a small image (MobileViT, Mehta 2022)."""
    channels, height, width = value.shape[1:]
    heads = draw.choice((1, 2, 4, 8))
    size = max(heads * 8, channels - channels % heads)
    if size != channels:
        value = graph.conv(value, size)
    rounds = draw.choice((1, 2))
    if draw.chance(0.5) and not height % 2 and not width % 2:
        return _attended_in_patches(graph, draw, value, heads, rounds)
    flat = graph.transpose(graph.reshape(value, (1, size, height * width)), (0, 2, 1))
    for _ in range(rounds):
        flat = _transformer_block(graph, draw, flat, heads)
    return graph.reshape(graph.transpose(flat, (0, 2, 1)), (1, size, height, width))


def _attended_in_patches(
    graph: ProbeGraph, draw: Draw, value: Value, heads: int, rounds: int
) -> Value:
    """Attention among pixels of the same place in 2x2 patches (MobileViT, section 3.1)."""
    size, height, width = value.shape[1:]
    rows, columns = height // 2, width // 2
    cut = graph.reshape(value, (size * rows, 2, columns, 2))
    cut = graph.reshape(graph.transpose(cut, (0, 2, 1, 3)), (1, size, rows * columns, 4))
    flat = graph.reshape(graph.transpose(cut, (0, 3, 2, 1)), (4, rows * columns, size))
    for _ in range(rounds):
        flat = _transformer_block(graph, draw, flat, heads)
    cut = graph.transpose(graph.reshape(flat, (1, 4, rows * columns, size)), (0, 3, 2, 1))
    cut = graph.reshape(cut, (size * rows, columns, 2, 2))
    return graph.reshape(graph.transpose(cut, (0, 2, 1, 3)), (1, size, height, width))


def _transformer(graph: ProbeGraph, draw: Draw) -> Value:
    """A vision transformer (Dosovitskiy 2021; DeiT, Touvron 2021) of 49 to 400 tokens."""
    heads = draw.choice((1, 2, 3, 4, 6, 8))
    size = heads * max(8, 8 * round(draw.log_uniform(64, 384) / heads / 8))
    side = graph.input.pixels
    patches = [patch for patch in (4, 8, 14, 16, 32) if 49 <= (side // patch) ** 2 <= 400]
    patch = draw.choice(tuple(patches or (max(1, side // 10),)))
    value = graph.conv(graph.input, size, patch, stride=patch, padded=False)
    tokens = math.prod(value.shape[2:])
    flat = graph.transpose(graph.reshape(value, (1, size, tokens)), (0, 2, 1))
    if draw.chance(0.6):
        flat = graph.concat([graph.learned((1, 1, size)), flat], axis=1)
    flat = graph.add(flat, graph.learned(flat.shape))
    for _ in range(draw.choice((1, 2, 3, 4))):
        flat = _transformer_block(graph, draw, flat, heads)
    flat = graph.layer_norm(flat)
    if draw.chance(0.5):
        features = graph.gather(flat, 0, axis=1)
    else:
        features = graph.reshape(graph.slice(flat, 0, 1), (1, size))
    return graph.linear(features, _classes(draw))


def _transformer_block(graph: ProbeGraph, draw: Draw, value: Value, heads: int) -> Value:
    """Attention and MLP, each behind a layer norm (Vaswani 2017; norm first, Xiong 2020)."""
    batch, tokens, size = value.shape
    each = size // heads
    normed = graph.layer_norm(value)
    if draw.chance(0.5):
        parts = graph.reshape(graph.linear(normed, 3 * size), (batch, tokens, 3, heads, each))
        parts = graph.transpose(parts, (2, 0, 3, 1, 4))
        if draw.chance(0.5):
            query, key, content = (graph.gather(parts, index) for index in range(3))
        else:
            query, key, content = map(graph.squeeze, graph.split(parts, [1] * 3, 0))
        key = graph.transpose(key, (0, 1, 3, 2))
    else:
        query, key, content = (
            graph.reshape(graph.linear(normed, size), (batch, tokens, heads, each))
            for _ in range(3)
        )
        query, content = (graph.transpose(item, (0, 2, 1, 3)) for item in (query, content))
        key = graph.transpose(key, (0, 2, 3, 1))
    if draw.chance(0.5):
        scores = graph.matmul(graph.mul(query, graph.scalar(each**-0.5)), key)
    else:
        scores = graph.mul(graph.matmul(query, key), graph.scalar(each**-0.5))
    mixed = graph.matmul(graph.softmax(scores), content)
    joined = graph.reshape(graph.transpose(mixed, (0, 2, 1, 3)), (batch, tokens, size))
    value = graph.add(value, graph.linear(joined, size))
    wide = draw.channels(size * draw.choice((2, 3, 4)))
    inner = graph.linear(graph.layer_norm(value), wide, "gelu" if draw.chance(0.7) else "relu")
    return graph.add(value, graph.linear(inner, size))
