"""Frameworks' own test suites, run with sessions of msm_fast: one module per framework."""

FRAMEWORKS = ("django", "flask")
