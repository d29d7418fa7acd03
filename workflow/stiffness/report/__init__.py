"""The last room: what the tables say about the paper's claims."""
