"""What shapes a model's numbers besides its weights."""

import json
from typing import Any

from analyses.results import as_json
from interp.model import Transformer


def architecture(model: Transformer) -> dict[str, Any]:
    """The configuration as JSON values, without what only shaped the weights: equal weights may be of two models, say with other heads."""
    found: dict[str, Any] = json.loads(as_json(model.config.to_dict()))
    found.pop("init_std")
    return found
