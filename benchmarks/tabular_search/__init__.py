"""Strategies side by side on a table of accuracies and latencies: `benchmarks/tabular.py`."""
