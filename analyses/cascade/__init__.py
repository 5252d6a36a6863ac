"""Does a disturbance die away like a piano string's, or grow as in a pile above critical size?"""

from analyses.cascade.avalanches import avalanches
from analyses.cascade.channels import channels
from analyses.cascade.commitment import commitment
from analyses.cascade.contrast import compare_directions
from analyses.cascade.coupled import coupled
from analyses.cascade.damping import damping
from analyses.cascade.disturbances import Nudge, Replace, Swap, Unrelated
from analyses.cascade.dose_response import dose_response
from analyses.cascade.driven import driven
from analyses.cascade.external import external_verdict
from analyses.cascade.gain import gain
from analyses.cascade.jacobian import jacobian_spectrum
from analyses.cascade.joined import joined_verdict
from analyses.cascade.ledger import ledger
from analyses.cascade.light_cone import light_cone
from analyses.cascade.lyapunov import lyapunov
from analyses.cascade.mean_field import mean_field
from analyses.cascade.participation import participation
from analyses.cascade.precision import precision
from analyses.cascade.rasters import rasters
from analyses.cascade.reproduction import reproduction
from analyses.cascade.self_repair import self_repair
from analyses.cascade.stable_regions import stable_regions
from analyses.cascade.survival import survival
from analyses.cascade.temperature import temperature_sweep
from analyses.cascade.twin import random_twin
from analyses.cascade.verdict import internal_verdict
from analyses.cascade.wavefront import wavefront

__all__ = [
    "Nudge",
    "Replace",
    "Swap",
    "Unrelated",
    "avalanches",
    "channels",
    "commitment",
    "compare_directions",
    "coupled",
    "damping",
    "dose_response",
    "driven",
    "external_verdict",
    "gain",
    "internal_verdict",
    "jacobian_spectrum",
    "joined_verdict",
    "ledger",
    "light_cone",
    "lyapunov",
    "mean_field",
    "participation",
    "precision",
    "random_twin",
    "rasters",
    "reproduction",
    "self_repair",
    "stable_regions",
    "survival",
    "temperature_sweep",
    "wavefront",
]
