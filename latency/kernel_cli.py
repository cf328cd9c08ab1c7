"""What `profile --kernels` and `fit --kernels` do: time probe networks, fit a model predictor."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from ..devices.console import print_json, stdout
from ..devices.device import Device, Setup
from ..devices.errors import UsageError
from . import output
from .models.kernel_profile import profile_kernels, splits_at_one_speed
from .models.predictor import ModelPredictor
from .outcome import KernelsOutcome
from .store import Store

KernelsOption = Annotated[
    bool,
    typer.Option("--kernels", help="Kernels inside random networks, to predict any model file."),
]
NetworksOption = Annotated[
    int | None, typer.Option("--networks", min=1, help="With --kernels: how many networks.")
]
MinutesOption = Annotated[
    float | None, typer.Option("--minutes", min=0.1, help="With --kernels: how long at most.")
]


def profile_kernels_on(
    device: Device,
    store: Store,
    networks: int | None,
    minutes: float | None,
    progress: Progress,
    label: str,
) -> KernelsOutcome:
    """Time probe networks on one device until the store holds that many, or as long."""
    return KernelsOutcome(
        profile_kernels(
            device,
            store,
            networks=networks,
            minutes=minutes,
            progress=progress,
            label=f"{label}kernels",
        )
    )


def check_kernel_options(kernels: bool, networks: int | None, minutes: float | None) -> None:
    """Raise `UsageError` where --networks or --minutes stand without --kernels."""
    if not kernels and (networks is not None or minutes is not None):
        raise UsageError("--networks and --minutes go with --kernels")


def fit_kernels(store: Store, setup: Setup, output_path: Path, seed: int, json: bool) -> None:
    """Fit a model predictor to a setup's probe networks, write it, and print its error."""
    predictor = fit_model_predictor(store, setup, seed)
    predictor.save(output_path)
    if json:
        print_json(
            {
                "setup": asdict(setup),
                "networks": len(predictor.residuals_),
                "calibration": asdict(predictor.calibration_),
                "cross_validated": asdict(predictor.error_),
                "output": str(output_path),
            }
        )
        return
    stdout.print(
        f"{setup.key}\n{len(predictor.residuals_)} probe networks", markup=False, highlight=False
    )
    output.print_errors({"model predictor, cross-validated": predictor.error_})
    stdout.print(f"written to {output_path}", markup=False, highlight=False)


def fit_model_predictor(store: Store, setup: Setup, seed: int = 0) -> ModelPredictor:
    """A model predictor fitted to all probe networks that were timed on a setup."""
    splits = splits_at_one_speed(store.kernel_runs(setup))
    if not splits:
        raise UsageError(
            f"the store {store} holds no probe networks of {setup.key}. Run `latkit profile "
            "--kernels` first."
        )
    return ModelPredictor(setup).fit(splits, seed)
