"""plugind: runs other people's plugins in a jail, after they were verified and approved."""
