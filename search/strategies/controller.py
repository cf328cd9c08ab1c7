"""A recurrent controller (NAS-RL, Zoph & Le 2017, section 3): an LSTM decides choice by choice.

Written out in numpy, with its gradients: the matrices are so small that most of the time goes into
calls, of which automatic differentiation makes several times as many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...devices.errors import UsageError
from ..choices import Choice
from .lstm import Floats, LstmStep, product

INITIAL = 0.1
"""Weights begin uniform between this and its negative (ENAS; recalled)."""

Pulls = Mapping[int, tuple[Floats, float]]
"""By position, a distribution over the options that a choice is drawn towards, and how much."""


class Controller:
    """Decides the choices of a space one after the other, each by a softmax over its options.

    A stack of `layers` LSTMs of `hidden` units, without biases, reads the embedding of the option
    that was decided last. Logits are `tanh_constant * tanh(z / temperature)`, or `z / temperature`
    where that constant is None (ENAS, Pham et al. 2018, released code). A choice comes after those
    that switch it on. One that is off is passed over: it has option 0 and leaves no trace in what
    follows.

    Ours: each choice has an embedding and output weights of its own, whatever it decides. The
    papers share some of them, and choose what a layer reads by attention over earlier layers.
    """

    def __init__(
        self,
        choices: Sequence[Choice],
        *,
        hidden: int = 32,
        layers: int = 2,
        tanh_constant: float | None = None,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        if hidden < 1 or layers < 1 or not temperature > 0:
            raise UsageError(
                f"a controller has at least one layer of one unit and a temperature above 0, not "
                f"{layers}, {hidden} and {temperature}"
            )
        self.option_counts = tuple(len(choice.options) for choice in choices)
        self.hidden = hidden
        self.layers = layers
        self.tanh_constant = tanh_constant
        self.temperature = temperature
        self._conditions = _conditions(choices)
        self._order = _parents_first(self._conditions)
        counts = self.option_counts
        self._shapes = (
            [(hidden,)]
            + [(2 * hidden, 4 * hidden)] * layers
            + [(hidden, count) for count in counts]
            + [(count, hidden) for count in counts]
            + [(count,) for count in counts]
        )
        self.weights = np.random.default_rng(seed).uniform(
            -INITIAL, INITIAL, sum(map(math.prod, self._shapes))
        )
        self.weights[-sum(counts) :] = 0.0

    def sample(self, count: int, random: np.random.Generator) -> list[tuple[int, ...]]:
        """`count` rows of option indices."""
        chosen = np.zeros((count, len(self._order)), dtype=np.int64)
        self._run(chosen, random.random(chosen.shape))
        return [tuple(row) for row in chosen.tolist()]

    def follow(self, rows: Sequence[Sequence[int]]) -> Followed:
        """How probable it was to decide as these rows (N, L) of option indices.

        Options of choices that are off make no difference.
        """
        chosen = np.asarray(rows, dtype=np.int64)
        return self._run(chosen)

    def gradient(
        self,
        followed: Followed,
        log_probability: Floats,
        *,
        entropy: float = 0.0,
        pulls: Pulls | None = None,
    ) -> Floats:
        """Gradient, by all `weights`, of a sum over rows and their decisions.

        Of `log_probability` (N,) times each row's log-probability, `entropy` times its entropy in
        nats, and, where a choice has a pull (q, w), w times the Kullback-Leibler divergence of
        its softmax from q, as a mean over rows.
        """
        count = len(log_probability)
        by_weight = np.zeros_like(self.weights)
        weights, gradients = self._parts(self.weights), self._parts(by_weight)
        by_hidden = np.zeros((self.layers, count, self.hidden))
        by_cell = np.zeros_like(by_hidden)
        by_input = np.zeros((count, self.hidden))
        for decision in reversed(followed.decisions):
            position, on = decision.position, decision.on[:, None]
            gradients.embeddings[position] += product("nk,nh->kh", decision.drawn, by_input * on)
            by_logits = log_probability[:, None] * (decision.drawn - decision.probabilities)
            by_logits += entropy * decision.by_entropy()
            if pulls and position in pulls:
                wanted, weight = pulls[position]
                by_logits += weight / count * decision.by_divergence(wanted)
            by_logits *= decision.slope * on
            gradients.biases[position] += by_logits.sum(0)
            gradients.outputs[position] += product("nh,nk->hk", decision.hidden, by_logits)
            above = product("nk,hk->nh", by_logits, weights.outputs[position])
            for layer in range(self.layers - 1, -1, -1):
                step = decision.steps[layer]
                by_own = (by_hidden[layer] + above) * on
                by_gates, by_cell_before = step.backward(by_own, by_cell[layer] * on)
                gradients.lstms[layer] += product("nj,ng->jg", step.joined, by_gates)
                by_joined = product("ng,jg->nj", by_gates, weights.lstms[layer])
                above = by_joined[:, : self.hidden]
                by_hidden[layer] = by_hidden[layer] * ~on + by_joined[:, self.hidden :]
                by_cell[layer] = by_cell[layer] * ~on + by_cell_before
            by_input = by_input * ~on + above
        gradients.start[:] = by_input.sum(0)
        return by_weight

    def _run(self, chosen: NDArray[np.int64], random: Floats | None = None) -> Followed:
        """Go through all choices; those at random, by numbers from 0 to 1, go into `chosen`."""
        count = len(chosen)
        weights = self._parts(self.weights)
        hidden = np.zeros((self.layers, count, self.hidden))
        cells = np.zeros_like(hidden)
        inputs = np.broadcast_to(weights.start, (count, self.hidden))
        decisions = []
        for number, position in enumerate(self._order):
            on = self._on(position, chosen)
            steps = []
            value = inputs
            for layer in range(self.layers):
                step = LstmStep.forward(value, hidden[layer], cells[layer], weights.lstms[layer])
                hidden[layer] = np.where(on[:, None], step.hidden, hidden[layer])
                cells[layer] = np.where(on[:, None], step.cell, cells[layer])
                steps.append(step)
                value = step.hidden
            logits = product("nh,hk->nk", value, weights.outputs[position])
            logits = (logits + weights.biases[position]) / self.temperature
            slope = np.full_like(logits, 1 / self.temperature)
            if self.tanh_constant is not None:
                logits = np.tanh(logits)
                slope *= self.tanh_constant * (1 - logits**2)
                logits *= self.tanh_constant
            probabilities = _softmax(logits)
            if random is not None:
                taken = _drawn(probabilities, random[:, number])
                chosen[:, position] = np.where(on, taken, 0)
            drawn = np.eye(probabilities.shape[1])[chosen[:, position]]
            embedded = weights.embeddings[position][chosen[:, position]]
            inputs = np.where(on[:, None], embedded, inputs)
            decisions.append(_Decision(position, on, drawn, probabilities, slope, value, steps))
        return Followed(decisions)

    def _on(self, position: int, chosen: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which rows have the choice at this position switched on."""
        on = np.ones(len(chosen), dtype=bool)
        for parent, allowed in self._conditions[position]:
            on &= np.isin(chosen[:, parent], allowed)
        return on

    def _parts(self, flat: Floats) -> _Parts:
        """What a vector as long as `weights` holds, by its meaning; views of it."""
        sizes = [math.prod(shape) for shape in self._shapes]
        pieces = np.split(flat, np.cumsum(sizes[:-1]))
        views = [piece.reshape(shape) for piece, shape in zip(pieces, self._shapes, strict=True)]
        first, count = 1 + self.layers, len(self.option_counts)
        return _Parts(
            views[0],
            views[1:first],
            views[first : first + count],
            views[first + count : first + 2 * count],
            views[first + 2 * count :],
        )


