#!/bin/sh
# as_root.sh WHY COMMAND...: runs the command as root; asks for sudo, and says why, if it has to. The command leaves no bytecode that
# belongs to root in a checkout that is a user's. In one of root's own it does: hundreds of daemons are started, and compile nothing then.
set -eu
why=$1
shift
if [ "$(stat -c %u "$(dirname "$0")")" = 0 ]; then
    unset PYTHONDONTWRITEBYTECODE
else
    export PYTHONDONTWRITEBYTECODE=1
fi
[ "$(id -u)" != 0 ] || exec "$@"
if ! command -v sudo >/dev/null; then
    printf 'root is needed: %s. There is no sudo here: run this as root.\n' "$why" >&2
    exit 1
fi
printf 'root is needed: %s. sudo may ask for your password.\n' "$why"
# sudo clears the environment.
exec sudo env PYTHONDONTWRITEBYTECODE=1 CI="${CI:-}" "$@"
