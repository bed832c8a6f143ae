"""What a worker tells of itself to probes and to whoever measures: by HTTP from its supervisor, or by a file."""
