"""Protocol buffers of plugind."""
