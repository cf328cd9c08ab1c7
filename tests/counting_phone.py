"""A phone that takes a time for each operation, and the table of a space that it would give."""

import onnx
from latkit.devices.device import Round, Setup, Visit
from latkit.latency.calibration import Calibration, is_timed
from latkit.latency.counts import block_counts, count
from latkit.latency.table import Entry, LatencyTable

TABLE_MS_PER_FLOP = 1e-7


class Phone:
    """Stands where a phone would: every model takes `ms_per_flop`, to the nanosecond."""

    def __init__(self, ms_per_flop):
        self.setup = Setup("phone", "onnxruntime", "1")
        self.ms_per_flop = ms_per_flop
        self.canary_ns = 1000
        self.calls = []

    def info(self):
        return {}

    def measure(self, models, protocol):
        self.calls.append([model.id for model in models])
        times = {
            model.key: round(count(onnx.load(model.path)).flops * self.ms_per_flop * 1e6)
            for model in models
        }
        for index in range(protocol.rounds):
            yield Round(
                run_id=str(len(self.calls)),
                process=index * protocol.processes // protocol.rounds,
                index=index,
                attempt=0,
                accepted=True,
                started_at=0.0,
                duration_s=0.1,
                canary_ns=(self.canary_ns,) * 5,
                canary_drift=0.0,
                visits={key: Visit((time,) * 3, (False,) * 3) for key, time in times.items()},
            )


def table_of(space, setup):
    entries = {}
    for block in space.blocks():
        if is_timed(block):
            median_ms = max(1, block_counts(block).flops) * TABLE_MS_PER_FLOP
            entries[block] = Entry(median_ms, median_ms, median_ms)
    return LatencyTable(setup, 0, 16, entries, Calibration(interval_share=0.1))
