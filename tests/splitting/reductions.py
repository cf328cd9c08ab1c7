"""Probes of pools, reductions and matrix products."""

from .graph import (
    ACTIVATION,
    SAME,
    SEQUENCE,
    VALID,
    dense,
    pool,
    probe,
    reduced,
    reshape,
    transposed,
)


def register_pools_and_reductions():
    for kind in ("AVERAGE_POOL_2D", "MAX_POOL_2D"):
        for window, stride, padded in (
            (1, 1, VALID),
            (1, 2, VALID),
            (2, 2, VALID),
            (2, 2, SAME),
            (3, 1, SAME),
            (14, 1, VALID),
        ):
            probe(f"{kind} {window} stride {stride} padding {padded}")(
                lambda graph, value, k=kind, w=window, s=stride, p=padded: pool(
                    graph, value, k, w, s, p
                )
            )
        probe(f"{kind} with relu")(
            lambda graph, value, k=kind: pool(graph, value, k, 2, 2, VALID, ACTIVATION.RELU)
        )
        probe(f"{kind} then relu")(
            lambda graph, value, k=kind: graph.add(
                "RELU", [pool(graph, value, k, 2, 2)], (1, 7, 7, 16)
            )
        )
    for kind in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"):
        probe(f"{kind} of an image")(
            lambda graph, value, k=kind: reduced(graph, value, k, [1, 2], (1, 1, 1, 16))
        )
        probe(f"{kind} of an image, flat")(
            lambda graph, value, k=kind: reduced(graph, value, k, [1, 2], (1, 16), keep=False)
        )
        probe(f"{kind} of channels")(
            lambda graph, value, k=kind: reduced(graph, value, k, [3], (1, 14, 14, 1))
        )
        probe(f"{kind} of a sequence", SEQUENCE)(
            lambda graph, value, k=kind: reduced(graph, value, k, [1], (1, 16), keep=False)
        )


def register_products():
    for shape, keep in (((1, 16), False), ((1, 16), True), ((4, 16), False), (SEQUENCE, True)):
        probe(f"FULLY_CONNECTED of {shape} kept {keep}", shape)(
            lambda graph, value, s=shape, k=keep: dense(graph, value, 16, 8, (*s[:-1], 8), k)
        )
    probe("FULLY_CONNECTED with relu", (1, 16))(
        lambda graph, value: dense(graph, value, 16, 8, (1, 8), activation=ACTIVATION.RELU)
    )
    probe("FULLY_CONNECTED then relu", (1, 16))(
        lambda graph, value: graph.add("RELU", [dense(graph, value, 16, 8, (1, 8))], (1, 8))
    )
    probe("RESHAPE then FULLY_CONNECTED", (1, 1, 1, 16))(
        lambda graph, value: dense(graph, reshape(graph, value, 1, 16), 16, 8, (1, 8))
    )
    probe("FULLY_CONNECTED then RESHAPE", (1, 16))(
        lambda graph, value: reshape(graph, dense(graph, value, 16, 8, (1, 8)), 1, 1, 1, 8)
    )
    for name, other, adjoint in (
        ("BATCH_MATMUL", (1, 4, 8, 12), {}),
        ("BATCH_MATMUL, second transposed", (1, 4, 12, 8), {"adjY": True}),
    ):
        probe(name, (1, 4, 10, 8))(
            lambda graph, value, o=other, a=adjoint: graph.add(
                "BATCH_MATMUL", [value, graph.input(*o)], (1, 4, 10, 12), "BatchMatMul", **a
            )
        )
    probe("BATCH_MATMUL, first transposed", (1, 4, 8, 10))(
        lambda graph, value: graph.add(
            "BATCH_MATMUL",
            [value, graph.input(1, 4, 8, 12)],
            (1, 4, 10, 12),
            "BatchMatMul",
            adjX=True,
        )
    )
    probe("BATCH_MATMUL with weights", (1, 10, 8))(
        lambda graph, value: graph.add(
            "BATCH_MATMUL", [value, graph.weights(1, 8, 12)], (1, 10, 12), "BatchMatMul"
        )
    )
    probe("TRANSPOSE then BATCH_MATMUL", (1, 10, 8))(
        lambda graph, value: graph.add(
            "BATCH_MATMUL",
            [value, transposed(graph, graph.input(1, 12, 8), [0, 2, 1], (1, 8, 12))],
            (1, 10, 12),
            "BatchMatMul",
        )
    )


register_pools_and_reductions()
register_products()
