"""What a device is: its setup, the protocol it is timed by, and the rounds that it yields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Precision = Literal["float32", "float16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")

CANARY_DRIFT_LIMIT = 0.03
"""A canary that is slower by more than this share repeats its round, or is named in a verdict."""


FALLBACK = "+fallback"
"""Behind an accelerator's name: models that it takes nothing of are timed all the same."""

ModelKey = tuple[str, int]
"""Identity of a timed model: its id and the bytes evicted before each run."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model file to time. `id` and `eviction_bytes` are what its measurements are filed under.

    Before each timed run, `eviction_bytes` of other memory are walked through and the input is
    touched again (0: caches stay warm). Blocks are timed with an eviction that stands for the rest
    of the network they will run in, whole networks without.
    """

    id: str
    path: Path
    eviction_bytes: int = 0

    @property
    def key(self) -> ModelKey:
        """What a round files the model's visit under."""
        return (self.id, self.eviction_bytes)


@dataclass(frozen=True, slots=True)
class Setup:
    """What a latency is a property of, besides the model: the key of every measurement.

    Two setups that differ in any field are never mixed. `device` names the hardware, `accelerator`
    is the one asked for, `cores` are the processors that the runtime was pinned to (`None`: not
    pinned), `batch_size` is the first dimension of every input. What an `emulated` device takes
    says nothing of a real one. Behind the accelerator's name may stand a colon and the checksum of
    its own library, and `FALLBACK` where models may run elsewhere: that is another setup.
    """

    device: str
    runtime: str
    runtime_version: str
    accelerator: str = "cpu"
    threads: int = 1
    cores: tuple[int, ...] | None = None
    precision: Precision = "float32"
    batch_size: int = 1
    emulated: bool = False

    @property
    def accelerator_name(self) -> str:
        """The accelerator without what stands behind its name."""
        return self.accelerator.removesuffix(FALLBACK).partition(":")[0]

    @property
    def key(self) -> str:
        """The setup as one line of text, equal exactly for equal setups."""
        cores = "any" if self.cores is None else "+".join(map(str, self.cores))
        parts = [
            self.device,
            f"{self.runtime}-{self.runtime_version}",
            self.accelerator,
            f"threads={self.threads}",
            f"cores={cores}",
            self.precision,
        ]
        if self.batch_size != 1:
            parts.append(f"batch={self.batch_size}")
        if self.emulated:
            parts.append("emulated")
        return "|".join(parts)


@dataclass(frozen=True, slots=True)
class TimingProtocol:
    """How models are timed.

    Every model is visited once in each of `rounds` rounds, in a new random order each; the rounds
    are spread over `processes` fresh processes. A visit runs the model `warmups` times untimed
    (a long one until `warmup_ms` have passed, and at least twice), then `runs` times timed. It
    takes that many: small networks were 30 % slower in their first runs after another model's,
    and still 5 % in the fifth. `seed` fixes the orders.

    A round begins when the canary is as fast as on the quiet device; `max_wait_s` may be waited
    for that in all. At most `max_repeats` rounds are repeated because the canary was slow; what is
    slow after that is accepted, and the verdict says so. `quiet_canary_ns` is what the canary
    takes while the device is quiet, as earlier calls found; `None`: the call's own rounds tell.
    """

    rounds: int = 12
    processes: int = 4
    runs: int = 5
    warmups: int = 10
    warmup_ms: float = 20.0
    seed: int = 0
    max_repeats: int = 8
    max_wait_s: float = 30.0
    quiet_canary_ns: float | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the nodes of a model ran.

    `accelerator` is the one used: the one that took nodes, `cpu` where none did. `partitions` are
    the pieces it took, `delegated` the nodes in them, `nodes` all nodes; `None` where the runtime
    doesn't tell.
    """

    accelerator: str
    partitions: int | None = None
    delegated: int | None = None
    nodes: int | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """What a tool that gives no single samples told of `count` runs; times in nanoseconds.

    `statistic` names what `value_ns` is. Means and medians are never mixed.
    """

    statistic: Literal["median", "mean"]
    value_ns: float
    count: int
    minimum_ns: float | None = None
    maximum_ns: float | None = None
    deviation_ns: float | None = None
    p5_ns: float | None = None
    p95_ns: float | None = None


@dataclass(frozen=True, slots=True)
class Visit:
    """The timed runs of one model in one round.

    `samples_ns` are all of them; `preempted[i]` tells that the process lost its processor during
    sample i; `None` where the host can't tell. Where only aggregates are known there are no
    samples, but a `summary`. `placement` tells where the model ran; `None` where unknown.
    """

    samples_ns: tuple[int, ...]
    preempted: tuple[bool, ...] | None
    placement: Placement | None = None
    summary: Summary | None = None


@dataclass(frozen=True, slots=True)
class Round:
    """One pass over a batch of models, and what could explain its numbers.

    `run_id` names the call of `measure` that it belongs to, `process` the worker within it.
    `canary_ns` are the samples of the fixed canary model, `canary_drift` the share by which their
    median is slower than on the quiet device, as far as that was known then. A round that is not
    `accepted` was repeated; it is kept, but no statistic uses it. `failures` maps a model to the
    cause.
    """

    run_id: str
    process: int
    index: int
    attempt: int
    accepted: bool
    started_at: float
    duration_s: float
    canary_ns: tuple[int, ...]
    canary_drift: float
    visits: Mapping[ModelKey, Visit]
    failures: Mapping[ModelKey, str] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)


class Device(Protocol):
    """Something that times model files: this CPU, a GPU, a phone."""

    @property
    def setup(self) -> Setup:
        """The key under which its measurements are filed."""

    def info(self) -> dict[str, Any]:
        """Everything about the device and its runtime that could explain a latency.

        What can't be read is `None`, with the reason beside it.
        """

    def measure(self, models: Sequence[Model], protocol: TimingProtocol) -> Iterator[Round]:
        """Time `models` by `protocol`; yield each round as it is finished.

        A model that can't be loaded or run is in `failures` of every round, and stops none of the
        others. Raises `DeviceError` when the device itself is lost.
        """
