"""What carries flows out: the only code that does I/O."""
