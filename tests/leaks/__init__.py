"""What the compiled core does over and over, and the memory and references that must be left as they were."""
