"""The jail: what it is (jailspec), who builds it (launcher, template), who watches it (supervisor)."""
