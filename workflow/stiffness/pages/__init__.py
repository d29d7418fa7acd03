"""The committed results: tables in docs/data, pictures of them, and what pages say of them."""
