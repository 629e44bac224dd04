"""The public surfaces. Each parses, calls the gateway and translates; none knows an actor or another surface."""
