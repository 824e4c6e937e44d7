"""Which plugins and versions there are, what was approved, and the content-addressed store of their bytes."""
