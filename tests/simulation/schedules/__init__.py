"""Seeded schedules: everything in one comes from its seed, so a failing one can be run again alone."""
