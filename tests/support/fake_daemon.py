"""A daemon that runs nothing: the real gRPC services on a real Unix socket, with answers that a test chooses; and the
real plugindctl, in this process, in one of its own or on a terminal, to talk to it.

It keeps a registry of what was submitted and approved as the contract says, so that the client's order of calls is
checked, and every request, so that a test can look at what was sent.
"""

# ruff: noqa: N802 - the methods are named by the protocol

import contextlib
import fcntl
import hashlib
import io
import json
import os
import pty
import struct
import subprocess
import sys
import tarfile
import termios
import threading
import time
from concurrent import futures
from dataclasses import dataclass, field

import grpc

from plugind_client.cli import main
from plugind_proto.v1 import (
    common_pb2,
    governance_pb2,
    governance_pb2_grpc,
    monitor_pb2,
    registry_pb2,
    registry_pb2_grpc,
    runtime_pb2,
    runtime_pb2_grpc,
)
from tests.support.fake_batches import Batches
from tests.support.fake_files import RunFiles
from tests.support.fake_incidents import Incidents

GOVERNANCE = common_pb2.GovernanceRecord(
    plugin_id="plug_1",
    tier="Tier 2",
    permissions=["file_read"],
    execution_limit_ms=5000,
    audit_log="log_7",
)


def allowed(output=b"null", **fields):
    """A run that went well."""
    given = {
        "decision": "allow",
        "outcome": "ok",
        "output_json": output,
        "governance": GOVERNANCE,
        "usage": common_pb2.Usage(wall_ms=12, cpu_ms=7, memory_peak_bytes=4096),
        "run_id": "r1",
        "version": "1.0.0",
    }
    return runtime_pb2.RunResponse(**(given | fields))


def ended(outcome, detail="", **fields):
    """A run that started and did not end well."""
    return allowed(b"", outcome=outcome, outcome_detail=detail, **fields)


def denied(*codes):
    """A run that never started."""
    reasons = [
        common_pb2.Reason(code=code, rule=f"gate.{code.lower()}", expected="yes", actual="no", remedy=f"mend {code}")
        for code in codes
    ]
    return runtime_pb2.RunResponse(decision="deny", reasons=reasons, governance=GOVERNANCE, version="1.0.0")


def healthy():
    """A daemon with nothing wrong."""
    return governance_pb2.StatusResponse(
        daemon_version="1.0",
        mode="production",
        started_unix_ms=1_700_000_000_000,
        runs_in_flight=2,
        cgroup_driver="unified",
        ledger_size=41,
        ledger_root="ab" * 32,
        journal="41 records sent",
        policy_sha256="cd" * 32,
        policy_path="/etc/plugind/policy.toml",
        plugins=3,
    )


def echo(request, _context):
    """The input is the output."""
    return allowed(request.input_json)


