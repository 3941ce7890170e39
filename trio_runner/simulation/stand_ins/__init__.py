"""Stand-ins for an engine's surroundings: the aggregator, the network and the disk."""
