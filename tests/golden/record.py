"""Records the golden journals again.

    python -m tests.golden.record

Run it only when a change of behaviour is intended and is in CHANGELOG.md, never to
make `tests/test_golden.py` pass: these journals say what runs of earlier versions did,
and users continue such runs. Look at the test's output before, and name it there.
"""

from __future__ import annotations

import collections
import logging
import pathlib
import tempfile

from tests.golden import recording
from tests.golden.scripts import played
from tests.golden.tables import Tables


def main() -> None:
    """Play all scripts, write their journals, and print what they were made with."""
    logging.disable(logging.CRITICAL)  # Half of the calls in a script cause a warning.
    scripts: dict[int, Tables] = {}
    calls: collections.Counter[str] = collections.Counter()
    kinds: collections.Counter[str] = collections.Counter()
    for seed in range(recording.SCRIPTS):
        with tempfile.TemporaryDirectory() as folder:
            stage = played(seed, pathlib.Path(folder))
            scripts[seed] = stage.tables()
        calls.update(stage.counts)
        kinds[stage.kind] += 1
    recording.save(scripts)
    print(f"{recording.FILE.name}: {recording.FILE.stat().st_size} bytes")
    print("scripts:", dict(sorted(kinds.items())))
    print("calls:", dict(sorted(calls.items())))


if __name__ == "__main__":
    main()
