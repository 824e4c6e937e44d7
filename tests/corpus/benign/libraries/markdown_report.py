r"""Turns the Markdown of a stage into HTML.

[corpus]
habit = "markdown-it with its tables of entities, and Pygments, which finds its lexers by entry points"
inputs = ["# Risks\n\n- frost\n- *rain*"]
check = "'<h1>Risks</h1>' in output and '<em>rain</em>' in output"
runs = 3

[manifest]
environment = "tools"
"""

from markdown_it import MarkdownIt
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name


def run(payload, context):
    code = highlight("total = 1", get_lexer_by_name("python"), HtmlFormatter())
    return MarkdownIt().render(payload) + code
