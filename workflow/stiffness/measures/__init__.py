"""The measures room: gradient cosines to tidy tables."""
