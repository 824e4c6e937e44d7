"""What several tests need: a fake launcher, a front in this process, a real daemon."""
