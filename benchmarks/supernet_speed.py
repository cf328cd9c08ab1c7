"""What does weight sharing cost a training step?

For random architectures, in turn: a step of the supernet, which slices its weights; a step of a
plain network of the same architecture; and one that masks instead of slicing, which computes the
same operations at the largest widths with weights times zeros and ones. Forward, backward and
update on the same batch, and the memory that each allocates at its peak. Ratios are medians over
architectures, those of times of medians over rounds.

    python benchmarks/supernet_speed.py --space mobile --batch-size 64 --json speed.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from latkit.devices.console import exit_with_code
from latkit.latency.torch_model import TorchModel
from latkit.search import spaces
from latkit.search.sgd import SGD
from latkit.search.space import Architecture, SearchSpace
from latkit.search.spaces import PAPER, SMALL_IMAGES
from latkit.search.supernet import Supernet
from latkit.search.training import set_threads
from results import report
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.profiler import ProfilerActivity, profile

CLASSES = 10
SPACES = {
    name: getattr(spaces, name)
    for name in (
        *("bignas", "mobilenet_v3_like", "proxylessnas", "proxylessnas_enlarged"),
        *("shufflenet", "shufflenet_channels", "tfnas"),
    )
}
RATE = 0.01

Step = Callable[[], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Formatter)
    parser.add_argument("--space", default="mobile", choices=("mobile", *SPACES))
    parser.add_argument("--paper-size", action="store_true", help="ImageNet's, not 32 pixels")
    parser.add_argument("--architectures", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7, help="steps of each kind, in turn")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N")
    parser.add_argument("--threads", type=int, help="torch's; default: one for each processor")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    exit_with_code(lambda: run(arguments))


class _Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the description, and shows defaults."""


def run(arguments: argparse.Namespace) -> None:
    set_threads(arguments.threads)
    space = _space(arguments)
    supernet = Supernet(space, arguments.seed).to(arguments.device)
    random = np.random.default_rng(arguments.seed)
    rows = [
        measure(supernet, space.sample(random), arguments) for _ in range(arguments.architectures)
    ]
    figures = {
        f"{kind}_{what}": float(np.median([row[f"{kind}_{what}"] for row in rows]))
        for kind in ("slice", "mask")
        for what in ("ratio", "memory_ratio")
    }
    figures["slice_ratio_largest"] = max(row["slice_ratio"] for row in rows)
    report(figures, rows, {**vars(arguments), "torch": torch.__version__}, arguments.json)


def _space(arguments: argparse.Namespace) -> SearchSpace:
    if arguments.space == "mobile":
        return spaces.mobile_space(CLASSES)
    scale = PAPER if arguments.paper_size else SMALL_IMAGES
    found: SearchSpace = SPACES[arguments.space](CLASSES, scale)
    return found


def measure(
    supernet: Supernet, architecture: Architecture, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Medians of one architecture's steps, and their ratios to the plain network's."""
    shape = supernet.space.network(architecture).input_shape
    generator = torch.Generator().manual_seed(arguments.seed)
    images = torch.randn(arguments.batch_size, *shape, generator=generator)
    images = images.to(arguments.device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(arguments.batch_size, device=arguments.device) % CLASSES
    wide = Architecture(_widest(supernet.space, architecture.choices))
    steps = {
        "plain": _step(supernet.extract(architecture).train(), images, labels),
        "slice": _supernet_step(supernet, architecture, images, labels),
        "mask": _step(_masked(supernet, architecture, wide), images, labels),
    }
    for step in steps.values():
        step()
    seconds: dict[str, list[float]] = {kind: [] for kind in steps}
    for _ in range(arguments.rounds):
        for kind, step in steps.items():
            seconds[kind].append(_seconds(step, arguments.device))
    row: dict[str, Any] = {"architecture": architecture.key}
    for kind, taken in seconds.items():
        row[f"{kind}_ms"] = 1e3 * float(np.median(taken))
        row[f"{kind}_spread"] = float(
            np.subtract(*np.percentile(taken, (75, 25))) / np.median(taken)
        )
    row |= {f"{kind}_ratio": row[f"{kind}_ms"] / row["plain_ms"] for kind in ("slice", "mask")}
    peaks = {kind: _peak_bytes(step, arguments.device) for kind, step in steps.items()}
    row |= {f"{kind}_memory_ratio": peaks[kind] / peaks["plain"] for kind in ("slice", "mask")}
    return row


def _step(model: nn.Module, images: Tensor, labels: Tensor) -> Step:
    """A training step of a network on its own."""
    parameters = dict(model.named_parameters())
    optimiser = SGD(parameters, momentum=0.9, weight_decay=4e-5, active={})

    def step() -> None:
        functional.cross_entropy(model(images), labels).backward()
        optimiser.step(RATE)
        optimiser.clear_gradients()

    return step


def _supernet_step(
    supernet: Supernet, architecture: Architecture, images: Tensor, labels: Tensor
) -> Step:
    optimiser = SGD(
        dict(supernet.named_parameters()),
        momentum=0.9,
        weight_decay=4e-5,
        active=supernet.active,
    )

    def step() -> None:
        supernet.active.clear()
        functional.cross_entropy(supernet(images, architecture), labels).backward()
        optimiser.step(RATE)
        optimiser.clear_gradients()

    return step


def _widest(space: SearchSpace, choices: tuple[int, ...]) -> tuple[int, ...]:
    """The same choices with all widths the largest."""
    return space.canonical(
        [
            len(choice.options) - 1 if choice.name.endswith((".width", ".channels")) else index
            for choice, index in zip(space.choices, choices, strict=True)
        ]
    )


class _Mask(nn.Module):
    """Multiplies a weight by zeros outside of the channels in use."""

    def __init__(self, used: tuple[int, ...], weight: Tensor) -> None:
        super().__init__()
        mask = torch.zeros_like(weight)
        mask[tuple(slice(0, size) for size in used)] = 1
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight, masked."""
        return weight * self.mask


def _masked(supernet: Supernet, architecture: Architecture, wide: Architecture) -> nn.Module:
    """The network at the largest widths whose weights are masked to those of the architecture."""
    model = supernet.extract(wide).train()
    narrow = dict(TorchModel(supernet.space.network(architecture)).named_modules())
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and name in narrow:
            used = tuple(narrow[name].weight.shape)
            parametrize.register_parametrization(module, "weight", _Mask(used, module.weight))
    return model


def _seconds(step: Step, device: str) -> float:
    _synchronise(device)
    started = time.perf_counter()
    step()
    _synchronise(device)
    return time.perf_counter() - started


def _peak_bytes(step: Step, device: str) -> int:
    """The most that a step has allocated at a time, besides what there was before it."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = [event["args"]["Bytes"] for event in events if event.get("name") == "[memory]"]
    return int(np.max(np.cumsum(changes)))


def _synchronise(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
