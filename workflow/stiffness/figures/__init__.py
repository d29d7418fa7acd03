"""The figures room: tables to pictures."""
