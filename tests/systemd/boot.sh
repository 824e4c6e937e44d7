#!/bin/bash
# boot.sh WORK TREE: systemd as PID 1 in a container over a throw-away overlay of this machine's root, with plugind
# installed in it from TREE. Runs until the container is powered off. WORK/share is /mnt/t inside.
# Started in a mount namespace of its own: its mounts end with it.
set -euo pipefail
umask 022
work=$1 tree=$2
group=$(basename "$work")

# Groups of our own where the container's systemd makes its own below. A machine that runs systemd has them made by that.
keep=()
if [ ! -d /run/systemd/system ]; then
    keep=(--keep-unit)
    for hierarchy in systemd memory pids cpu cpuacct unified; do
        [ -e "/sys/fs/cgroup/$hierarchy/cgroup.procs" ] || continue
        mkdir "/sys/fs/cgroup/$hierarchy/$group"
        echo $$ >"/sys/fs/cgroup/$hierarchy/$group/cgroup.procs"
    done
fi

mkdir "$work/overlay"
mount -t tmpfs -o mode=0755 none "$work/overlay"
mkdir "$work/overlay/upper" "$work/overlay/work" "$work/overlay/root"
root=$work/overlay/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/overlay/upper,workdir=$work/overlay/work" "$root"

# --- install: here there is a network for pip, in the container there is none
mkdir -p "$root/usr/src/plugind" "$root/etc/plugind"
tar -C "$tree" -c --exclude=__pycache__ pyproject.toml LICENSE daemon client proto profiles packaging |
    tar -C "$root/usr/src/plugind" -x --no-same-owner
echo 'connections_per_uid = 100 # edited' >"$root/etc/plugind/plugind.toml"
mount -t proc none "$root/proc"
mount --rbind /dev "$root/dev"
echo "--- install.sh"
chroot "$root" env -u VIRTUAL_ENV PYTHON=/usr/bin/python3 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /usr/src/plugind/packaging/install.sh
umount -l "$root/dev"
umount -l "$root/proc"

# --- only what the tests need is started: not the services of the machine that lies below
units=$root/etc/systemd/system
cat >"$units/test.target" <<U
[Unit]
Requires=basic.target
Wants=test-agent.service
After=basic.target
U
# In hybrid mode the container's v1 controllers come up read-only.
cat >"$units/test-agent.service" <<U
[Service]
Type=notify
ExecStartPre=/bin/sh -c 'for c in memory pids cpu cpuacct; do [ ! -d /sys/fs/cgroup/\$\$c ] || mount -o remount,rw,bind /sys/fs/cgroup/\$\$c; done; systemctl daemon-reexec'
ExecStart=/usr/bin/python3 /mnt/t/agent.py /mnt/t/agent.sock
U
mkdir -p "$root/etc/systemd/journald.conf.d"
printf '[Journal]\nStorage=volatile\nForwardToConsole=no\n' >"$root/etc/systemd/journald.conf.d/test.conf"

echo "--- systemd-nspawn"
exec systemd-nspawn --quiet --directory="$root" --register=no "${keep[@]}" --private-network --link-journal=no \
    --console=pipe --machine=plugind-test-$$ --bind="$work/share:/mnt/t" --boot systemd.unit=test.target
