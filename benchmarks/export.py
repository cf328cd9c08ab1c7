"""How fast, and how exactly, are blocks exported?

Draws random blocks such as mobile networks are made of, exports each by every route in turn, and
runs what came out beside the torch module. `onnx` builds the ONNX model of a block (its bytes in
memory), `tflite` converts that model to a TFLite flatbuffer, `torch_export` is `torch.onnx.export`
with dynamo=False on the block's torch module, `torch_dynamo` the same with dynamo=True (where
onnxscript is installed). Seconds are medians over blocks, errors the largest difference from torch
as a share of the largest output, the worst over blocks.

    python benchmarks/export.py --blocks 40 --json export.json
"""

from __future__ import annotations

import argparse
import io
import logging
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from ai_edge_litert.interpreter import Interpreter
from latkit.devices.console import exit_with_code, progress_bar
from latkit.devices.tflite import convert
from latkit.latency.blocks import Block, ConvBlock, MBConv
from latkit.latency.onnx_model import build_onnx, random_parameters, subject_graph
from latkit.latency.torch_model import TorchModel
from numpy.typing import NDArray
from results import report

PIXELS = (7, 10, 14, 20, 28, 56)
ACTIVATIONS = ("relu", "relu6", "swish", "hard_swish")
CONV_SHARE = 0.2

Array = NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Formatter)
    parser.add_argument("--blocks", type=int, default=40)
    parser.add_argument("--dynamo-blocks", type=int, default=10, help="of them by dynamo=True")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.blocks < 1:
        parser.error("--blocks must be at least 1")
    exit_with_code(lambda: run(arguments))


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the description, and shows defaults."""


def run(arguments: argparse.Namespace) -> None:
    # exporters warn and log a line for every module
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    dynamo_skipped = ""
    if find_spec("onnxscript") is None:
        dynamo_skipped = "onnxscript is not installed: pip install onnxscript"
        print(f"torch.onnx.export(dynamo=True) is skipped: {dynamo_skipped}")
    random = np.random.default_rng(arguments.seed)
    seconds: dict[str, list[float]] = {}
    errors: dict[str, list[float]] = {}
    with progress_bar() as progress:
        task = progress.add_task("exporting", total=arguments.blocks)
        for index in range(-1, arguments.blocks):  # the first one warms up
            with_dynamo = not dynamo_skipped and index < arguments.dynamo_blocks
            for route, (duration, error) in compare(random_block(random), with_dynamo).items():
                if index >= 0:
                    seconds.setdefault(route, []).append(duration)
                    errors.setdefault(route, []).append(error)
            progress.update(task, completed=index + 1)
    rows = [row(route, seconds[route], errors[route]) for route in seconds]
    figures: dict[str, float] = {}
    for entry in rows:
        figures[f"{entry['route']}_s"] = entry["median_s"]
        figures[f"{entry['route']}_error"] = entry["worst_error"]
    for route in ("torch_export", "torch_dynamo"):
        if route in seconds:
            for ours in ("onnx", "tflite"):
                figures[f"{route}_over_{ours}"] = figures[f"{route}_s"] / figures[f"{ours}_s"]
    names = ("torch", "onnx", "onnxruntime", "ai-edge-litert", "numpy")
    context = {
        "blocks": arguments.blocks,
        "seed": arguments.seed,
        "versions": {name: version(name) for name in names},
        "dynamo_skipped": dynamo_skipped,
    }
    report(figures, rows, context, arguments.json)


def row(route: str, seconds: list[float], errors: list[float]) -> dict[str, Any]:
    low, median, high = np.percentile(seconds, (10, 50, 90))
    return {
        "route": route,
        "blocks": len(seconds),
        "median_s": float(median),
        "p10_s": float(low),
        "p90_s": float(high),
        "median_error": float(np.median(errors)),
        "worst_error": float(np.max(errors)),
    }


def random_block(random: np.random.Generator) -> Block:
    channels = int(random.integers(1, 13)) * 8
    size = int(random.choice(PIXELS))
    kernel, stride = int(random.choice((3, 5, 7))), int(random.choice((1, 2)))
    out_channels = channels if random.random() < 0.5 else int(random.integers(1, 13)) * 8
    activation = ACTIVATIONS[random.integers(len(ACTIVATIONS))]
    if random.random() < CONV_SHARE:
        return ConvBlock(
            in_channels=channels,
            height=size,
            width=size,
            out_channels=out_channels,
            kernel=kernel,
            stride=stride,
            activation=activation,
        )
    return MBConv(
        in_channels=channels,
        height=size,
        width=size,
        out_channels=out_channels,
        expanded_channels=channels * int(random.choice((3, 4, 6))),
        kernel=kernel,
        stride=stride,
        squeeze_excite=bool(random.random() < 0.5),
        activation=activation,
    )


def compare(block: Block, with_dynamo: bool) -> dict[str, tuple[float, float]]:
    """For each route, the seconds that it took and the error of what it made."""
    parameters = random_parameters(subject_graph(block))
    module = TorchModel(block).eval()
    module.load_folded(parameters)
    shape = (1, *block.input_shapes[0])
    value = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    with torch.inference_mode():
        reference = module(torch.from_numpy(value)).numpy()
    built, built_s = timed(lambda: build_onnx(block, parameters).SerializeToString())
    model = onnx.load_from_string(built)
    flatbuffer, flatbuffer_s = timed(lambda: convert(model))
    traced, traced_s = timed(lambda: export(module, value, dynamo=False))
    found = {
        "onnx": (built_s, error_of(run_onnx(built, value), reference)),
        "tflite": (flatbuffer_s, error_of(run_tflite(flatbuffer, value), reference)),
        "torch_export": (traced_s, error_of(run_onnx(traced, value), reference)),
    }
    if with_dynamo:
        captured, captured_s = timed(lambda: export(module, value, dynamo=True))
        found["torch_dynamo"] = (captured_s, error_of(run_onnx(captured, value), reference))
    return found


def timed(work: Callable[[], bytes]) -> tuple[bytes, float]:
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def export(module: torch.nn.Module, value: Array, *, dynamo: bool) -> bytes:
    given = (torch.from_numpy(value),)
    if dynamo:
        program = torch.onnx.export(module, given, dynamo=True, verbose=False)
        return program.model_proto.SerializeToString()
    content = io.BytesIO()
    torch.onnx.export(module, given, content, dynamo=False, opset_version=17)
    return content.getvalue()


def run_onnx(content: bytes, value: Array) -> Array:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: value})[0]


def run_tflite(content: bytes, value: Array) -> Array:
    interpreter = Interpreter(model_content=content, num_threads=1)
    runner = interpreter.get_signature_runner("serving_default")
    return runner(input=value.transpose(0, 2, 3, 1))["output"].transpose(0, 3, 1, 2)


def error_of(result: Array, reference: Array) -> float:
    return float(np.abs(result - reference).max() / np.abs(reference).max())


if __name__ == "__main__":
    main()
