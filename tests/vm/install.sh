#!/bin/bash
# install.sh ROOT TREE DISK WHEELS ARGUMENTS: plugind from TREE is installed over ROOT, which stays as it is; what is new goes onto the
# file system DISK, with the file ARGUMENTS. Here, because a processor that is emulated would need minutes.
# Started in a mount namespace of its own: its mounts end with it.
set -euo pipefail
umask 022
lower=$1 tree=$2 disk=$3 wheels=$4 arguments=$5

work=$disk.work
mkdir "$work"
trap 'umount -lR "$work"; rmdir "$work"' EXIT
mount -t tmpfs -o mode=0755 none "$work"
mkdir "$work/upper" "$work/work" "$work/root"
root=$work/root
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$work/upper,workdir=$work/work" "$root"

mkdir -p "$root/usr/src/plugind"
tar -C "$tree" -c --exclude=__pycache__ pyproject.toml LICENSE daemon client proto profiles packaging tests |
    tar -C "$root/usr/src/plugind" -x --no-same-owner
cp "$arguments" "$root/usr/src/plugind/arguments"
mount -t proc none "$root/proc"
mount --rbind /dev "$root/dev"
inside() {
    chroot "$root" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 \
        PIP_CONFIG_FILE=/dev/null PIP_NO_INDEX=1 PIP_FIND_LINKS="$wheels" "$@"
}
inside /usr/src/plugind/packaging/install.sh
# What runs the tests is found by plugind's own interpreter: they test what was installed.
echo /opt/test-packages >"$root/opt/plugind/lib/python3.11/site-packages/tests.pth"
inside python3 -m compileall -q /usr/src/plugind/tests /opt/plugind/lib
umount -l "$root/dev" "$root/proc"
rm -rf "$work/upper/tmp" "$work/upper/root/.cache"
mke2fs -q -t ext4 -d "$work/upper" "$disk" 1G
