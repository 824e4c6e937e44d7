"""plugind as services of systemd, installed by packaging/install.sh and driven as an operator does, in one container."""

import contextlib
import json
import re
import tomllib
from concurrent.futures import ThreadPoolExecutor

import pytest

from plugind import config
from plugind.provenance import bundle
from tests.support.pace import stretched
from tests.support.wheels import lock, wheel
from tests.systemd.container import ADMIN_SOCKET, PYTHON, RUN_SOCKET, TREE, RefusedError

PEOPLE = {"olga": "plugind-operator,systemd-journal", "anna": "plugind-approver", "ada": "plugind-admin", "paul": ""}
ADDER = "def run(payload, context):\n    return {'sum': payload['a'] + payload['b']}\n"
SLEEPER = "import time\n\ndef run(payload, context):\n    time.sleep(50)\n    return None\n"
FRONT, LAUNCHER, SOCKET = "plugind.service", "plugind-launcher.service", "plugind-launcher.socket"
SECURITY = 10
"""Most of what `systemd-analyze security` may find exposed in the front, in tenths of its 10.0."""


@pytest.fixture(scope="session", autouse=True)
def people(machine):
    for name, group in PEOPLE.items():
        machine.get("useradd", "--create-home", *(["-G", group] if group else []), name)


@pytest.fixture
def daemon(machine):
    machine.started()
    return machine


@pytest.fixture(scope="session")
def plugins(machine):
    """adder and sleeper, active."""
    machine.started()
    for name, code, limits in (("adder", ADDER, {}), ("sleeper", SLEEPER, {"wall_ms": 60000})):
        machine.submit(name, code, **limits)
        machine.approve(name)
        machine.activate(name)


def in_background(work):
    return ThreadPoolExecutor(1).submit(work)


def sleeping(machine):
    """A run of sleeper that has begun; its answer is still to come."""
    answer = in_background(lambda: machine.run("sleeper", None))
    machine.until(lambda: running(machine), "sleeper runs")
    return answer


def running(machine):
    return [run for run in machine.ask("paul", "ps") if run["state"] == "running"]


def works(machine):
    return machine.run("adder", {"a": 1, "b": 2})["output"] == {"sum": 3}


@contextlib.contextmanager
def drop_in(machine, unit, lines):
    folder = f"/run/systemd/system/{unit}.d"
    machine.shell(f"mkdir -p {folder}")
    machine.get("sh", "-c", f"cat > {folder}/test.conf", text=f"[Service]\n{lines}\n")
    machine.get("systemctl", "daemon-reload")
    try:
        yield
    finally:
        machine.shell(f"rm -r {folder}; systemctl daemon-reload")


def pid(machine, unit):
    return int(machine.show(unit, "MainPID"))


def open_intents(machine):
    report = machine.audit("verify")
    assert report["findings"] == []
    return report["open_intents"]


# --- configuration --------------------------------------------------------------------------------------------------------


def test_the_example_configuration_shows_every_setting_with_its_default(tmp_path):
    example, empty = tmp_path / "example.toml", tmp_path / "empty.toml"
    text = (TREE / "packaging" / "plugind.toml").read_text()
    example.write_text(re.sub(r"(?m)^#(?=[a-z_]+ = )", "", text))
    empty.write_text("")
    shown = config.load(config.Flags(config=example), {})
    default = config.load(config.Flags(config=empty), {})
    assert set(tomllib.loads(example.read_text())) == set(config._KEYS)
    for name in ("state", "socket", "admin_socket", "launcher_socket", "connections_per_uid", "network_range"):
        assert getattr(shown, name) == getattr(default, name)
    assert (shown.policy, shown.trust) == (config.DEFAULT_POLICY, config.DEFAULT_TRUST)


# --- installation ---------------------------------------------------------------------------------------------------------


def test_units_hold_what_systemd_expects(machine):
    done = machine.do("systemd-analyze", "verify", FRONT, SOCKET, LAUNCHER)
    assert (done.code, done.out, done.err) == (0, "", "")


def test_installing_keeps_an_edited_configuration_and_adds_the_policy_that_was_missing(machine):
    assert machine.shell("cat /etc/plugind/plugind.toml") == "connections_per_uid = 100 # edited\n"
    machine.shell("cmp /etc/plugind/policy.toml /usr/src/plugind/profiles/policy.toml")
    assert machine.shell("stat -c '%U %a' /etc/plugind /etc/plugind/policy.toml") == "root 755\nroot 644\n"
    machine.shell("setpriv --reuid plugind --regid plugind --clear-groups plugind check --help")


