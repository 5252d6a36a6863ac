"""A model's figures against published ones: whether it is the model that it is taken for, computed as others compute it."""

from analyses.verification.checks import Check, verify
from analyses.verification.reference import PUBLISHED, read_reference, reference_of, write_reference

__all__ = ["PUBLISHED", "Check", "read_reference", "reference_of", "verify", "write_reference"]
