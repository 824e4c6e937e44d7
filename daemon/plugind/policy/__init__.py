"""Pure decisions: values in, Decision with all reasons out."""
