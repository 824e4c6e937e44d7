#!/bin/sh
# install.sh [--prefix DIR]: installs plugind from this tree as services of systemd, in DIR (default /opt/plugind).
# install.sh --uninstall [--prefix DIR]: takes it away again; state, configuration and users stay.
# Root runs it, again for an update. It says what it does. Choose the interpreter with PYTHON=/path/to/python3.
set -eu
umask 022
tree=$(cd "$(dirname "$0")/.." && pwd -P)
export PATH="$PATH:/usr/sbin:/sbin" PYTHONDONTWRITEBYTECODE=1

UNITS="plugind.service plugind-launcher.socket plugind-launcher.service plugind-failure@.service"
COMMANDS="plugind plugindctl"
lib=/usr/local/lib
bin=/usr/local/bin

say() { printf 'install: %s\n' "$*"; }
die() { printf 'install: %s\n' "$*" >&2; exit 2; }
usage() { sed -n '2,4s/^# //p' "$0"; exit "$1"; }
booted() { [ -d /run/systemd/system ]; }

# --- before anything is changed ----------------------------------------------------------------------------------------------------

# The units' user has to get through every folder above it, and the unit sees neither homes nor /tmp.
check_reachable() { # check_reachable WHAT PATH
    case $2/ in
    /home/* | /root/* | /run/user/* | /tmp/* | /var/tmp/*)
        die "$1 $2: expected a place outside homes and temporary folders, which plugind.service does not see; use the system's Python (PYTHON=/usr/bin/python3) and a --prefix such as /opt/plugind" ;;
    esac
    above=$2
    while [ "$above" != / ]; do
        above=$(dirname "$above")
        [ -d "$above" ] || continue
        case $(stat -Lc %a "$above") in
        *[1357]) ;;
        *) die "$1 $2: expected folders that every user can enter, got $above with mode $(stat -Lc %a "$above"); the user plugind could not start it" ;;
        esac
    done
}

check_python() {
    python=${PYTHON:-/usr/bin/python3}
    command -v "$python" >/dev/null || die "$python: expected a Python 3.11 to 3.13, found nothing; set PYTHON"
    "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' ||
        die "$python: expected a Python 3.11 to 3.13, got $("$python" -V 2>&1); set PYTHON"
    python=$("$python" -c 'import os, sys; print(os.path.realpath(sys._base_executable))') # a venv of a venv would need both
    check_reachable "the interpreter" "$python"
    version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
}

check_system() {
    missing=
    "$python" -c 'import venv, ensurepip' 2>/dev/null || missing="$missing $version-venv"
    "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || missing="$missing $version-dev"
    command -v gcc >/dev/null || missing="$missing gcc libc6-dev"
    command -v pkg-config >/dev/null || missing="$missing pkg-config"
    pkg-config --exists libsystemd 2>/dev/null || missing="$missing libsystemd-dev"
    ldconfig -p | grep -q 'libseccomp\.so\.2' || missing="$missing libseccomp2"
    ldconfig -p | grep -q 'libnftables\.so\.1' || missing="$missing libnftables1"
    command -v systemd-sysusers >/dev/null || missing="$missing systemd"
    [ -z "$missing" ] || die "missing here: apt-get install$missing"
}

# Only what this script has made is replaced.
check_ours() {
    if [ -e "$prefix" ] && [ ! -e "$prefix/pyvenv.cfg" ] && [ -n "$(ls -A "$prefix")" ]; then
        die "$prefix: expected nothing, or an installation of plugind; choose another --prefix"
    fi
    for name in $COMMANDS; do
        if [ -e "$bin/$name" ] && [ ! -L "$bin/$name" ]; then
            die "$bin/$name: expected nothing, or a link of an earlier installation; move it away"
        fi
    done
}

# --- install -----------------------------------------------------------------------------------------------------------------------

install_package() {
    say "making a virtual environment in $prefix with $python"
    # Not at once where there is one already: it may be in use.
    "$python" -m venv "$prefix"
    copy=$(mktemp -d)
    trap 'rm -rf "$copy"' EXIT
    # Building generates code beside the sources: not in a checkout that is a user's.
    (cd "$tree" && tar -c --exclude=__pycache__ pyproject.toml LICENSE daemon client/plugind_client proto profiles packaging) | tar -x --no-same-owner -C "$copy"
    say "installing plugind and what it needs into it (about a minute)"
    "$prefix/bin/python" -m pip install --quiet --disable-pip-version-check --use-pep517 "$copy[cli,daemon]"
    for name in $COMMANDS; do
        say "$bin/$name -> $prefix/bin/$name"
        ln -sfn "$prefix/bin/$name" "$bin/$name"
    done
}

put() { # put FILE TARGET
    say "$2"
    install -D -m 0644 "$1" "$2"
}

install_units() {
    for unit in $UNITS; do
        say "$lib/systemd/system/$unit"
        install -d "$lib/systemd/system"
        sed "s|/opt/plugind/|$prefix/|" "$tree/packaging/$unit" >"$lib/systemd/system/$unit"
        chmod 0644 "$lib/systemd/system/$unit"
    done
    say "$prefix/libexec/plugind-failure"
    install -D -m 0755 "$tree/packaging/plugind-failure" "$prefix/libexec/plugind-failure"
    put "$tree/packaging/plugind.sysusers" "$lib/sysusers.d/plugind.conf"
    put "$tree/packaging/plugind.tmpfiles" "$lib/tmpfiles.d/plugind.conf"
    put "$tree/packaging/plugind.catalog" "$lib/systemd/catalog/plugind.catalog"
    "$tree/packaging/apparmor/load.sh"
    say "making the user plugind and the groups plugind-operator, plugind-approver, plugind-admin, where they are missing"
    systemd-sysusers "$lib/sysusers.d/plugind.conf"
    systemd-tmpfiles --create "$lib/tmpfiles.d/plugind.conf"
    journalctl --update-catalog
    if booted; then systemctl daemon-reload; fi
}

configure() {
    for pair in packaging/plugind.toml:plugind.toml profiles/policy.toml:policy.toml; do
        target=/etc/plugind/${pair#*:}
        if [ -e "$target" ]; then
            say "$target stays as it is"
        else
            put "$tree/${pair%%:*}" "$target"
        fi
    done
}

# --- uninstall ---------------------------------------------------------------------------------------------------------------------

uninstall() {
    [ -e "$prefix/pyvenv.cfg" ] && [ -e "$prefix/bin/plugind" ] ||
        die "$prefix: expected an installation of plugind, found none; name its --prefix"
    if booted; then
        say "stopping plugind"
        systemctl disable --quiet --now plugind.service plugind-launcher.socket 2>/dev/null || true
        systemctl stop plugind-launcher.service 2>/dev/null || true
    fi
    for unit in $UNITS; do rm -fv "$lib/systemd/system/$unit"; done
    rm -fv "$lib/sysusers.d/plugind.conf" "$lib/tmpfiles.d/plugind.conf" "$lib/systemd/catalog/plugind.catalog"
    for name in $COMMANDS; do
        if [ "$(readlink "$bin/$name")" = "$prefix/bin/$name" ]; then rm -fv "$bin/$name"; fi
    done
    "$tree/packaging/apparmor/load.sh" --remove
    say "removing $prefix"
    rm -rf "$prefix"
    journalctl --update-catalog
    if booted; then systemctl daemon-reload; fi
    say "left as they are: /var/lib/plugind (registry and audit), /etc/plugind, the user plugind and the groups"
}

# -----------------------------------------------------------------------------------------------------------------------------------

prefix=/opt/plugind
action=install
while [ $# -gt 0 ]; do
    case $1 in
    --prefix) [ $# -ge 2 ] || usage 2; prefix=$2; shift ;;
    --prefix=*) prefix=${1#*=} ;;
    --uninstall) action=uninstall ;;
    -h | --help) usage 0 ;;
    *) usage 2 >&2 ;;
    esac
    shift
done
case $prefix in
/ | *[!A-Za-z0-9/._-]* | [!/]*) die "--prefix $prefix: expected an absolute path of letters, digits and ._-/" ;;
esac
prefix=$(realpath -m "$prefix")
[ "$(id -u)" = 0 ] || die "needs root: it makes a user and installs services; type: sudo $0"

if [ $action = uninstall ]; then
    uninstall
    exit
fi
check_python
check_system
check_reachable "--prefix" "$prefix"
check_ours
install_package
install_units
configure
if booted; then
    say "ready. Update: systemctl try-restart plugind. First time: systemctl enable --now plugind"
else
    say "ready. After the next boot: systemctl enable --now plugind"
fi
say "let people in: usermod -aG plugind-operator,systemd-journal NAME (also plugind-approver, plugind-admin)"
