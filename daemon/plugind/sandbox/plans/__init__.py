"""Files of plans, read and written as their caller."""
