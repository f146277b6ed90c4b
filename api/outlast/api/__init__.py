"""HTTP in, server-sent events out. Submits, reads, streams; never executes an agent."""
