"""Simulated lives of an engine: faults, the world that meets them, and the oracle that judges."""
