"""What the service says of itself: metrics, traces, logs, audit."""
