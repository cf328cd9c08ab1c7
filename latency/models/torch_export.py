"""A torch module as an ONNX file, for as long as it is needed."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...devices.errors import LatkitError
from ..onnx_model import OPSET

if TYPE_CHECKING:
    import torch


@contextmanager
def exported(module: torch.nn.Module, example_input: Any) -> Iterator[Path]:
    """The .onnx file of a module in evaluation mode, static shapes, while the block runs.

    Raises `LatkitError` with torch's own words where it can't export the module.
    """
    import torch

    arguments = example_input if isinstance(example_input, tuple) else (example_input,)
    training = module.training
    with tempfile.TemporaryDirectory(prefix="latkit-") as folder:
        path = Path(folder) / "model.onnx"
        try:
            module.eval()
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(module, arguments, path, opset_version=OPSET, dynamo=False)
        except Exception as error:
            raise LatkitError(
                f"torch can't export {type(module).__name__} to ONNX: {error}. Export it yourself "
                "and give the .onnx file."
            ) from error
        finally:
            module.train(training)
        yield path
