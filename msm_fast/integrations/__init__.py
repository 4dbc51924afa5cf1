"""Adapters: cookies and the conventions of frameworks, nothing else."""
