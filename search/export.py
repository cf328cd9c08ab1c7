"""Writing a trained network for deployment: ONNX and TFLite, both compared with torch first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from ..devices.errors import LatkitError
from ..devices.files import write_atomically
from ..devices.tflite import convert
from ..latency.document import write_document
from ..latency.onnx_model import build_onnx
from ..latency.ops import Quantise
from ..latency.torch_model import TorchModel
from .data import Dataset

EXPORT_VERSION = 1
LARGEST_DIFFERENCE = 1e-4
"""Outputs of torch, ONNX Runtime and LiteRT may differ by this share of the largest output."""
LARGEST_MEDIAN_DIFFERENCE = 0.05
"""What the median image's may differ by where activations are rounded to few bits.

Runtimes add in orders of their own, and a sum close to a rounding boundary then goes either way: a
whole step apart, seen in the outputs by some per cent, on some of the images.
"""
CHECKED_IMAGES = 16

Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Exported:
    """The files of a trained network.

    `description` is a JSON document with the classes and the normalisation of the input.
    `differences` are, by runtime, the largest difference from torch's outputs on real images,
    relative to the largest output; where activations are rounded to few bits, the median image's.
    """

    onnx: Path
    tflite: Path
    description: Path
    differences: dict[str, float]


def export(model: TorchModel, data: Dataset, folder: Path, name: str = "model") -> Exported:
    """Write `name`.onnx (NCHW), `name`.tflite (NHWC) and `name`.json into `folder`.

    Batch norms are folded: the model must be trained, or recalibrated. Both files are run on
    validation images first; `LatkitError` where their outputs are not torch's, and nothing is
    written then.
    """
    model.eval()
    onnx_model = build_onnx(model.graph, model.folded())
    preparation: dict[str, list[Any]] = {
        "classes": list(data.classes),
        "mean": list(data.mean),
        "deviation": list(data.deviation),
    }
    for key, value in preparation.items():
        onnx_model.metadata_props.add(key=key, value=",".join(map(str, value)))
    tflite_model = convert(onnx_model)
    images = data.inputs(data.validation.read(range(min(CHECKED_IMAGES, len(data.validation)))))
    with torch.no_grad():
        expected = model(images.to(next(model.parameters()))).cpu().numpy()
    batches = images.contiguous().numpy()[:, None]
    rounds = any(isinstance(node.op, Quantise) for node in model.graph.nodes)
    allowed = LARGEST_MEDIAN_DIFFERENCE if rounds else LARGEST_DIFFERENCE
    differences = {
        "onnxruntime": _difference(expected, _run_onnx(onnx_model, batches), rounds),
        "litert": _difference(expected, _run_tflite(tflite_model, batches), rounds),
    }
    for runtime, difference in differences.items():
        if not difference <= allowed:
            raise LatkitError(
                f"the network exported for {runtime} gives other outputs than torch: they differ "
                f"by {difference:.2g} of the largest one, and {allowed:g} is allowed. "
                "Nothing was written; please report this with the architecture."
            )
    files = (folder / f"{name}.onnx", folder / f"{name}.tflite", folder / f"{name}.json")
    write_atomically(files[0], onnx_model.SerializeToString(deterministic=True))
    write_atomically(files[1], tflite_model)
    description = {
        **preparation,
        "input": "RGB pixels 0..255, minus mean, divided by deviation, by channel",
        "input_shape_nchw": [1, *model.graph.input_shape],
        "differences": differences,
    }
    write_document(files[2], "exported_model", EXPORT_VERSION, description)
    return Exported(*files, differences)


def _difference(expected: Logits, found: Logits, median: bool) -> float:
    by_image = np.abs(expected - found).max(1) / np.abs(expected).max()
    return float(np.median(by_image) if median else by_image.max())


def _run_onnx(model: onnx.ModelProto, batches: NDArray[np.float32]) -> Logits:
    """Logits of (N, 1, 3, height, width)."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: batch})[0] for batch in batches])


def _run_tflite(model: bytes, batches: NDArray[np.float32]) -> Logits:
    """Logits of (N, 1, 3, height, width), given to the model channels last."""
    interpreter = Interpreter(model_content=model, num_threads=1)
    interpreter.allocate_tensors()
    return np.concatenate(list(_tflite_outputs(interpreter, batches.transpose(0, 1, 3, 4, 2))))


def _tflite_outputs(interpreter: Any, batches: NDArray[np.float32]) -> Iterator[Logits]:
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]
    for batch in batches:
        interpreter.set_tensor(source, np.ascontiguousarray(batch))
        interpreter.invoke()
        yield interpreter.get_tensor(target)
