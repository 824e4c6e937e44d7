"""Manifest, bundle format, signatures: what the bytes are and who vouches for them."""