@dataclass(frozen=True, slots=True)
class _Parts:
    """The first input, each LSTM's gates, and of each choice outputs, embeddings and biases."""

    start: Floats
    lstms: list[Floats]
    outputs: list[Floats]
    embeddings: list[Floats]
    biases: list[Floats]


@dataclass(frozen=True, slots=True)
class _Decision:
    """One choice: which rows have it on (N,), what was drawn, one-hot, and its softmax (N, K).

    `slope` is that of the logits by what the outputs give, `hidden` the top LSTM's.
    """

    position: int
    on: NDArray[np.bool_]
    drawn: Floats
    probabilities: Floats
    slope: Floats
    hidden: Floats
    steps: list[LstmStep]

    def log_probability(self) -> Floats:
        return np.where(self.on, np.log((self.probabilities * self.drawn).sum(1)), 0.0)

    def entropy(self) -> Floats:
        return np.where(self.on, -(self.probabilities * np.log(self.probabilities)).sum(1), 0.0)

    def by_entropy(self) -> Floats:
        """Gradient of the entropy by the logits."""
        logs = np.log(self.probabilities)
        mean: Floats = (self.probabilities * logs).sum(1, keepdims=True)
        return -self.probabilities * (logs - mean)

    def by_divergence(self, wanted: Floats) -> Floats:
        """Gradient of the divergence from `wanted` by the logits."""
        logs = np.log(self.probabilities / wanted)
        mean: Floats = (self.probabilities * logs).sum(1, keepdims=True)
        return self.probabilities * (logs - mean)


