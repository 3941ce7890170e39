"""What stands in for what is around an engine: the aggregator, the network and the disk."""
