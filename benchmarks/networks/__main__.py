"""Writes the networks as ONNX files: `python -m networks --output DIR`, run in benchmarks/."""

from __future__ import annotations

import argparse
from pathlib import Path

from .catalogue import INPUT_SHAPES, NETWORKS, export


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m networks", description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for the .onnx files")
    parser.add_argument("--only", nargs="+", choices=sorted(NETWORKS), help="these networks alone")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name in arguments.only or NETWORKS:
        path = arguments.output / f"{name}.onnx"
        export(name, path, arguments.seed)
        print(f"{path}  {INPUT_SHAPES[name]}  {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
