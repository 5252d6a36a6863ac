"""Whole numbers that users give, in every form and in none: see `indices.py`, which runs without the tests' type checks."""

import subprocess
import sys
from pathlib import Path

import pytest


def attack(how: str) -> str:
    script = Path(__file__).with_name("indices.py")
    done = subprocess.run([sys.executable, str(script), how], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_each_means_the_right_thing_or_is_named():
    assert int(attack("brief").split()[0]) > 150


@pytest.mark.slow
def test_every_form_of_each():
    assert int(attack("whole").split()[0]) > 150
