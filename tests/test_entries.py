"""How short the path of a call is: the package's own functions that it enters."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "entries.py"


def test_a_call_enters_at_most_a_hundred_functions() -> None:
    """Fails where a change adds indirection to every call: `benchmarks/entries.py --list` names the functions."""
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=True, timeout=120)
    (entries,) = re.findall(r"^http .*: (\d+) entries", done.stdout, re.MULTILINE)
    assert int(entries) <= 100
