"""The compiled core: bytes and hot loops; no policy, no I/O."""
