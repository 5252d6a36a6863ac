"""Linear maps of the model."""

from torch import nn


class Linear(nn.Linear):
    """A linear map whose weights the model initialises, or a loader fills."""

    def reset_parameters(self) -> None:
        """Leave the weights alone."""
