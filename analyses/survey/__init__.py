"""The analyses over data sets: shards, workers, manifests, and summaries."""

import sys
from types import ModuleType

from analyses.survey.collecting import collect
from analyses.survey.running import survey
from analyses.survey.summary import summarise
from analyses.survey.surveyed import SURVEYED

__all__ = ["SURVEYED", "collect", "summarise", "survey"]


class _Callable(ModuleType):
    """`analyses.survey(...)` is the function, also once a part of this package was imported, which makes the name mean the package."""

    __call__ = staticmethod(survey)


sys.modules[__name__].__class__ = _Callable
