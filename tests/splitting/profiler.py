"""What LiteRT's own profiler names for some files."""

import json
import subprocess
import sys

PROFILER = """
import json, pathlib, sys
from latkit.devices.litert_profile import LiteRtProfile
found = []
for path in json.load(sys.stdin):
    profile = LiteRtProfile(pathlib.Path(path), 1)
    profile.run()
    found.append([item.kind for item in profile.operations([True])[0]])
print("NAMES", json.dumps(found))
"""


def profiled_names(paths):
    """The kinds of operations that LiteRT's profiler names for each file, from one process."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROFILER],
        input=json.dumps([str(path) for path in paths]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.rpartition("NAMES ")[2])
