"""The simulated engine: a filtration skid, and the P-code that runs on it."""
