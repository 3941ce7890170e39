"""Keeps an Open Pectus engine connected to its aggregator, with Trio's structured concurrency."""
