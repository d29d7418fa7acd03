"""The training room: arrays to checkpoints."""
