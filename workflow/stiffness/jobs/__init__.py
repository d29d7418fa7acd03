"""What surrounds every job: its record, provenance, presence and GPUs."""
