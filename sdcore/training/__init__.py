"""Training in the loop's words."""

from sdcore.training.loss import squared_error

__all__ = ["squared_error"]