def test_installing_with_an_interpreter_that_the_units_user_cannot_reach_is_refused(machine):
    machine.shell("mkdir -m 0700 /srv/closed; cp /usr/bin/python3 /srv/closed/python3")
    done = machine.do(
        "env", "PYTHON=/srv/closed/python3", "/usr/src/plugind/packaging/install.sh", "--prefix", "/opt/b"
    )
    assert done.code == 2
    assert "got /srv/closed with mode 700; the user plugind could not start it" in done.err
    machine.shell("test ! -e /opt/b")


@pytest.mark.parametrize("prefix", ["/home/plugind", "/tmp/plugind", "/root/plugind", "/usr", "relative", "/opt/a b"])
def test_installing_where_the_unit_could_not_see_it_or_over_something_else_is_refused(machine, prefix):
    done = machine.do("/usr/src/plugind/packaging/install.sh", "--prefix", prefix)
    assert (done.code, done.out) == (2, "")
    assert "expected" in done.err


# --- start ----------------------------------------------------------------------------------------------------------------


def test_start_brings_up_the_front_without_any_privilege(machine):
    machine.get("systemctl", "enable", "--now", "plugind")
    assert machine.show(FRONT, "ActiveState") == "active"
    machine.started()
    front = machine.shell(f"cat /proc/{pid(machine, FRONT)}/status")
    fields = dict(line.split(":\t", 1) for line in front.splitlines() if ":\t" in line)
    uid = machine.get("id", "-u", "plugind").strip()
    assert fields["Uid"].split() == [uid] * 4
    assert {fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    launcher = machine.shell(f"cat /proc/{pid(machine, LAUNCHER)}/status")
    assert "Uid:\t0\t0\t0\t0" in launcher


def test_the_front_is_as_closed_as_it_was(daemon):
    done = daemon.do("systemd-analyze", "security", "--no-pager", f"--threshold={SECURITY}", FRONT)
    assert done.code == 0, done.out


def test_nobody_but_the_front_may_talk_to_the_launcher(daemon):
    assert daemon.shell("stat -c '%U %a' /run/plugind-launcher/launcher.sock") == "plugind 600\n"


def test_sockets_and_their_folders_are_where_containers_and_people_look(daemon):
    shown = daemon.shell(f"stat -c '%U %a' {RUN_SOCKET} {ADMIN_SOCKET} /run/plugind /run/plugind/run")
    assert shown == "plugind 666\nplugind 666\nplugind 755\nplugind 755\n"


def test_the_folder_that_a_container_mounts_stays_the_same_over_a_restart(daemon):
    before = daemon.shell("stat -c %i /run/plugind/run")
    daemon.get("systemctl", "restart", "plugind")
    daemon.started()
    assert daemon.shell("stat -c %i /run/plugind/run") == before


def test_a_wrong_configuration_is_told_and_not_tried_again(daemon):
    daemon.shell("echo 'connections_per_uid = 0' > /etc/plugind/plugind.toml")
    try:
        assert daemon.do("systemctl", "restart", "plugind").code != 0
        daemon.shell("sleep 2")
        assert [daemon.show(FRONT, name) for name in ("ActiveState", "ExecMainStatus", "NRestarts")] == [
            "failed",
            "2",
            "0",
        ]
        assert "connections_per_uid: expected 1 to 4096, got 0" in daemon.get("journalctl", "-u", "plugind")
    finally:
        daemon.shell("echo 'connections_per_uid = 100 # edited' > /etc/plugind/plugind.toml")
    daemon.started()


def test_instances_live_in_the_launchers_own_groups_wherever_systemd_made_it_one(daemon, plugins):
    assert daemon.status()["cgroup_driver"] in ("v1/hybrid", "unified")
    own = daemon.shell(f"cat /proc/{pid(daemon, LAUNCHER)}/cgroup").splitlines()
    made = {name for line in own for name in line.split(":")[1].split(",") if LAUNCHER in line}
    assert "" in made  # the unified hierarchy
    answer = sleeping(daemon)
    busy = daemon.shell("find /sys/fs/cgroup -path '*/instances/*' -name cgroup.procs -exec grep -l . {} +").split()
    daemon.kill("sleeper")
    daemon.lift("sleeper")
    assert answer.result(stretched(20))["outcome"] == "killed"
    if daemon.status()["cgroup_driver"] == "v1/hybrid":
        assert {"memory", "pids", "cpu"} <= made
        # CPU time is what the unified hierarchy counts, where it does.
        assert {path.split("/")[4] for path in busy} - {"cpuacct"} == {"memory", "pids", "cpu", "unified"}
        busy = [path for path in busy if path.split("/")[4] in {*made, "unified"}]
    assert busy
    assert [path for path in busy if f"/system.slice/{LAUNCHER}/plugind-" not in path] == []


# --- people and roles -----------------------------------------------------------------------------------------------------


def test_from_submission_to_a_run_each_step_by_whose_it_is(daemon):
    daemon.submit("first", ADDER)
    assert daemon.run("first", {"a": 1, "b": 1})["codes"] == ["NOT_APPROVED"]
    daemon.approve("first", "anna")
    daemon.activate("first", "olga")
    answer = daemon.run("first", {"a": 20, "b": 22}, "paul")
    assert (answer["outcome"], answer["output"]) == ("ok", {"sum": 42})
    assert answer["governance"]["audit_log"].startswith("log_")


def test_an_environment_that_root_builds_serves_the_units_next_run(daemon):
    made = wheel(daemon.share / "wheels", "greeting", files={"greeting.py": "def of(name): return f'hello {name}'\n"})
    lock(daemon.share / "wheels" / "requirements.lock", made)
    daemon.submit(
        "greeter", "import greeting\ndef run(payload, context): return greeting.of(payload)\n", environment="own"
    )
    daemon.approve("greeter")
    daemon.activate("greeter")
    assert daemon.run("greeter", "x")["codes"] == ["ISOLATION_UNAVAILABLE"]
    build = ("environment", "build", "own", "--lock", "/mnt/t/wheels/requirements.lock", "--wheels", "/mnt/t/wheels")
    with pytest.raises(RefusedError) as caught:
        daemon.ask("olga", *build)
    assert caught.value.exit_code == 3
    built = daemon.ask("root", *build)
    assert daemon.run("greeter", "x")["output"] == "hello x"
    (listed,) = daemon.ask("olga", "environment", "list")["environments"]
    assert (listed["digest"], listed["problem"]) == (built["digest"], "")
    log = daemon.run("greeter", "y")["governance"]["audit_log"]
    assert daemon.audit("show", log)["record"]["environment"] == built["digest"]


FETCHES = """
import urllib.request

def run(payload, context):
    return urllib.request.urlopen(payload, timeout=10).status
"""
PEER = """[[permissions.network]]
host = "9.9.9.10"
port = 8080
protocol = "tcp"
"""
OUTSIDE = """
ip netns add outside
ip link add wan type veth peer name lan netns outside
ip addr add 9.9.9.1/24 dev wan
ip link set wan up
ip -n outside addr add 9.9.9.10/24 dev lan
ip -n outside link set lan up
systemd-run --quiet --unit=outside ip netns exec outside python3 -m http.server 8080
"""


def test_a_builtin_plugin_reaches_whom_it_may_and_the_host_is_as_before_when_the_units_stop(daemon):
    def host():
        tables = daemon.get("/opt/plugind/bin/python", "-c", TABLES).split()
        return tables, daemon.get("sysctl", "-n", "net.ipv4.ip_forward").strip(), "plugind0" in daemon.get("ip", "link")

    daemon.shell(OUTSIDE)
    digest = bundle.read(bundle.build(daemon.plugin("fetches", FETCHES, more=PEER))).digest
    listed = "/opt/plugind/share/plugind/profiles/builtin.list"
    daemon.shell(f"echo {digest} >> {listed}; systemctl restart {LAUNCHER} {FRONT}")
    daemon.started()
    try:
        before = host()
        daemon.submit("fetches")
        daemon.approve("fetches")
        daemon.activate("fetches")
        run = ("run", "fetches", "--stage", "currency_strategy", "--input", "-")
        answer = daemon.ask("paul", *run, text='"http://9.9.9.10:8080/"')
        assert (answer["outcome"], answer["output"]) == ("ok", 200), answer
        assert (answer["governance"]["tier"], answer["governance"]["permissions"]) == ("Tier 0", ["network"])
        assert host() == (["plugind"], "1", True)
        daemon.shell(f"systemctl stop {FRONT} {LAUNCHER}")
        assert host() == before == ([], "0", False)
    finally:
        daemon.shell(f"sed -i /{digest}/d {listed}; systemctl stop outside; ip netns del outside")
        daemon.started()


TABLES = """
from plugind.linux.nftables import Nftables
from plugind.sandbox.network import rules
print(*rules.tables(Nftables().listed("tables")))
"""


def test_somebody_in_no_group_is_refused_on_the_admin_socket(daemon):
    done = daemon.ctl("paul", "kill", "all", "--reason", "because")
    assert done.code == 5  # hung up on: it never became a call
    assert "plugind-operator" in done.err
    uid = daemon.get("id", "-u", "paul").strip()
    daemon.until(
        lambda: f"refused a connection of uid {uid} " in daemon.get("journalctl", "-u", "plugind"), "a word of it"
    )


APPROVE = ("approve", "adder@1.0.0", "--as-declared", "--reason", "I say so", "--yes")


@pytest.mark.parametrize(
    ("user", "command", "call"),
    [
        ("olga", APPROVE, "Approve"),
        ("ada", APPROVE, "Approve"),
        ("anna", ("activate", "adder@1.0.0"), "Activate"),
        ("anna", ("kill", "adder", "--reason", "no"), "Kill"),
        ("ada", ("kill", "adder", "--reason", "no"), "Kill"),
        ("anna", ("submit", "/mnt/t/plugins/adder"), "Submit"),
        ("anna", ("audit", "verify", "--socket", ADMIN_SOCKET), "Query"),
    ],
)
def test_roles_do_not_mix_and_what_was_refused_is_in_the_audit(daemon, plugins, user, command, call):
    with pytest.raises(RefusedError) as refused:
        daemon.ask(user, *command)
    assert (refused.value.exit_code, refused.value.code) == (3, "NOT_ALLOWED")
    words = f"{call} was refused to uid {daemon.get('id', '-u', user).strip()},"
    daemon.until(lambda: any(words in one["MESSAGE"] for one in daemon.journal("PLUGIND_EVENT=REFUSED")), words)


@pytest.mark.parametrize("user", ["olga", "root"])
def test_the_run_socket_makes_nobody_more_than_a_caller(daemon, plugins, user):
    with pytest.raises(RefusedError) as refused:
        daemon.ask(user, "kill", "adder", "--reason", "no", "--admin-socket", RUN_SOCKET)
    assert refused.value.code == "NOT_ALLOWED"
    assert works(daemon)


# --- journal and audit ----------------------------------------------------------------------------------------------------


def test_the_journal_of_the_unit_has_every_record_of_the_ledger(daemon, plugins):
    assert works(daemon)
    size = daemon.status()["ledger_size"]
    wanted = {str(index) for index in range(size)}
    daemon.until(
        lambda: wanted <= {one.get("PLUGIND_LEAF_INDEX") for one in daemon.journal("-u", "plugind")},
        f"{size} records in journalctl -u plugind",
    )


def test_the_journal_finds_exactly_one_plugins_records(daemon, plugins):
    daemon.submit("alone", ADDER)
    daemon.approve("alone")
    daemon.activate("alone")
    log = daemon.run("alone", {"a": 1, "b": 1})["governance"]["audit_log"]
    assert works(daemon)
    daemon.until(
        lambda: any(one["PLUGIND_EVENT"] == "OUTCOME" for one in daemon.journal("PLUGIND_PLUGIN=alone")), "its outcome"
    )
    entries = daemon.journal("PLUGIND_PLUGIN=alone")
    assert {one["PLUGIND_PLUGIN"] for one in entries} == {"alone"}
    assert [one["PLUGIND_EVENT"] for one in entries][-2:] == ["INTENT", "OUTCOME"]
    assert log in {one["PLUGIND_AUDIT_ID"] for one in entries}
    assert {one["_SYSTEMD_UNIT"] for one in entries} == {FRONT}


def test_the_catalog_explains_a_record(daemon, plugins):
    assert works(daemon)
    daemon.until(lambda: daemon.journal("PLUGIND_EVENT=OUTCOME"), "an outcome")
    assert "plugindctl audit show" in daemon.get("journalctl", "-x", "-n", "1", "PLUGIND_EVENT=OUTCOME")


def test_the_ledger_verifies_against_the_journal(daemon, plugins):
    assert works(daemon)
    report = daemon.audit("verify")
    assert (report["ok"], report["open_intents"], report["findings"]) == (True, [], [])
    assert report["journal_records"] == report["records"] > 0


# --- reload ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def policy(daemon, plugins):
    """Writes a policy; afterwards the one of before is in force again."""
    before = daemon.shell("cat /etc/plugind/policy.toml")
    in_force = daemon.status()["policy_sha256"]

    def write(text):
        daemon.get("sh", "-c", "cat > /etc/plugind/policy.toml", text=text)
        return before

    yield write
    write(before)
    daemon.get("systemctl", "reload", "plugind")
    daemon.until(lambda: daemon.status()["policy_sha256"] == in_force, "the policy of before")


def test_reload_puts_a_changed_policy_in_force(daemon, policy):
    before = daemon.shell("cat /etc/plugind/policy.toml")
    front = pid(daemon, FRONT)
    policy(before.replace("[tier.2]\nenabled = true", "[tier.2]\nenabled = false"))
    assert works(daemon)
    daemon.get("systemctl", "reload", "plugind")
    daemon.until(lambda: daemon.run("adder", {"a": 1, "b": 2})["codes"] == ["TIER_NOT_ALLOWED"], "Tier 2 is off")
    assert pid(daemon, FRONT) == front


def test_reload_of_a_broken_policy_keeps_the_old_one_and_says_why(daemon, policy):
    in_force = daemon.status()["policy_sha256"]
    policy('[tier.2]\nenabled = "perhaps"\n')
    daemon.get("systemctl", "reload", "plugind")
    daemon.until(
        lambda: "the policy stays as it was: /etc/plugind/policy.toml:" in daemon.get("journalctl", "-u", "plugind"),
        "why, in the journal",
    )
    assert daemon.status()["policy_sha256"] == in_force
    assert works(daemon)
    assert daemon.show(FRONT, "ActiveState") == "active"


# --- files of a plan ------------------------------------------------------------------------------------------------------

COPIES = """
from pathlib import Path

def run(payload, context):
    text = Path(context.plan_dir, "in.txt").read_text()
    Path(context.output_dir, "out.txt").write_text(text.upper())
"""
COPIED = """[[permissions.file_read]]
path = "in.txt"
[[permissions.file_write]]
path = "out.txt"
"""
PLANS = "/srv/plans"
GARDEN = f"{PLANS}/garden"
"""A plan of paul's, whose folder nobody else may enter."""


@pytest.fixture
def copies(daemon):
    """A built-in plugin that reads a file of a plan and writes one, active."""
    digest = bundle.read(bundle.build(daemon.plugin("copies", COPIES, more=COPIED))).digest
    listed = "/opt/plugind/share/plugind/profiles/builtin.list"
    daemon.shell(f"echo {digest} >> {listed}; systemctl restart {LAUNCHER} {FRONT}")
    daemon.shell(f"mkdir -p {PLANS}; install -d -o paul -m 700 {GARDEN}")
    daemon.get("sh", "-ec", f"umask 077; echo new > {GARDEN}/in.txt; echo old > {GARDEN}/out.txt", user="paul")
    daemon.started()
    daemon.submit("copies")
    daemon.approve("copies")
    daemon.activate("copies")
    yield lambda user: daemon.ask(
        user, "run", "copies", "--stage", "report", "--input", "-", "--plan-dir", GARDEN, text="0"
    )
    daemon.shell(f"sed -i /{digest}/d {listed}; rm -r {PLANS}")


def test_a_plan_below_a_root_of_the_policy_is_its_callers_and_what_was_replaced_comes_back(daemon, policy, copies):
    def rules(answer):
        return [(reason["code"], reason["rule"]) for reason in answer["reasons"]]

    assert rules(copies("paul")) == [("PERMISSION_NOT_APPROVED", "plans.roots")]
    before = daemon.shell("cat /etc/plugind/policy.toml")
    policy(f'{before}\n[plans]\nroots = ["{PLANS}"]\n')
    daemon.get("systemctl", "reload", "plugind")
    daemon.until(lambda: copies("paul")["outcome"] == "ok", "the plan is below a root")
    assert daemon.shell(f"cat {GARDEN}/out.txt; stat -c '%U %a' {GARDEN}/out.txt; ls -A {GARDEN}").split() == [
        *("NEW", "paul", "600"),
        *("in.txt", "out.txt"),
    ]
    assert rules(copies("anna")) == [("CALLER_NOT_ALLOWED", "plans.denied")]
    assert rules(copies("root")) == [("CALLER_NOT_ALLOWED", "plans.denied")], "not even root, without its capabilities"
    committed = daemon.audit("list", "--event", "COMMITTED")[0]
    undone = daemon.ask("olga", "audit", "restore", f"log_{committed['intent']}", "--reason", "it was better before")
    assert undone["ok"]
    assert daemon.shell(f"cat {GARDEN}/out.txt").strip() == "old"
    assert daemon.audit("verify")["findings"] == []


# --- kill switch ----------------------------------------------------------------------------------------------------------


def test_the_kill_switch_ends_what_runs_survives_a_restart_and_can_be_lifted(daemon, plugins):
    answer = sleeping(daemon)
    killed = daemon.kill("sleeper")
    assert (killed["ended_runs"], killed["unconfirmed_runs"]) == (1, 0)
    assert answer.result(stretched(20))["outcome"] == "killed"
    assert running(daemon) == []
    assert daemon.run("sleeper", None)["codes"] == ["KILLED"]
    daemon.get("systemctl", "restart", "plugind")
    daemon.started()
    assert daemon.run("sleeper", None)["codes"] == ["KILLED"]
    assert works(daemon)
    daemon.lift("sleeper")
    again = sleeping(daemon)
    daemon.kill("all")
    assert again.result(stretched(20))["outcome"] == "killed"
    assert daemon.run("adder", {"a": 1, "b": 2})["codes"] == ["KILLED"]
    daemon.lift("all")
    assert works(daemon)


# --- what breaks ----------------------------------------------------------------------------------------------------------


def test_without_a_launcher_nothing_runs_and_the_kill_switch_answers(daemon, plugins):
    daemon.get("systemctl", "stop", SOCKET, LAUNCHER)
    daemon.until(lambda: daemon.status()["launcher_problem"], "the front has noticed")
    assert daemon.show(FRONT, "ActiveState") == "active"
    assert daemon.run("adder", {"a": 1, "b": 2})["codes"] == ["ISOLATION_UNAVAILABLE"]
    daemon.kill("adder")
    assert daemon.run("adder", {"a": 1, "b": 2})["codes"] == ["KILLED"]
    daemon.lift("adder")
    daemon.get("systemctl", "start", SOCKET)
    daemon.until(lambda: works(daemon), "it heals")


def test_a_launcher_that_cannot_start_is_tried_until_it_can(daemon, plugins):
    with drop_in(daemon, LAUNCHER, "ExecStart=\nExecStart=/bin/false"):
        daemon.get("systemctl", "restart", "plugind")
        daemon.shell("sleep 5")
        assert daemon.run("adder", {"a": 1, "b": 2})["codes"] == ["ISOLATION_UNAVAILABLE"]
        assert daemon.show(SOCKET, "ActiveState") == "active"
    daemon.until(lambda: works(daemon), "it heals")


def test_a_killed_launcher_ends_its_instances_and_comes_back(daemon, plugins):
    answer = sleeping(daemon)
    before = pid(daemon, LAUNCHER)
    daemon.get("kill", "-KILL", str(before))
    assert answer.result(stretched(20))["outcome"] == "fault"
    daemon.until(lambda: works(daemon), "it heals")
    assert pid(daemon, LAUNCHER) not in (0, before)
    assert open_intents(daemon) == []


def test_a_killed_front_comes_back_and_accounts_for_what_ran(daemon, plugins):
    answer = sleeping(daemon)
    daemon.get("kill", "-KILL", str(pid(daemon, FRONT)))
    with pytest.raises(RefusedError):
        answer.result(stretched(20))
    daemon.until(lambda: works(daemon), "it is there again")
    assert open_intents(daemon) == []
    assert daemon.audit("list", "--plugin", "sleeper", "--outcome", "unknown")
    assert running(daemon) == []


def test_a_front_that_hangs_is_started_again_by_the_watchdog(daemon, plugins):
    with drop_in(daemon, FRONT, "WatchdogSec=2s"):
        daemon.get("systemctl", "restart", "plugind")
        daemon.started()
        before = pid(daemon, FRONT)
        daemon.shell("sleep 3")
        assert pid(daemon, FRONT) == before  # it beats
        daemon.get("kill", "-STOP", str(before))
        daemon.until(lambda: pid(daemon, FRONT) not in (0, before), "another front")
        daemon.until(lambda: works(daemon), "it works")
        assert "Watchdog timeout" in daemon.get("journalctl", "-u", "plugind")
        assert open_intents(daemon) == []
    daemon.get("systemctl", "restart", "plugind")


def test_restarts_under_load_lose_nothing(daemon, plugins):
    load = in_background(
        lambda: json.loads(daemon.get(PYTHON, "/mnt/t/load.py", "adder", "12", user="paul", timeout_s=90))
    )
    for _ in range(2):
        daemon.shell("sleep 3; systemctl restart plugind")
    got = load.result(100)
    assert got["wrong"] == []
    assert len(got["answered"]) == len(set(got["answered"])) > 20
    daemon.until(lambda: open_intents(daemon) == [], "every INTENT has its OUTCOME")
    # The files themselves: a list has at most a thousand records, and these may be more.
    lines = map(json.loads, daemon.shell("cat /var/lib/plugind/ledger/*.jsonl").splitlines())
    assert set(got["answered"]) <= {f"log_{line['index']}" for line in lines if line["event"] == "INTENT"}
    for log in got["answered"][:: max(1, len(got["answered"]) // 4)]:
        shown = daemon.audit("show", log)
        assert shown["other"]["outcome"] == "ok", shown


# --- metrics --------------------------------------------------------------------------------------------------------------

METRICS = "/run/plugind/metrics.sock"
PROXY = "plugind-metrics"


def scraped(machine, *how, user="root"):
    """The metrics that this user gets with curl: name and labels, value."""
    done = machine.do("curl", "-sS", "--fail", *how, user=user)
    assert done.code == 0, done
    return dict(line.rsplit(" ", 1) for line in done.out.splitlines() if not line.startswith("#"))


def test_operators_read_the_metrics_and_nobody_else(daemon):
    assert daemon.shell(f"stat -c '%U %G %a' {METRICS}") == "plugind plugind-operator 660\n"
    found = scraped(daemon, "--unix-socket", METRICS, "http://localhost/metrics", user="olga")
    assert (found["plugind_launcher_up"], found["plugind_ledger_writable"]) == ("1.0", "1.0")
    assert float(found['plugind_process_resident_memory_bytes{part="front"}']) > 10_000_000
    assert daemon.do("curl", "-sS", "--unix-socket", METRICS, "http://localhost/metrics", user="paul").code == 7
    shown = {metric["name"] for metric in daemon.ask("olga", "metrics")["metrics"]}
    assert {"plugind_runs_total", "plugind_build_info"} <= shown
    with pytest.raises(RefusedError) as refused:
        daemon.ask("anna", "metrics")
    assert (refused.value.exit_code, refused.value.code) == (3, "NOT_ALLOWED")


def test_the_launcher_is_not_seen_and_not_guessed(daemon):
    found = scraped(daemon, "--unix-socket", METRICS, "http://localhost/metrics")
    assert not [name for name in found if 'part="launcher"' in name]


def test_the_proxy_of_the_readme_brings_them_to_loopback(daemon):
    units = re.findall(r"```ini\n(.*?)```", (TREE / "packaging" / "prometheus" / "README.md").read_text(), re.DOTALL)
    for kind, text in zip(("socket", "service"), units, strict=True):
        daemon.get("sh", "-c", f"cat > /run/systemd/system/{PROXY}.{kind}", text=text)
    daemon.shell("systemctl daemon-reload; ip link set lo up")
    try:
        daemon.get("systemctl", "start", f"{PROXY}.socket")
        found = scraped(daemon, "http://127.0.0.1:9464/metrics", user="paul")
        assert found["plugind_launcher_up"] == "1.0"
    finally:
        daemon.shell(f"systemctl stop {PROXY}.socket {PROXY}.service; rm /run/systemd/system/{PROXY}.*")
        daemon.get("systemctl", "daemon-reload")


def test_the_drop_in_of_the_configuration_opens_loopback_and_without_it_the_start_says_why(daemon):
    example = (TREE / "packaging" / "plugind.toml").read_text()
    lines = example.partition("#   [Service]\n")[2].partition("# Better")[0].replace("#   ", "")
    daemon.shell("ip link set lo up; echo 'metrics = \"127.0.0.1:9464\"' > /etc/plugind/plugind.toml")
    try:
        assert daemon.do("systemctl", "restart", "plugind").code != 0
        told = daemon.get("journalctl", "-u", "plugind", "-n", "20")
        assert "metrics: 127.0.0.1 port 9464 cannot be bound" in told
        with drop_in(daemon, FRONT, lines):
            daemon.started()
            assert scraped(daemon, "http://127.0.0.1:9464/metrics")["plugind_launcher_up"] == "1.0"
            daemon.shell(f"test ! -e {METRICS}")
    finally:
        daemon.shell("echo 'connections_per_uid = 100 # edited' > /etc/plugind/plugind.toml")
        daemon.get("systemctl", "restart", "plugind")
    daemon.started()


# --- failure --------------------------------------------------------------------------------------------------------------

HOOKS, TOLD = "/etc/plugind/on-failure.d", "/run/told"
FAILED = re.search(r"MESSAGE_ID=(\w+)", (TREE / "packaging" / "plugind-failure").read_text())[0]


@pytest.fixture
def hooks(daemon):
    """A hook that notes its argument, and some that must not run. Nothing was told of late."""
    note = f'#!/bin/sh\necho "$1" >> {TOLD}\n'
    for name, mode in (("note", "755"), ("not-executable", "644"), ("anybodys", "757"), ("fails", "700")):
        text = "#!/bin/sh\nexit 3\n" if name == "fails" else note
        daemon.get("sh", "-c", f"cat > {HOOKS}/{name}; chmod {mode} {HOOKS}/{name}", text=text)
    daemon.shell(f"rm -rf {TOLD} /run/plugind-failure/*")
    yield daemon
    daemon.shell(f"rm -rf {HOOKS}/* {TOLD} /run/plugind-failure/*")
    daemon.started()


def told(machine):
    return machine.shell(f"cat {TOLD} 2>/dev/null || true").split()


def said(machine, unit):
    """What the journal has of failures of a unit."""
    return [entry["MESSAGE"] for entry in machine.journal(FAILED, f"PLUGIND_UNIT={unit}")]


def test_a_front_that_is_killed_several_times_is_told_each_time_and_hooks_run_once(hooks):
    before = len(said(hooks, FRONT))
    for _ in range(3):
        killed = pid(hooks, FRONT)
        hooks.get("kill", "-KILL", str(killed))
        hooks.until(lambda killed=killed: pid(hooks, FRONT) not in (0, killed), "another front")
        hooks.started()
    hooks.until(lambda: len(said(hooks, FRONT)) >= before + 3, "it was told three times")
    assert told(hooks) == [FRONT]
    assert said(hooks, FRONT)[-1] == f"{FRONT} has failed (signal). Why: journalctl -u {FRONT} -n 50"
    log = hooks.get("journalctl", "-u", f"plugind-failure@{FRONT}.service")
    assert f"{HOOKS}/anybodys: expected a file of root's that nobody else may write" in log
    assert f"{HOOKS}/fails: exit status 3" in log
    assert "nothing is run, that was done less than 5 minutes ago" in log


def test_a_front_that_fails_at_its_start_is_told(hooks):
    hooks.shell("echo 'connections_per_uid = 0' > /etc/plugind/plugind.toml")
    try:
        before = len(said(hooks, FRONT))
        assert hooks.do("systemctl", "restart", "plugind").code != 0
        hooks.until(lambda: told(hooks) == [FRONT], "the hook ran")
        hooks.shell("sleep 1")
        assert said(hooks, FRONT)[before:] == [f"{FRONT} has failed (exit-code). Why: journalctl -u {FRONT} -n 50"]
    finally:
        hooks.shell("echo 'connections_per_uid = 100 # edited' > /etc/plugind/plugind.toml")


def test_a_launcher_that_is_killed_is_told(hooks):
    hooks.get("kill", "-KILL", str(pid(hooks, LAUNCHER)))
    hooks.until(lambda: told(hooks) == [LAUNCHER], "the hook ran")
    assert said(hooks, LAUNCHER)[-1].startswith(f"{LAUNCHER} has failed (signal)")


def test_an_end_in_order_is_no_failure(hooks):
    before = len(said(hooks, FRONT)) + len(said(hooks, LAUNCHER))
    hooks.get("systemctl", "restart", "plugind")
    hooks.started()
    hooks.get("systemctl", "stop", "plugind", LAUNCHER, SOCKET)
    hooks.shell("sleep 1")
    assert (told(hooks), len(said(hooks, FRONT)) + len(said(hooks, LAUNCHER))) == ([], before)


# --- stop, and away with it -----------------------------------------------------------------------------------------------


def test_stop_leaves_no_process_and_no_group(daemon, plugins):
    answer = sleeping(daemon)
    daemon.get("systemctl", "stop", "plugind")
    with contextlib.suppress(RefusedError):
        assert answer.result(stretched(20))["outcome"] == "killed"
    daemon.until(lambda: daemon.show(LAUNCHER, "ActiveState") == "inactive", "the launcher ends with its front")
    assert daemon.show(LAUNCHER, "Result") == "success"
    assert daemon.do("pgrep", "-a", "plugind").out == ""
    assert daemon.do("pgrep", "-af", "/opt/plugind/bin/plugind").out == ""
    assert daemon.shell("find /sys/fs/cgroup -name 'plugind*.service' -o -name 'plugind-*-*'") == ""
    left = set(daemon.shell("ls -d /run/plugind-*").split())
    assert left - {"/run/plugind-failure"} == {"/run/plugind-launcher"}  # that one remembers what was told
    daemon.started()
    assert open_intents(daemon) == []
    assert works(daemon)


def test_uninstalling_takes_everything_but_the_state_away(daemon):
    daemon.get("/usr/src/plugind/packaging/install.sh", "--uninstall")
    assert daemon.do("pgrep", "-af", "plugind").out == ""
    assert daemon.shell("ls /usr/local/bin /opt | grep plugind || true") == ""
    assert daemon.show(FRONT, "LoadState") == "not-found"
    daemon.shell("test -s /var/lib/plugind/registry.db; test -s /etc/plugind/policy.toml; id plugind")
