"""Training in the loop's words. The loss of a Denoiser is in loss.py."""
