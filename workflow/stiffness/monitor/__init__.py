"""The workflow's measurements in a training loop, or on checkpoints, of somebody else's."""
