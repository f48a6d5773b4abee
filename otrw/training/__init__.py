"""Training: losses, metrics, the loop, the stages, and a whole run."""
