"""The front's part in files of plans: what runs may do there, changes that are all or nothing, and their undoing."""
