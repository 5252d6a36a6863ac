"""The cascade: does a small disturbance die away or grow?"""

from analyses.cascade.gain import gain
from analyses.cascade.twin import random_twin

__all__ = ["gain", "random_twin"]
