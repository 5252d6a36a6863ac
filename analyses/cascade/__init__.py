"""Does a disturbance die away like a piano string's, or grow as in a pile above critical size?"""

from analyses.cascade.gain import gain
from analyses.cascade.jacobian import jacobian_spectrum
from analyses.cascade.lyapunov import lyapunov
from analyses.cascade.twin import random_twin

__all__ = ["gain", "jacobian_spectrum", "lyapunov", "random_twin"]
