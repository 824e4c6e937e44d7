"""Packs the files of a report, with their checksums.

[corpus]
habit = "zip and tar in memory and in scratch, links within its own folder, walking through trees"
inputs = [{"a.txt" = "one", "b.txt" = "two"}]
outputs = [["a.txt", "b.txt", "latest"]]
runs = 3
"""

import io
import os
import pathlib
import shutil
import tarfile
import zipfile


def run(payload, context):
    folder = pathlib.Path("/tmp/report")
    folder.mkdir()
    for name, text in payload.items():
        (folder / name).write_text(text)
    (folder / "latest").symlink_to("a.txt")
    shutil.make_archive("/tmp/report", "gztar", folder)
    with zipfile.ZipFile(io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for base, _, names in os.walk(folder):
            for name in names:
                archive.write(os.path.join(base, name), name)
    with tarfile.open("/tmp/report.tar.gz") as archive:
        return sorted(os.path.basename(name) for name in archive.getnames() if name != ".")
