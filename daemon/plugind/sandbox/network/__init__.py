"""Networks of instances: names, addresses, namespaces, and what gets through. The launcher asks, two processes do."""
