"""The analyses over data sets: shards, workers, manifests, and summaries."""

from analyses.survey.collecting import collect
from analyses.survey.running import survey
from analyses.survey.summary import summarise
from analyses.survey.surveyed import SURVEYED

__all__ = ["SURVEYED", "collect", "summarise", "survey"]
