"""Simulated lives of an engine: the faults, the world that meets them and the oracle's verdict."""
