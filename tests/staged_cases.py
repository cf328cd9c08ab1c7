"""A small staged space to relax: a fixed stage, then two with operations and depths to choose."""

import numpy as np
from latkit.search.spaces.heads import pooled_head
from latkit.search.spaces.layers import OneOf, Operation
from latkit.search.spaces.staged import HEAD_WIDTH, Stage, StagedSpace, Stem

OPERATIONS = (Operation(3, 3), Operation(5, 3), Operation(3, 6, True))


def small_space(**changes):
    stage = {"layers": 3, "stride": 2, "choices": OneOf(OPERATIONS), "depths": (1, 2, 3)} | changes
    return StagedSpace(
        "small",
        resolutions=(8,),
        stem=Stem((8,), stride=1),
        stages=[
            Stage((8,), 1, 1, OneOf(OPERATIONS[:1])),
            Stage((8,), 2, 1, OneOf(OPERATIONS), depths=(1, 2)),
            Stage((16,), **stage),
        ],
        head_widths={HEAD_WIDTH: (24,)},
        make_head=pooled_head(10),
    )


def one_hot(supernet, architecture):
    """Plain weights that leave an architecture's operations and depths alone."""
    space, found = supernet.space, {}
    for name, count in supernet.counts.items():
        positions = [
            position
            for position, choice in enumerate(space.choices)
            if choice.name == name or choice.name.startswith(f"{name}.")
        ]
        chosen = [architecture.choices[position] for position in positions]
        counts = [space.option_counts[position] for position in positions]
        best = int(np.ravel_multi_index(chosen, counts)) if chosen else 0
        found[name] = [float(number == best) for number in range(count)]
    return found
