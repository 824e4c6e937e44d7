"""`python -m plugind_client.cli` is plugindctl."""

from plugind_client.cli import main

main()
