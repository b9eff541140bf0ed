"""What two Rheos processes must agree on: events, state, topics, snapshots, settings, metrics."""
