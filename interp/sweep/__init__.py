"""The engine: many changed runs, and derivatives, as one wave through the layers beside the run that nothing changes."""

from interp.sweep.engine import MAX_BYTES, Swept, sweep
from interp.sweep.interventions import Add, Apply, Intervention, Patch, Row, Scale, Set

__all__ = ["MAX_BYTES", "Add", "Apply", "Intervention", "Patch", "Row", "Scale", "Set", "Swept", "sweep"]
