"""Putting back what runs have replaced in plans, and telling what a version has touched."""
