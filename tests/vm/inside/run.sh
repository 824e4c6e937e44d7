# In the machine: root runs it in a unit whose groups are delegated to it. Its second disk is at /mnt.
# What is printed goes over the second serial line; the last line holds pytest's exit status.
exec </dev/null >/dev/ttyS1 2>&1
stty -F /dev/ttyS1 raw -echo
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root
export PYTHONDONTWRITEBYTECODE=1 CI=true TERM=dumb NO_COLOR=1
export PLUGIND_TEST_MACHINE=this PLUGIND_TEST_HIERARCHY=unified PLUGIND_TEST_SLOWNESS=10
finish() {
    echo "plugind-vm: exit $1"
    exit 0
}

# plugind and the tree stay on the second disk; the few files that install.sh puts elsewhere are copied.
mkdir -p /opt/plugind /usr/src/plugind
mount --bind /mnt/opt/plugind /opt/plugind
mount --bind /mnt/usr/src/plugind /usr/src/plugind
(cd /mnt && tar -c --exclude=./opt/plugind --exclude=./usr/src/plugind --exclude=./lost+found .) | tar -C / -x || finish 90
systemctl daemon-reload || finish 91
cd /usr/src/plugind || finish 92
echo "plugind-vm: up after $(cut -d' ' -f1 /proc/uptime) s: $(uname -r), $(python3 -V), $(stat -fc %T /sys/fs/cgroup)"
/opt/plugind/bin/plugindctl doctor

arguments=$(cat arguments)
if [ -z "$arguments" ]; then
    arguments=$(sed 's/#.*//' tests/vm/inside/tests.txt | tr '\n' ' ')
fi
eval "set -- $arguments" # they are quoted for this shell
# Through a pipe: what is on a terminal gets redrawn. Native tracebacks: ast.parse of this Python (3.11.2) raises SystemError when
# it is called deep in a stack, as pytest does for its own.
{
    /opt/plugind/bin/python -u -m pytest -v --tb=native -p no:cacheprovider --durations=15 -o timeout=900 "$@"
    echo $? >/run/status
} 2>&1 | cat
finish "$(cat /run/status)"