@dataclass(frozen=True, slots=True)
class Followed:
    """Rows of decisions, as a controller makes them; sums are over the choices that are on."""

    decisions: list[_Decision]

    def log_probability(self) -> Floats:
        """Of each row (N,)."""
        return _total([decision.log_probability() for decision in self.decisions])

    def entropy(self) -> Floats:
        """In nats, of all the decisions that were made on the way, for each row (N,)."""
        return _total([decision.entropy() for decision in self.decisions])

    def divergence(self, pulls: Pulls) -> float:
        """What `Controller.gradient` has the gradient of: a mean over rows."""
        total = 0.0
        for decision in self.decisions:
            if decision.position in pulls:
                wanted, weight = pulls[decision.position]
                logs = np.log(decision.probabilities / wanted)
                rows = (decision.probabilities * logs).sum(1)
                total += weight * float(np.where(decision.on, rows, 0.0).mean())
        return total


def _conditions(choices: Sequence[Choice]) -> list[list[tuple[int, list[int]]]]:
    """For each choice the positions that it depends on, and the options that switch it on."""
    positions = {choice.name: position for position, choice in enumerate(choices)}
    return [
        [
            (positions[name], [choices[positions[name]].options.index(item) for item in allowed])
            for name, allowed in choice.when.items()
        ]
        for choice in choices
    ]


def _parents_first(conditions: list[list[tuple[int, list[int]]]]) -> list[int]:
    """All positions in their order, but that each comes after those it depends on."""
    order: list[int] = []
    waiting = [*range(len(conditions))]
    while waiting:
        position = next(
            position
            for position in waiting
            if all(parent in order for parent, _ in conditions[position])
        )
        order.append(position)
        waiting.remove(position)
    return order


def _drawn(probabilities: Floats, random: Floats) -> NDArray[np.int64]:
    """An option for each row, by a number between 0 and 1."""
    sums = probabilities.cumsum(1)
    passed: NDArray[np.int64] = (sums <= random[:, None] * sums[:, -1:]).sum(1)
    last = np.int64(sums.shape[1] - 1)
    taken: NDArray[np.int64] = np.minimum(passed, last)
    return taken


def _softmax(logits: Floats) -> Floats:
    """Of each row, at least the smallest normal number, so that it has a logarithm."""
    exponentials = np.exp(logits - logits.max(1, keepdims=True))
    result: Floats = exponentials / exponentials.sum(1, keepdims=True)
    return np.maximum(result, np.finfo(np.float64).tiny)


def _total(terms: list[Floats]) -> Floats:
    result: Floats = np.sum(terms, axis=0)
    return result
