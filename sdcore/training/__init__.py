"""Training in the loop's words."""

from sdcore.training.loss import min_snr_weight, squared_error

__all__ = ["min_snr_weight", "squared_error"]
