"""Whole requests: an application behind a real server, under load, with each kind of session and with none."""
