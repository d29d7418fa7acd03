"""The stiffness room: gradient cosines to tidy tables."""
