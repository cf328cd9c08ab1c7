"""Where a model ran, as the runtime's log tells it, and whether that is what was asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from .device import Placement

CPU_ACCELERATORS = ("cpu", "xnnpack")
"""Kernels that run on the processor; asking for `cpu` allows both."""

_REPLACED = re.compile(
    r"Replacing (\d{1,9})(?: out of (\d{1,9}))? node\(s\) with delegate \(([^)]*)\) node, "
    r"yielding (\d{1,9}) partitions?(?: for (?:subgraph (\d{1,9})|the whole graph))?"
)
_COUNTED = re.compile(
    r"latkit-runner: Replacing (\d{1,9}) out of (\d{1,9}) node\(s\) .* yielding (\d{1,9}) partition"
)
"""Our own program's count: it says the same words, but its partitions are the delegate's alone."""

_APPLIED = re.compile(
    r"[Aa]pplied (\S+) delegate, and the model graph will be "
    r"(?:(completely)|par\w+) executed by the delegate(?: w/ (\d{1,9}) delegate kernels)?"
)
_REFUSED = re.compile(
    r"Though (\S+) delegate is (?:explicitly )?applied, the model(?: graph)? will not be executed"
)
_RESTORED = re.compile(r"Restored original execution plan after delegate application failure")
_GPU_KERNELS = re.compile(r"Created (\d{1,9}) GPU delegate kernels")
_PLACED = re.compile(
    r"(All nodes|Node\(s\)) placed on \[(\w+?)(?:ExecutionProvider)?\]\. Number of nodes: (\d{1,9})"
)
_CAPABILITY = re.compile(
    r"(\w+?)ExecutionProvider::GetCapability,\s*number of partitions supported by \w+: (\d{1,9})"
    r"\s*number of nodes in the graph: (\d{1,9})\s*number of nodes supported by \w+: (\d{1,9})",
    re.IGNORECASE,
)
_GPU_DELEGATE = re.compile(r"gpu|opencl|litert_(?:cl|gl|metal|vulkan)", re.IGNORECASE)
_PROVIDERS = {"webgpu": "gpu"}


def read_placement(
    runtime: str, asked: str, log: str, nodes: int | None = None
) -> Placement | None:
    """Read from the log of loading one model which accelerator took how many of its nodes.

    `asked` is the accelerator that was asked for; where several took nodes, it is the one told
    of. `nodes` is how many there are in all, as far as the caller knows. `None`: the log does not
    tell where the model ran; that a delegate was created is no sign that it took anything.
    """
    if runtime == "onnxruntime":
        return _read_providers(asked, log)
    return _read_delegates(asked, log, nodes)


def check_placement(asked: str, placement: Placement | None, allow_fallback: bool) -> str | None:
    """Why a model's latency is not that of the accelerator asked for; `None` where it is.

    An accelerator that took no node, or of which nothing is known, is a failure unless
    `allow_fallback`. One that took some of the nodes is none: few accelerators take every
    operation, and how many it took is recorded beside the latency.
    """
    if allow_fallback or (asked == "cpu" and (placement is None or _is_on_cpu(placement))):
        return None
    if placement is None:
        return (
            f"asked for {asked}, and it can't be confirmed that it took any node: the runtime's "
            "log does not say. --allow-fallback times it all the same"
        )
    if placement.accelerator == asked and placement.delegated != 0:
        return None
    return (
        f"asked for {asked}, used {_description(placement)}: {asked} took no node. "
        "--allow-fallback times it all the same"
    )


def _is_on_cpu(placement: Placement) -> bool:
    return placement.accelerator in CPU_ACCELERATORS


def _description(placement: Placement) -> str:
    parts = []
    if placement.delegated is not None and placement.accelerator != "cpu":
        of_all = "" if placement.nodes is None else f" of {placement.nodes}"
        parts.append(f"{placement.delegated}{of_all} nodes")
    if placement.partitions and placement.accelerator != "cpu":
        parts.append(f"{placement.partitions} partitions")
    return placement.accelerator + (f" ({' in '.join(parts)})" if parts else "")


@dataclass(frozen=True, slots=True)
class _Taken:
    """What one delegate took of one subgraph."""

    partitions: int | None
    delegated: int | None
    nodes: int | None


def _read_delegates(asked: str, log: str, nodes: int | None) -> Placement | None:
    """TFLite's delegates, in the order in which the log tells of them.

    A delegate first says what it replaces; then it may turn out that nothing came of it.
    """
    taken: dict[str, dict[int, _Taken]] = {}
    counted: dict[int, _Taken] = {}
    gpu_kernels: int | None = None
    is_known = False
    for line in log.splitlines():
        if match := _COUNTED.search(line):
            delegated, all_nodes, partitions = map(int, match.groups())
            counted[len(counted)] = _Taken(partitions, delegated, all_nodes)
        elif match := _REPLACED.search(line):
            count, graph_nodes, name, subsets, subgraph = match.groups()
            parts = taken.setdefault(_accelerator(name, asked), {})
            parts[int(subgraph or 0)] = _replaced(int(count), int(graph_nodes or 0), int(subsets))
        elif match := _APPLIED.search(line):
            name, completely, kernels = match.groups()
            parts = taken.setdefault(_accelerator(name, asked), {})
            _apply(parts, int(kernels or bool(completely)), bool(completely), nodes)
        elif match := _REFUSED.search(line):
            taken.pop(_accelerator(match[1], asked), None)
        elif match := _GPU_KERNELS.search(line):
            gpu_kernels = int(match[1])
        elif _RESTORED.search(line):
            taken.clear()
            counted.clear()
            gpu_kernels = None
        else:
            continue
        is_known = True
    if not is_known:
        return None
    if gpu_kernels is not None:
        _count_gpu_kernels(taken, asked, gpu_kernels)
    if counted:
        taken[asked] = counted
    return _placement(taken, asked, nodes)


def _replaced(count: int, nodes: int, subsets: int) -> _Taken:
    """What a delegate took of a graph of so many nodes (0: not told), cut into so many subsets.

    These are its own and those left to others between them, which alternate: of an even number
    half are its own, and of an odd number it isn't known whether the larger or the smaller half.
    """
    if subsets == 1:
        return _Taken(1, count, nodes or count)
    return _Taken(None if subsets % 2 else subsets // 2, count, nodes or None)


def _apply(parts: dict[int, _Taken], kernels: int, completely: bool, nodes: int | None) -> None:
    """Add what the benchmark program says of an applied delegate to what was known of it."""
    if not parts:
        parts[0] = _Taken(kernels or None, nodes if completely else None, nodes)
    elif len(parts) == 1 and kernels:
        ((subgraph, part),) = parts.items()
        parts[subgraph] = replace(part, partitions=kernels)


def _count_gpu_kernels(taken: dict[str, dict[int, _Taken]], asked: str, kernels: int) -> None:
    """A GPU delegate's kernels are its partitions; where it made none, it runs nothing."""
    name = "plugin" if asked == "plugin" else "gpu"
    if kernels:
        _apply(taken.setdefault(name, {}), kernels, False, None)
    else:
        taken.pop(name, None)


