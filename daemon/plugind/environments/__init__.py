"""Named sets of packages that an operator built for plugins: how they lie on the disk, and how they get there.

`shelf` and `tree` are all that the front and the launcher load; `build` and `lock` are for the command line.
"""
