"""What ``/metrics`` tells. docs/metrics.md lists everything; a test compares."""
