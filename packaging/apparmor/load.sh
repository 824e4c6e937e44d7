#!/bin/sh
# load.sh: installs the AppArmor profile plugind-launcher and loads it, where this machine has an AppArmor that knows user namespaces.
# load.sh --remove: takes it away again. With --top DIR: files below DIR in place of /.
# Root runs it, or install.sh does. It says what it does; exits 2 where plugins could not run without the profile and it cannot be had.
set -eu
umask 022
export PATH="$PATH:/usr/sbin:/sbin"
source=$(cd "$(dirname "$0")" && pwd -P)/plugind-launcher

say() { printf 'apparmor: %s\n' "$*"; }
die() { printf 'apparmor: %s\n' "$*" >&2; exit 2; }
usage() { sed -n '2,4s/^# //p' "$0"; exit "$1"; }
holds() { [ "$(cat "$top/$1" 2>/dev/null)" = "$2" ]; } # holds FILE TEXT

install_profile() {
    restricted=
    if holds proc/sys/kernel/apparmor_restrict_unprivileged_userns 1; then restricted=yes; fi
    if ! command -v apparmor_parser >/dev/null; then
        [ -z "$restricted" ] || die "user namespaces are restricted here, and apparmor_parser is missing: apt-get install apparmor, then run this again"
        say "no apparmor_parser here, and no need for a profile"
    elif ! problem=$(apparmor_parser --skip-kernel-load --skip-cache "$source" 2>&1); then
        [ -z "$restricted" ] || die "user namespaces are restricted here, and the profile is refused: $problem"
        say "this AppArmor does not know user namespaces, so there is no need for a profile"
    else
        say "$target"
        install -D -m 0644 "$source" "$target"
        if holds sys/module/apparmor/parameters/enabled Y; then
            say "loading it"
            apparmor_parser --replace --write-cache "$target"
        else
            say "AppArmor is off in this kernel: there is nothing to load it into"
        fi
    fi
}

remove_profile() {
    [ -e "$target" ] || return 0
    if holds sys/module/apparmor/parameters/enabled Y && command -v apparmor_parser >/dev/null; then
        # It may not be loaded; then there is nothing to take out.
        apparmor_parser --remove "$target" || say "it was not loaded"
    fi
    rm -fv "$target"
}

top=
action=install_profile
while [ $# -gt 0 ]; do
    case $1 in
    --remove) action=remove_profile ;;
    --top) [ $# -ge 2 ] || usage 2 >&2; top=$2; shift ;;
    -h | --help) usage 0 ;;
    *) usage 2 >&2 ;;
    esac
    shift
done
target=$top/etc/apparmor.d/plugind-launcher
$action
