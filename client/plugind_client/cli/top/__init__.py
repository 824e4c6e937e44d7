"""`plugindctl top`: what happens in the daemon now, on a terminal, with keys to stop it."""
