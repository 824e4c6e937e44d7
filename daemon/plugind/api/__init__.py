"""gRPC: the accept loop, the servicers, and the one map from errors to status codes."""
