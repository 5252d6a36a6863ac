"""What the residual stream says at each layer, read through the unembedding."""

from analyses.lenses.compared import compare_lenses
from analyses.lenses.component import component_lens
from analyses.lenses.logit import logit_lens
from analyses.lenses.published import published_lens
from analyses.lenses.translators import TunedLens, load_lens, save_lens
from analyses.lenses.tuned import tuned_lens
from analyses.lenses.tuning import train_tuned_lens
from analyses.lenses.writing import OwnWords, own_words

__all__ = [
    "OwnWords",
    "TunedLens",
    "compare_lenses",
    "component_lens",
    "load_lens",
    "logit_lens",
    "own_words",
    "published_lens",
    "save_lens",
    "train_tuned_lens",
    "tuned_lens",
]
