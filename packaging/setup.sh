#!/bin/sh
# Makes .venv, with `plugind` and `plugindctl` in it, and installs the system packages that this needs, on Debian 12 or Ubuntu 24.04.
# Says what it does and why. Does nothing that is done already. Choose the interpreter with PYTHON=/path/to/python3.
set -eu
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin:/sbin # ldconfig, for a user
export PYTHONDONTWRITEBYTECODE=1

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# --- system packages: what is missing, and why it is needed ----------------------------------------------------------------------

required= # packages without which nothing goes
optional= # packages without which one thing is left out

need() { # need PACKAGES WHY
    required="$required $1"
    say "missing: $1 ($2)"
}

usable() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; }

find_python() {
    if [ -n "${PYTHON:-}" ] && ! usable "$PYTHON"; then
        die "PYTHON=$PYTHON: expected a Python 3.11 to 3.13"
    fi
    # The one that .venv was made with stays, unless PYTHON says otherwise.
    for candidate in "${PYTHON:-.venv/bin/python}" python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if usable "$candidate"; then
            "$candidate" -c 'import sys; print(sys._base_executable)'
            return
        fi
    done
}

check_python() {
    python=$(find_python)
    if [ -z "$python" ]; then
        need "python3 python3-venv python3-dev" "Python 3.11 to 3.13"
        return
    fi
    # A distribution splits Python into packages that are named after the version; others bring everything along.
    version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    "$python" -c 'import venv, ensurepip' 2>/dev/null || need "$version-venv" "to make .venv"
    "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || need "$version-dev" "headers to compile systemd-python"
}

check_system() {
    check_python
    echo '#include <stdio.h>' | gcc -E -o /dev/null - 2>/dev/null || need "gcc libc6-dev" "to compile systemd-python"
    command -v pkg-config >/dev/null || need pkg-config "to compile systemd-python"
    pkg-config --exists libsystemd 2>/dev/null || need libsystemd-dev "headers to compile systemd-python, which writes to the journal"
    ldconfig -p | grep -q 'libseccomp\.so\.2' || need libseccomp2 "builds the jail's seccomp filter"
    ldconfig -p | grep -q 'libnftables\.so\.1' || need libnftables1 "loads the rules of plugins' networks"
    for pair in bwrap:bubblewrap firejail:firejail crun:crun; do
        command -v "${pair%:*}" >/dev/null || {
            optional="$optional ${pair#*:}"
            say "missing: ${pair#*:} (what \`make bench\` compares with)"
        }
    done
    if ! command -v systemd-nspawn >/dev/null; then
        optional="$optional systemd-container"
        say "missing: systemd-container (\`make test-systemd\` boots a container with it)"
    fi
    if ! command -v tmux >/dev/null; then
        optional="$optional tmux"
        say "missing: tmux (\`make test\` looks at \`plugindctl top\` in a terminal of it)"
    fi
    check_vm
}

# Debian's key too: an Ubuntu does not have it.
check_vm() {
    [ "$(uname -m)" = x86_64 ] || return 0
    lacking=
    command -v qemu-system-x86_64 >/dev/null || lacking="$lacking qemu-system-x86"
    command -v mmdebstrap >/dev/null || lacking="$lacking mmdebstrap"
    command -v mke2fs >/dev/null || lacking="$lacking e2fsprogs"
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || lacking="$lacking debian-archive-keyring"
    [ -n "$lacking" ] || return 0
    optional="$optional$lacking"
    say "missing:$lacking (\`make test-vm\` makes a virtual machine with them and boots it)"
}

install_packages() {
    install="apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends$required$optional"
    command -v apt-get >/dev/null || {
        [ -z "$required" ] && return
        die "no apt-get here: install the equivalents of$required, then run this again"
    }
    if [ "$(id -u)" = 0 ]; then
        as_root=
    elif command -v sudo >/dev/null; then
        say "sudo is needed to install the packages above; it may ask for your password"
        as_root=sudo
    elif [ -z "$required" ]; then
        say "neither root nor sudo: going on without$optional"
        return
    else
        die "neither root nor sudo: ask an administrator to run \`$install\`, then run this again"
    fi
    say "installing:$required$optional"
    $as_root apt-get -o DPkg::Lock::Timeout=300 -qq update || say "apt-get update failed; trying with the package lists that are there"
    $as_root env DEBIAN_FRONTEND=noninteractive $install # sudo would drop the variable
}

# --- .venv -----------------------------------------------------------------------------------------------------------------------

identity() { "$1" -c 'import sys; print(sys.version, sys.base_prefix)' 2>/dev/null; }

# Made here (a virtual environment cannot be moved), by the interpreter that was found.
venv_is_good() {
    grep -qsF " $(pwd -P)/.venv" .venv/pyvenv.cfg &&
        [ "$(identity .venv/bin/python)" = "$(identity "$python")" ] &&
        .venv/bin/python -m pip --version >/dev/null 2>&1
}

make_venv() {
    if ! venv_is_good; then
        say "making .venv with $python"
        "$python" -m venv --clear .venv
    fi
    say "installing plugind and what it needs into .venv (about a minute)"
    .venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check --use-pep517 -e '.[cli,daemon,dev]'
}

exec 9<packaging/setup.sh
flock 9 # one setup at a time in this checkout

check_system
if [ -n "$required$optional" ]; then
    install_packages
    check_python
    [ -n "$python" ] || die "still no Python 3.11 to 3.13"
fi

installed="$(cat pyproject.toml packaging/build_proto.py | sha256sum) $(identity "$python") $(pwd -P)"
protos=$(find proto -name '*.proto' | LC_ALL=C sort | xargs cat | sha256sum)

if [ "$(cat .venv/installed.stamp 2>/dev/null)" != "$installed" ]; then
    make_venv # generates the code of the protos too
    echo "$installed" >.venv/installed.stamp
    echo "$protos" >.venv/protos.stamp
elif [ "$(cat .venv/protos.stamp 2>/dev/null)" != "$protos" ] || [ ! -e proto/plugind_proto/v1/runtime_pb2.py ]; then
    say "proto/ changed: generating its code"
    .venv/bin/python packaging/build_proto.py
    echo "$protos" >.venv/protos.stamp
fi
say "ready: .venv/bin/plugind, .venv/bin/plugindctl"