@dataclass
class FakeDaemon(
    Batches,
    RunFiles,
    Incidents,
    runtime_pb2_grpc.RuntimeServicer,
    registry_pb2_grpc.RegistryServicer,
    governance_pb2_grpc.GovernanceServicer,
):
    """All services of plugind.v1. `answers` maps a plugin's name to a RunResponse or a function (request, context)."""

    socket: str
    answers: dict = field(default_factory=lambda: {"echo": echo})
    maps: dict = field(default_factory=dict)
    """By plugin: a function (request, context) that gives what Map answers."""
    streams: dict = field(default_factory=dict)
    """By plugin: a function (requests, context) that gives what Session answers after it was opened."""
    received: list = field(default_factory=list)
    """Of each call of RunFiles, its files: path → content."""
    sends: dict = field(default_factory=dict)
    """By plugin: what RunFiles sends back, path → content; a list is messages as they are, the response too."""
    plugins: dict = field(default_factory=dict)
    sources: dict = field(default_factory=dict)
    """By plugin: what Source answers."""
    running: list = field(default_factory=list)
    requests: list = field(default_factory=list)
    changes: list = field(default_factory=list)
    holds: list = field(default_factory=list)
    denial: object = None
    """What Why answers."""
    condition: object = field(default_factory=healthy)
    """What Status answers."""
    metrics: object = field(default_factory=monitor_pb2.MetricsResponse)
    """What Metrics answers."""
    checks: list = field(default_factory=list)
    """What Explain answers."""
    killed: dict = field(default_factory=dict)
    """What Kill answers beside the hold."""
    trusting: bool = True
    """Whether a vetter's statement makes Tier 1."""
    runs_synthesized: bool = False
    """Whether the policy lets generated code run at once."""
    approvers: int = 1
    cases: list = field(default_factory=list)
    """Incidents with their timelines, oldest first."""
    steps: list = field(default_factory=list)
    """What a drill answers."""
    policy: list = field(default_factory=lambda: ["p" * 64])
    """Policies in force, one after the other reload."""
    refusal: tuple | None = None
    """(status, detail, reasons): every call is refused with it."""
    call_ended: threading.Event = field(default_factory=threading.Event)
    """Set when the client of `slow` went away."""

    def __enter__(self):
        self.server = grpc.server(
            futures.ThreadPoolExecutor(32), options=[("grpc.max_receive_message_length", 1 << 26)]
        )
        runtime_pb2_grpc.add_RuntimeServicer_to_server(self, self.server)
        registry_pb2_grpc.add_RegistryServicer_to_server(self, self.server)
        governance_pb2_grpc.add_GovernanceServicer_to_server(self, self.server)
        self.server.add_insecure_port(f"unix:{self.socket}")
        self.server.start()
        return self

    def __exit__(self, *_):
        self.server.stop(grace=0).wait()

    def last(self, kind):
        """The newest request of a kind, such as "RunRequest"."""
        return next(request for request in reversed(self.requests) if type(request).__name__ == kind)

    def _admit(self, request, context):
        self.requests.append(request)
        if self.refusal:
            status, detail, reasons = self.refusal
            if reasons:
                context.set_trailing_metadata((("plugind-reasons-bin", json.dumps(reasons).encode()),))
            context.abort(status, detail)

    # --- Runtime -------------------------------------------------------------------------------------------------

    def Run(self, request, context):
        self._admit(request, context)
        return self._answered(request, context)

    def _answered(self, request, context):
        answer = self.answers.get(request.plugin)
        if answer is None:
            return denied("PLUGIN_NOT_FOUND")
        return answer(request, context) if callable(answer) else answer

    def slow(self, _request, context, longest_s=20):
        """An answer that waits until the caller goes away."""
        until = time.monotonic() + longest_s
        while context.is_active() and time.monotonic() < until:
            time.sleep(0.005)
        if not context.is_active():
            self.call_ended.set()
        return ended("canceled", "the caller went away")

    def Cancel(self, request, context):
        self._admit(request, context)
        return runtime_pb2.CancelResponse(found=any(run.run_id == request.run_id for run in self.running))

    def ListRuns(self, request, context):
        self._admit(request, context)
        return runtime_pb2.ListRunsResponse(runs=self.running)

    def Why(self, request, context):
        self._admit(request, context)
        if self.denial is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no denial")
        return self.denial

    # --- Registry ------------------------------------------------------------------------------------------------

    def Submit(self, request, context):
        self._admit(request, context)
        manifest = _manifest(request.bundle)
        name, version = manifest["name"], manifest["version"]
        plugin = self.plugins.setdefault(
            name, registry_pb2.Plugin(plugin_id=f"plug_{len(self.plugins) + 1}", name=name)
        )
        digest = hashlib.sha256(request.bundle).hexdigest()
        stored = _version(plugin, version)
        if stored is None:
            stored = plugin.versions.add(version=version, digest=digest, state="submitted", tier=2)
            stored.stages.extend(manifest["stages"])
            for kind, entries in manifest.get("permissions", {}).items():
                for entry in entries:
                    stored.permissions.add(kind=kind, entry_json=json.dumps(entry, sort_keys=True))
        elif stored.digest != digest:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{name} {version} is stored with other bytes")
        if self.trusting and b"verification_summary" in _payloads(request.attestations):
            stored.tier = 1
        if self.runs_synthesized and manifest["origin"] == "synthesized":
            stored.state = "active"
            plugin.active_version = version
        return registry_pb2.SubmitResponse(
            plugin_id=plugin.plugin_id,
            name=name,
            version=version,
            digest=digest,
            tier=stored.tier,
            state=stored.state,
        )

    def List(self, request, context):
        self._admit(request, context)
        return registry_pb2.ListResponse(plugins=self.plugins.values())

    def Get(self, request, context):
        self._admit(request, context)
        return self._plugin(request.plugin, context)

    def _plugin(self, name, context):
        for plugin in self.plugins.values():
            if name in {plugin.name, plugin.plugin_id}:
                return plugin
        context.abort(grpc.StatusCode.NOT_FOUND, f"no plugin {name}")
        raise AssertionError

    def _stored(self, request, context):
        """The plugin and the version that a request names."""
        plugin = self._plugin(request.plugin, context)
        stored = _version(plugin, request.version)
        if stored is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no version {request.version}")
        return plugin, stored

    def Source(self, request, context):
        self._admit(request, context)
        plugin = self._plugin(request.plugin, context)
        stored = _version(plugin, request.version or plugin.active_version)
        if stored is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no version {request.version}")
        return registry_pb2.SourceResponse(
            name=plugin.name, version=stored.version, digest=stored.digest, source=self.sources[plugin.name]
        )

    def History(self, request, context):
        self._admit(request, context)
        name = self._plugin(request.plugin, context).name if request.plugin else ""
        return registry_pb2.HistoryResponse(changes=[each for each in self.changes if name in {"", each.plugin}])

    # --- Governance ----------------------------------------------------------------------------------------------

    def Approve(self, request, context):
        self._admit(request, context)
        _, stored = self._stored(request, context)
        if request.tier < stored.tier:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"the evidence gives tier {stored.tier}")
        self.approvers -= 1
        if self.approvers > 0:
            return stored
        if stored.state != "active":
            stored.state = "approved"
        given = stored if request.as_declared else request
        stored.approval.CopyFrom(
            registry_pb2.Approval(
                tier=request.tier,
                stages=given.stages,
                permissions=given.permissions,
                limits=given.limits,
                reason=request.reason,
            )
        )
        return stored

    def Activate(self, request, context):
        self._admit(request, context)
        plugin, stored = self._stored(request, context)
        if not stored.HasField("approval"):
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{stored.version} is not approved")
        for other in plugin.versions:
            if other.state == "active":
                other.state = "retired"
        stored.state = "active"
        plugin.active_version = stored.version
        return stored

    def Reject(self, request, context):
        self._admit(request, context)
        _, stored = self._stored(request, context)
        stored.state = "submitted"
        stored.ClearField("approval")
        return stored

    def Rollback(self, request, context):
        self._admit(request, context)
        plugin = self._plugin(request.plugin, context)
        earlier = [
            each for each in plugin.versions if request.version in {"", each.version} and each.state == "retired"
        ]
        if not earlier:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no earlier version")
        earlier[-1].state = "active"
        plugin.active_version = earlier[-1].version
        return earlier[-1]

    def Suspend(self, request, context):
        self._admit(request, context)
        return self._held("suspended", request)

    def Resume(self, request, context):
        self._admit(request, context)
        return self._lifted("suspended", request, context)

    def Kill(self, request, context):
        self._admit(request, context)
        return governance_pb2.KillResponse(hold=self._held("killed", request), **self.killed)

    def LiftKill(self, request, context):
        self._admit(request, context)
        return self._lifted("killed", request, context)

    def _held(self, kind, request):
        hold = registry_pb2.Hold(kind=kind, target=request.target, reason=request.reason, by_uid=1000, at_unix_ms=5)
        self.holds.append(hold)
        return hold

    def _lifted(self, kind, request, context):
        there = next((each for each in self.holds if (each.kind, each.target) == (kind, request.target)), None)
        if there is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{request.target}: expected one that is {kind}")
        self.holds.remove(there)
        return registry_pb2.Hold(kind=kind, target=request.target, reason=request.reason, by_uid=1001, at_unix_ms=6)

    def Status(self, request, context):
        self._admit(request, context)
        return self.condition

    def Metrics(self, request, context):
        self._admit(request, context)
        return self.metrics

    def Explain(self, request, context):
        self._admit(request, context)
        return governance_pb2.ExplainResponse(checks=self.checks, allowed=all(each.ok for each in self.checks))

    def ReloadPolicy(self, request, context):
        self._admit(request, context)
        before = self.policy[0]
        if len(self.policy) > 1:
            del self.policy[0]
        return governance_pb2.ReloadPolicyResponse(policy_sha256=self.policy[0], changed=self.policy[0] != before)


