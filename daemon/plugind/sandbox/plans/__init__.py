"""What the plan helper does in a plan's folder, in a process that has become the caller. Begins in tasks.py.

No name is trusted, no link followed, no mount crossed. Source: SPEC.md, section "Files of a plan".
"""
