r"""Makes short names of titles in any language.

[corpus]
habit = "all of Unicode in and out: emoji, right to left, combining marks, control characters that are escaped"
inputs = ["Brücke 🌉 über dén Fluß\u0000 שלום"]
check = "output['title'] == payload and output['slug'] == 'brucke-uber-den-fluss'"
runs = 3
"""

import re
import unicodedata


def run(payload, context):
    plain = unicodedata.normalize("NFKD", payload.casefold()).encode("ascii", "ignore").decode()
    return {"title": payload, "slug": re.sub(r"[^a-z]+", "-", plain).strip("-")}
