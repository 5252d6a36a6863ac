"""The live page, served while a test asks for it."""

import threading
from contextlib import contextmanager

from analyses.explorer.serve import Server
from analyses.explorer.state import State
from interp.zoo import DEFAULT_PAIR

START = State(clean=DEFAULT_PAIR.clean, corrupt=DEFAULT_PAIR.corrupt)


@contextmanager
def served(models, **place):
    """The page of these models; `place` says where it is listened for, by default on this machine."""
    made = Server(START, given=models, port=0, **place)
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.stop()
        thread.join(10)
