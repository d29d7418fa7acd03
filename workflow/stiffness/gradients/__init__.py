"""The gradients room: checkpoints to gradient cosines and log-norms."""