def _accelerator(name: str, asked: str) -> str:
    """Our name for a delegate: by its own in the log, or by its provider's."""
    lowered = name.lower()
    if "xnnpack" in lowered:
        return "xnnpack"
    # TensorFlow's own operations, run on the processor.
    if "flex" in lowered:
        return "cpu"
    if asked == "plugin":
        return "plugin"
    if "nnapi" in lowered:
        return "nnapi"
    return "gpu" if _GPU_DELEGATE.search(name) else "plugin"


def _placement(
    taken: Mapping[str, Mapping[int, _Taken]], asked: str, nodes: int | None
) -> Placement:
    used = {
        name: list(parts.values())
        for name, parts in taken.items()
        if name != "cpu" and any(part.delegated != 0 for part in parts.values())
    }
    name = asked if asked in used else next(iter(used), "cpu")
    if name == "cpu":
        all_nodes = [
            part.nodes for parts in taken.values() for part in parts.values() if part.nodes
        ]
        return Placement("cpu", 0, 0, all_nodes[0] if all_nodes else nodes)
    parts = used[name]
    return Placement(
        name,
        _sum([part.partitions for part in parts]),
        _sum([part.delegated for part in parts]),
        _sum([part.nodes for part in parts]) or nodes,
    )


def _read_providers(asked: str, log: str) -> Placement | None:
    """ONNX Runtime's providers: their nodes once all are placed; NNAPI also tells of before."""
    capabilities = {
        _provider(name, asked): (int(pieces), int(supported), int(nodes))
        for name, pieces, nodes, supported in _CAPABILITY.findall(log)
    }
    placed: dict[str, int] = {}
    for kind, name, count in _PLACED.findall(log):
        if kind == "All nodes":
            placed = {}
        placed[_provider(name, asked)] = int(count)
    if not placed:
        # What a provider could take it may still have lost; what it can't take it did not get.
        if asked in capabilities and not capabilities[asked][1]:
            return Placement("cpu", 0, 0, capabilities[asked][2])
        return None
    used = [name for name, count in placed.items() if name != "cpu" and count]
    name = asked if asked in used else next(iter(used), "cpu")
    if name == "cpu":
        return Placement("cpu", 0, 0, sum(placed.values()))
    if name in capabilities:
        # Each partition that it compiles is one node afterwards.
        return Placement(name, placed[name], *capabilities[name][1:])
    return Placement(name, None, placed[name], sum(placed.values()))


def _provider(name: str, asked: str) -> str:
    lowered = name.lower()
    lowered = _PROVIDERS.get(lowered, lowered)
    return asked if asked == "plugin" and lowered not in CPU_ACCELERATORS else lowered


def _sum(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
