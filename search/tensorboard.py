"""A search's trajectory for TensorBoard: scalars over evaluations, a folder for each run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from ..devices.errors import LatkitError, UsageError
from .curves import best_so_far, figures_of, hypervolume_so_far, runs, worst_seen


def write_tensorboard(trajectory: pd.DataFrame, folder: Path) -> list[Path]:
    """Write a trajectory (`search.curves`) below `folder`; return the folder of each run.

    Scalars, by the number of evaluations: accuracy, best_so_far, latency_ms (predicted),
    measured_ms, hypervolume (ms times accuracy, to the worst latency and accuracy seen) and what
    the strategy tells of itself; values that are not known are left out. What an earlier call
    wrote there is no longer shown.

    Raises `UsageError` where TensorBoard is not installed or there is nothing to write,
    `LatkitError` where files can't be written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            "TensorBoard is not installed, and --tensorboard needs it: "
            "pip install 'latkit[search,tensorboard]'"
        ) from error
    found = runs(trajectory.dropna(subset=["predicted_ms", "accuracy"]))
    if not found:
        raise UsageError("there is no evaluation to show in TensorBoard")
    reference = worst_seen(trajectory)
    told = [name for name in ("measured_ms", *figures_of(trajectory)) if name in trajectory]
    written = []
    for run in found:
        scalars = {
            "accuracy": run.rows["accuracy"],
            "best_so_far": best_so_far(run),
            "latency_ms": run.rows["predicted_ms"],
            "hypervolume": hypervolume_so_far(run, reference),
            **{name: run.rows[name] for name in told},
        }
        seconds = run.seconds
        path = folder / (re.sub(r"[^\w.+@# -]", "_", run.name).strip(". ") or "run")
        try:
            # Steps from 0 on that an earlier file in this folder holds are hidden.
            writer = SummaryWriter(str(path), purge_step=0)
            for name, values in scalars.items():
                for step, value in enumerate(np.asarray(values, dtype=np.float64), start=1):
                    if np.isfinite(value):
                        # Without a time TensorBoard would take that of writing.
                        at = seconds[step - 1] if np.isfinite(seconds[step - 1]) else step
                        writer.add_scalar(name, float(value), step, walltime=float(at))
            writer.close()
        except OSError as error:
            raise LatkitError(f"can't write {path}: {error.strerror}") from error
        written.append(path)
    return written
