"""RunFiles of the fake daemon: the run is answered as Run is, and the files are kept and sent back as a test says."""

# ruff: noqa: N802 - the methods are named by the protocol

import hashlib

from plugind_proto.v1 import runtime_pb2


def written(contents):
    """What a response tells of files with these contents, by path."""
    return [
        runtime_pb2.WrittenFile(path=path, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        for path, content in contents.items()
    ]


class RunFiles:
    """A part of FakeDaemon. `chunk_sizes`: of the last call, sizes and whether a file ended."""

    def RunFiles(self, requests, context):
        first = next(requests)
        self._admit(first.run, context)
        files, self.chunk_sizes = {}, []
        if self.answers.get(first.run.plugin) == "early":
            yield runtime_pb2.RunFilesResponse(run=self.answers["denial"])
            return
        for message in requests:
            chunk = message.file
            files[chunk.path] = files.get(chunk.path, b"") + chunk.data
            self.chunk_sizes.append((len(chunk.data), chunk.last))
        self.received.append(files)
        answer = self._answered(first.run, context)
        sends = self.sends.get(first.run.plugin, {})
        if isinstance(sends, list):
            yield from sends
            return
        for path, content in sends.items():
            half = len(content) // 2
            for data, last in ((content[:half], False), (content[half:], True)):
                yield runtime_pb2.RunFilesResponse(file=runtime_pb2.FileChunk(path=path, data=data, last=last))
        yield runtime_pb2.RunFilesResponse(run=answer)
