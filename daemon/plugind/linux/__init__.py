"""System calls and kernel subsystems, one file each. Used by the sandbox only."""
