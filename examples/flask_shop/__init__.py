"""The shop in Flask."""
