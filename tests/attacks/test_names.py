"""Names that users give, and arguments in odd forms: see `names.py`, which runs without the tests' type checks."""

import subprocess
import sys
from pathlib import Path


def test_what_is_no_name_is_named():
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("names.py"))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
