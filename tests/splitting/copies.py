"""Probes of operators that move data."""

from .graph import (
    IMAGE,
    padding,
    probe,
    reshape,
    transposed,
)


def register_copies():
    for count in (2, 5, 6):
        probe(f"CONCATENATION of {count}")(
            lambda graph, value, n=count: graph.add(
                "CONCATENATION",
                [value, *(graph.input(*IMAGE) for _ in range(n - 1))],
                (1, 14, 14, 16 * n),
                "Concatenation",
                axis=3,
            )
        )
    for count in (2, 4, 8):
        probe(f"SPLIT into {count}")(
            lambda graph, value, n=count: graph.several(
                "SPLIT",
                [graph.integers(3), value],
                [(1, 14, 14, 16 // n)] * n,
                "Split",
                numSplits=n,
            )
        )
    probe("SPLIT_V")(
        lambda graph, value: graph.several(
            "SPLIT_V",
            [value, graph.integers([4, 12]), graph.integers(3)],
            [(1, 14, 14, 4), (1, 14, 14, 12)],
            "SplitV",
            numSplits=2,
        )
    )
    for order in ((0, 3, 1, 2), (0, 2, 1, 3)):
        shape = tuple(IMAGE[axis] for axis in order)
        probe(f"TRANSPOSE {order}")(
            lambda graph, value, o=order, s=shape: transposed(graph, value, o, s)
        )
    probe("TRANSPOSE of five axes", (1, 5, 5, 2, 8))(
        lambda graph, value: transposed(graph, value, [0, 1, 2, 4, 3], (1, 5, 5, 8, 2))
    )
    probe("RESHAPE")(lambda graph, value: reshape(graph, value, 1, 196, 16))
    probe("RESHAPE twice")(
        lambda graph, value: reshape(graph, reshape(graph, value, 1, 196, 16), 196, 16)
    )
    probe("SQUEEZE", (1, 1, 1, 16))(
        lambda graph, value: graph.add("SQUEEZE", [value], (1, 16), "Squeeze", squeezeDims=[1, 2])
    )
    for name, kind, extra, shape, table in (
        ("SLICE", "SLICE", ([0, 0, 0, 0], [1, 14, 14, 8]), (1, 14, 14, 8), "Slice"),
        ("SLICE to the end", "SLICE", ([0, 1, 0, 0], [1, -1, 14, 16]), (1, 13, 14, 16), "Slice"),
        (
            "STRIDED_SLICE",
            "STRIDED_SLICE",
            ([0, 1, 1, 0], [1, 14, 14, 16], [1, 1, 1, 1]),
            (1, 13, 13, 16),
            "StridedSlice",
        ),
        (
            "STRIDED_SLICE by two",
            "STRIDED_SLICE",
            ([0, 0, 0, 0], [1, 14, 14, 16], [1, 2, 2, 1]),
            (1, 7, 7, 16),
            "StridedSlice",
        ),
        ("GATHER", "GATHER", ([0, 2, 4],), (1, 14, 14, 3), "Gather"),
        ("TILE", "TILE", ([1, 2, 1, 1],), (1, 28, 14, 16), "Tile"),
    ):
        settings = {"axis": 3} if kind == "GATHER" else {}
        probe(name)(
            lambda graph, value, k=kind, e=extra, s=shape, t=table, more=settings: graph.add(
                k, [value, *(graph.integers(item) for item in e)], s, t, **more
            )
        )
    for name, amounts, shape in (
        ("PAD of an image", [[0, 0], [1, 1], [1, 1], [0, 0]], (1, 16, 16, 16)),
        ("PAD of channels", [[0, 0], [0, 0], [0, 0], [2, 2]], (1, 14, 14, 20)),
    ):
        probe(name)(lambda graph, value, a=amounts, s=shape: padding(graph, value, a, s))
    for name, kind, table, shape, settings in (
        ("DEPTH_TO_SPACE", "DEPTH_TO_SPACE", "DepthToSpace", (1, 28, 28, 4), {"blockSize": 2}),
        ("SPACE_TO_DEPTH", "SPACE_TO_DEPTH", "SpaceToDepth", (1, 7, 7, 64), {"blockSize": 2}),
    ):
        probe(name)(
            lambda graph, value, k=kind, t=table, s=shape, more=settings: graph.add(
                k, [value], s, t, **more
            )
        )
    for kind, table in (
        ("RESIZE_BILINEAR", "ResizeBilinear"),
        ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighbor"),
    ):
        probe(kind)(
            lambda graph, value, k=kind, t=table: graph.add(
                k, [value, graph.integers([28, 28])], (1, 28, 28, 16), t, halfPixelCenters=True
            )
        )


register_copies()
