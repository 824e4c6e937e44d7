"""Draws a table of costs for people.

[corpus]
habit = "rich asks for the size of a terminal, colours and the locale, and finds none of them"
inputs = [{steel = 10, glass = 4}]
check = "'steel' in output and '10' in output"
runs = 3

[manifest]
environment = "tools"
"""

import io

from rich.console import Console
from rich.table import Table


def run(payload, context):
    table = Table("what", "cost")
    for name, cost in payload.items():
        table.add_row(name, str(cost))
    Console().print(table)
    drawn = Console(file=io.StringIO(), width=60)
    drawn.print(table)
    return drawn.file.getvalue()
