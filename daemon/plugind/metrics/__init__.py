"""What is counted and measured, for Prometheus: no label ever holds a name or a text that somebody outside chose."""