def _version(plugin, version):
    return next((stored for stored in plugin.versions if stored.version == version), None)


def _manifest(bundle):
    with tarfile.open(fileobj=io.BytesIO(bundle)) as tar:
        document = json.load(tar.extractfile(tar.getmembers()[0]))
    return document.get("manifest", document)


def _payloads(attestations):
    """What the envelopes say, all in one."""
    import base64

    lines = [json.loads(line) for line in attestations.splitlines() if line]
    return b"".join(base64.b64decode(line["payload"]) for line in lines)


# --- plugindctl ------------------------------------------------------------------------------------------------------

COMMAND = (sys.executable, "-m", "plugind_client.cli")


@dataclass(frozen=True)
class Done:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


def plugindctl(*arguments, stdin=b""):
    """The real command in this process: its main(), with streams that are no terminal."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    before, sys.argv = sys.argv, ["plugindctl", *map(str, arguments)]
    stdin_before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(stdin))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = int(end.code or 0)
    else:
        raise AssertionError("main() returned and did not exit")
    finally:
        sys.argv, sys.stdin = before, stdin_before
    return Done(code, *(stream.buffer.getvalue().decode() for stream in (out, err)))


def plugindctl_process(*arguments, **options):
    """The real command in a process of its own."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=30, check=False, **options
    )
    return Done(done.returncode, done.stdout, done.stderr)


def plugindctl_terminal(*arguments, columns=100, typed=()):
    """The real command on a terminal that knows no escapes: its exit code, and all that came to the screen.

    `typed`: pairs of a question and what a person types when the screen ends with it.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "dumb", "PYTHONUTF8": "1"},
        start_new_session=True,  # or a passphrase would be asked for on the terminal of whoever runs the tests
    )
    os.close(theirs)
    screen = b""
    to_type = list(typed)
    with contextlib.suppress(OSError):  # EIO is how a terminal says that nobody has it open any more
        while read := os.read(ours, 65536):
            screen += read
            if to_type and screen.endswith(to_type[0][0].encode()):
                os.write(ours, to_type.pop(0)[1].encode() + b"\n")
    os.close(ours)
    assert to_type == [], screen.decode()
    return process.wait(30), screen.decode().replace("\r\n", "\n")
