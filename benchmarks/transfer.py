"""How well is a new device predicted from few measurements and what other devices take?

The new device's latencies are seen at the chosen architectures alone. Variances of the kernel are
learned on the sources, each in turn as the new device, and moved by the evidence of the chosen
samples. The baselines see the same samples; their own parameters are cross-validated on these.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from latkit.latency.transfer.choices import Choices
from latkit.latency.transfer.data import LatencyData, read_latency_data
from latkit.latency.transfer.predictor import TransferPredictor
from latkit.latency.transfer.sources import Sources, learn_sources
from numpy.typing import NDArray
from results import report
from scipy.stats import kendalltau, spearmanr
from sklearn.ensemble import RandomForestRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.linear_model import RidgeCV

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

HELP_POOL = 900
HELP_POOL_FBNET = 4000
HELP_TEST = 1000
FBNET_POSITIONS = 22
TRIMMED = 0.1

PENALTIES = 10.0 ** np.arange(-3, 4)
FIGURES = ("spearman", "kendall", "within_5", "within_10")
HYPER_PARAMETERS = (
    "ours: each source in turn as the new device, then the marginal likelihood of the samples; "
    "baselines: cross-validation or marginal likelihood on the samples. Never on the targets' tests"
)


def main() -> None:
    arguments = parse()
    data = read_latency_data(arguments.data)
    sources, targets = arguments.sources.split(","), arguments.targets.split(",")
    if set(sources) & set(targets):
        raise SystemExit(f"both source and target: {', '.join(set(sources) & set(targets))}")
    data.columns([*sources, *targets])
    rows = []
    for seed in map(int, arguments.seeds.split(",")):
        rows += run_seed(data, sources, targets, arguments, seed)
    names = [name for name in rows[0] if name not in KEYS]
    means = [average(rows, target, names) for target in targets]
    report(
        {name: float(np.mean([row[name] for row in rows])) for name in names},
        [{name: mean[name] for name in mean if not name.endswith(NOT_SHOWN)} for mean in means],
        {
            "data": arguments.data.name,
            "sources": sources,
            "samples": arguments.samples,
            "source_archs": arguments.source_archs,
            "test": arguments.test,
            "seeds": arguments.seeds,
            "hyper_parameters": HYPER_PARAMETERS,
            "by_seed": rows,
        },
        arguments.json,
    )


KEYS = ("target", "seed")
NOT_SHOWN = ("_kendall", "_within_5", "learning_s")
"""What is in the file alone, among the rows by seed, so that a row fits on a screen."""


def run_seed(
    data: LatencyData,
    sources: Sequence[str],
    targets: Sequence[str],
    arguments: argparse.Namespace,
    seed: int,
) -> list[dict[str, Any]]:
    """One row for each target."""
    known = data.columns(sources).copy()
    if arguments.source_archs is not None:
        known[~kept(known, arguments.source_archs, seed)] = np.nan
    start = time.perf_counter()
    learned = learn_sources(Choices.of(data.choices), known, seed=seed)
    learning_s = time.perf_counter() - start
    rows = []
    for target in targets:
        latency = data.columns([target])[:, 0]
        start = time.perf_counter()
        pool, tested = split(data, latency, arguments.test)
        chosen = learned.choose(arguments.samples, candidates=pool, seed=seed)
        predictor = TransferPredictor(learned).fit(chosen, latency[chosen])
        predicted = predictor.predict(tested)
        low, high = predictor.predict_interval(tested)
        seconds = learning_s / len(targets) + time.perf_counter() - start
        row: dict[str, Any] = {"target": target, "seed": seed}
        row |= scores(predicted, latency[tested])
        covered = (low <= latency[tested]) & (latency[tested] <= high)
        row["covered_90"] = float(covered.mean())
        for name, guess in baselines(data, learned, chosen, latency[chosen], seed).items():
            told = scores(guess[tested], latency[tested])
            row |= {f"{name}_{figure}": told[figure] for figure in FIGURES}
        # Learning the sources is done once, and shared among the targets.
        rows.append(row | {"seconds": seconds, "learning_s": learning_s})
    return rows


def kept(known: Floats, count: int, seed: int) -> NDArray[np.bool_]:
    """The architectures that the sources keep."""
    measured = np.flatnonzero(~np.isnan(known).all(axis=1))
    rows = np.random.default_rng(seed).choice(measured, min(count, len(measured)), replace=False)
    return np.isin(np.arange(len(known)), rows)


def split(data: LatencyData, latency: Floats, test: str) -> tuple[Rows, Rows]:
    """The architectures that may be chosen, and those to test on; measured on the target, both."""
    measured = np.flatnonzero(~np.isnan(latency))
    if test == "all":
        return measured, measured
    size = HELP_POOL_FBNET if data.choices.shape[1] == FBNET_POSITIONS else HELP_POOL
    pool, tested = measured[measured < size], measured[(measured >= size)]
    tested = tested[tested < size + HELP_TEST]
    cut = round(TRIMMED * len(tested))
    ranked = tested[np.argsort(latency[tested], kind="stable")]
    return pool, np.sort(ranked[cut : len(ranked) - cut])


def scores(predicted: Floats, latency: Floats) -> dict[str, float]:
    """Rank correlations, and shares of latencies predicted within 5 and 10 %."""
    constant = np.ptp(predicted) == 0
    error = np.abs(predicted - latency)
    return {
        "spearman": 0.0 if constant else float(spearmanr(predicted, latency).statistic),
        "kendall": 0.0 if constant else float(kendalltau(predicted, latency).statistic),
        "within_5": float(np.mean(error <= 0.05 * latency)),
        "within_10": float(np.mean(error <= 0.1 * latency)),
    }


def baselines(
    data: LatencyData, learned: Sources, chosen: Rows, latency: Floats, seed: int
) -> dict[str, Floats]:
    """Latencies of all architectures by other methods, from the same samples."""
    one_hot = np.hstack([column[:, None] == np.unique(column) for column in data.choices.T]).astype(
        np.float64
    )
    completed = np.empty_like(learned.completed)
    completed[learned.order] = learned.completed
    ridge = RidgeCV(PENALTIES).fit(completed[chosen], latency)
    middle, spread = latency.mean(), latency.std() or 1.0
    kernel = ConstantKernel() * RBF(np.sqrt(data.choices.shape[1])) + WhiteKernel(0.1)
    process = GaussianProcessRegressor(kernel, n_restarts_optimizer=2, random_state=seed)
    process.fit(one_hot[chosen], (latency - middle) / spread)
    forest = RandomForestRegressor(200, random_state=seed)
    forest.fit(np.hstack([completed, one_hot])[chosen], latency)
    work = counts(data) if data.flops is None else data.flops[:, None]
    work = (work - work.mean(0)) / np.maximum(work.std(0), 1e-12)
    return {
        "ridge": ridge.predict(completed),
        "target_gp": process.predict(one_hot) * spread + middle,
        "forest": forest.predict(np.hstack([completed, one_hot])),
        "flops" if data.flops is not None else "op_count": RidgeCV(PENALTIES)
        .fit(work[chosen], latency)
        .predict(work),
    }


def counts(data: LatencyData) -> Floats:
    """How often each category is chosen: (N, categories)."""
    return np.stack(
        [(data.choices == category).sum(1) for category in np.unique(data.choices)], axis=1
    ).astype(np.float64)


def average(rows: Sequence[Mapping[str, Any]], target: str, names: Sequence[str]) -> dict[str, Any]:
    """The mean over seeds of one target."""
    own = [row for row in rows if row["target"] == target]
    return {"target": target} | {name: float(np.mean([row[name] for row in own])) for name in names}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help=".npz of ops, devices, latency_ms")
    parser.add_argument("--sources", required=True, help="A,B,...")
    parser.add_argument("--targets", required=True, help="X,Y,...")
    parser.add_argument("--samples", type=int, default=20, help="measured on the target")
    parser.add_argument(
        "--source-archs", type=int, help="measured on the sources, at random. Default: all"
    )
    parser.add_argument(
        "--test",
        choices=("all", "help"),
        default="all",
        help="help: choose from the first 900 (FBNet 4000), test on the next 1000, trimmed",
    )
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
