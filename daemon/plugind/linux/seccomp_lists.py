"""Which system calls a plugin may make. Names of both architectures; a name that one lacks is skipped there.

Grouped as a reader would ask for them. Source: man-pages section 2, checked against what CPython and its libraries do.
"""

from __future__ import annotations

from typing import Final

# Without flock, inotify and cachestat: instances see the same inodes read-only, and could signal each other by them.
_FILES: Final = """
    access chdir chmod close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fallocate
    fchdir fchmod fchmodat fchmodat2 fdatasync fgetxattr flistxattr fstat fstatfs fsync ftruncate
    futimesat getcwd getdents getdents64 getxattr lgetxattr link linkat listxattr llistxattr lseek lstat mkdir mkdirat
    newfstatat open openat openat2 pread64 preadv pwrite64 pwritev pwritev2 read readahead readlink readlinkat
    readv rename renameat renameat2 rmdir sendfile splice stat statfs statx symlink symlinkat sync_file_range
    tee truncate umask unlink unlinkat utime utimensat utimes vmsplice write writev chown fchown fchownat lchown
"""
_MEMORY: Final = """
    brk madvise membarrier mincore mlock mlock2 mlockall mprotect mremap msync munlock munlockall
    munmap pkey_alloc pkey_free pkey_mprotect set_mempolicy get_mempolicy mbind map_shadow_stack
"""
_PROCESSES: Final = """
    alarm arch_prctl capget exit exit_group fork futex futex_wait futex_waitv futex_wake futex_requeue getcpu getegid
    geteuid getgid getgroups getpgid getpgrp getpid getppid getpriority getresgid getresuid getrlimit getrusage
    get_robust_list getsid gettid getuid kill pause pidfd_open pidfd_send_signal restart_syscall rseq
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_tgsigqueueinfo sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min
    sched_getscheduler sched_rr_get_interval sched_setaffinity sched_yield set_robust_list set_tid_address setpgid
    setpriority setsid sigaltstack sysinfo tgkill times tkill uname vfork wait4 waitid landlock_create_ruleset
    landlock_add_rule landlock_restrict_self
"""
_TIME: Final = """
    clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer time timer_create
    timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime
"""
_WAITING: Final = """
    epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 pipe pipe2 poll ppoll
    pselect6 select signalfd signalfd4
"""
# On descriptors that socketpair() made; socket() itself is refused.
_SOCKETS: Final = """
    getpeername getsockname getsockopt recvfrom recvmmsg recvmsg sendmmsg sendmsg sendto shutdown
"""
# Of the instance's own IPC namespace, charged to its memory group.
_IPC: Final = """
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd semctl semget
    semop semtimedop shmat shmctl shmdt
"""
_RANDOM: Final = "getrandom"

ALLOWED: Final = frozenset(f"{_FILES} {_MEMORY} {_PROCESSES} {_TIME} {_WAITING} {_SOCKETS} {_IPC} {_RANDOM}".split())
"""Whatever the arguments."""
EXECUTE: Final = frozenset({"execve", "execveat"})
"""Only where the profile allows programs."""
NETWORK: Final = frozenset({"accept", "accept4", "bind", "connect", "listen"})
"""Only of an instance that was granted network, which has a namespace of its own; and sockets of these:"""
NETWORK_SOCKETS: Final = tuple(
    (family, kind, protocol) for family in (2, 10) for kind, protocol in ((1, 0), (1, 6), (2, 0), (2, 17))
)
"""AF_INET and AF_INET6, TCP and UDP: no ping, no SCTP, no MPTCP, which opens paths of its own."""
ROUTE_SOCKETS: Final = tuple((16, kind, 0) for kind in (2, 3))
"""AF_NETLINK with NETLINK_ROUTE: which addresses there are, getifaddrs(3)."""
NETWORK_OPTIONS: Final = (
    *((1, option) for option in (15, 18)),  # SO_REUSEPORT, SO_RCVLOWAT
    *((0, option) for option in (1, 2, 8, 10, 11, 24)),  # IP_TOS, _TTL, _PKTINFO, _MTU_DISCOVER, _RECVERR, …
    *((6, option) for option in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 18, 25)),  # of TCP without ULP and CONGESTION
    *((41, option) for option in (16, 23, 25, 26, 49, 67)),  # IPV6_UNICAST_HOPS, …, _V6ONLY, _RECVPKTINFO, _TCLASS
    *((270, option) for option in (1, 11, 12)),  # SOL_NETLINK: NETLINK_ADD_MEMBERSHIP, _EXT_ACK, _GET_STRICT_CHK
)
"""Levels and options of setsockopt(2), on top of SOCKET_OPTIONS."""
MEMFD: Final = frozenset({"memfd_create"})
"""Only where the kernel can hold it to memory that is not executed (vm.memfd_noexec, Linux 6.3); not of huge pages."""
BY_ARGUMENT: Final = frozenset(
    """
    clone fadvise64 fcntl ioctl mmap personality prctl preadv2 prlimit64 setrlimit setsockopt shmget socketpair
    """.split()
)
"""Allowed for some arguments only (seccomp.py)."""

DANGEROUS: Final = tuple(
    """
    acct add_key bpf delete_module finit_module fsconfig fsmount fsopen fspick init_module ioperm iopl kexec_file_load
    kexec_load keyctl mount mount_setattr move_mount open_by_handle_at open_tree open_tree_attr pivot_root ptrace
    process_vm_readv process_vm_writev quotactl quotactl_fd reboot request_key setns swapoff swapon umount2 unshare
    userfaultfd
    """.split()
)
"""No library makes these by accident: the whole run ends, as a violation."""

NOT_THERE: Final = ("clone3",)
"""Answered with ENOSYS: its flags cannot be seen by a filter, and libc falls back to clone."""
NEWER: Final = {
    "cachestat": 451, "fchmodat2": 452, "map_shadow_stack": 453, "futex_wake": 454, "futex_wait": 455,
    "futex_requeue": 456, "statmount": 457, "listmount": 458, "lsm_get_self_attr": 459, "lsm_set_self_attr": 460,
    "lsm_list_modules": 461, "mseal": 462, "setxattrat": 463, "getxattrat": 464, "listxattrat": 465,
    "removexattrat": 466, "open_tree_attr": 467, "file_getattr": 468, "file_setattr": 469, "listns": 470,
}  # fmt: skip
"""Numbers, the same on every architecture, that the libseccomp of a distribution may not know by name."""
ABSENT: Final = frozenset(
    """
    cachestat flock inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_uring_enter io_uring_register
    io_uring_setup memfd_create
    """.split()
)
"""Refused with ENOSYS, on which libraries do without; all else that is refused gets EPERM."""

NEVER: Final = tuple(
    """
    acct add_key bpf delete_module finit_module init_module io_uring_enter io_uring_register io_uring_setup ioperm iopl
    kexec_file_load kexec_load keyctl open_by_handle_at perf_event_open ptrace process_vm_readv process_vm_writev
    quotactl quotactl_fd reboot request_key swapoff swapon syslog userfaultfd settimeofday clock_settime clock_adjtime
    adjtimex setdomainname vhangup name_to_handle_at lookup_dcookie
    """.split()
)
"""What neither a template nor an instance has any use for."""

NOTIFIER: Final = tuple(
    """
    brk close epoll_ctl epoll_pwait epoll_wait exit_group fcntl fstat futex getpid gettid getrandom ioctl lseek madvise
    mmap mprotect mremap munmap newfstatat read recvmsg rt_sigaction rt_sigprocmask rt_sigreturn sendmsg sendto
    clock_gettime restart_syscall write
    """.split()
)
"""What the supervisor of notifications needs (sandbox/notifier.py)."""
RESOLVER: Final = tuple(
    """
    brk close connect epoll_ctl epoll_pwait epoll_wait exit_group fcntl fstat futex getpid getsockname getsockopt gettid
    getrandom ioctl lseek madvise mmap mprotect mremap munmap newfstatat read recvfrom recvmsg rt_sigaction
    rt_sigprocmask rt_sigreturn sendmsg sendto clock_gettime restart_syscall write
    """.split()
)
"""What the process that asks name servers needs (sandbox/network/resolver.py), besides sockets of AF_INET and
AF_INET6, and files to read."""
AF_INET, AF_INET6 = 2, 10
O_ACCMODE, O_CREAT, O_TRUNC = 3, 0o100, 0o1000

CLONE_NAMESPACES: Final = 0x7E020080
"""CLONE_NEW{TIME,NS,CGROUP,UTS,IPC,USER,PID,NET}."""
AF_UNIX: Final = 1
IOCTLS: Final = (
    0x5401,  # TCGETS: isatty()
    0x5413,  # TIOCGWINSZ
    0x541B,  # FIONREAD
    0x5421,  # FIONBIO
    0x5450,  # FIONCLEX
    0x5451,  # FIOCLEX
    0x5452,  # FIOASYNC
)
MAP_HUGETLB, MFD_HUGETLB, SHM_HUGETLB = 0x40000, 4, 0o4000
"""Huge pages are charged to no memory group."""
RWF_NOWAIT: Final = 8
"""A read that says whether a page was in memory: by that, and by advice to forget it, siblings could signal."""
ADVICES: Final = (0, 1, 2, 3, 5)
"""posix_fadvise(2) without POSIX_FADV_DONTNEED."""
RLIMIT_CORE: Final = 4
"""Nobody may change it: at 1, and only there, the kernel starts no helper for a core either. Source: core(5)."""
SOL_SOCKET: Final = 1
SOCKET_OPTIONS: Final = (2, 7, 8, 9, 13, 20, 21, 66, 67)
"""SO_REUSEADDR, buffers, SO_KEEPALIVE, SO_LINGER, timeouts. Not filters, the plugin's own code in the kernel."""
SOCKET_TYPES: Final = (1, 5)
"""SOCK_STREAM and SOCK_SEQPACKET. Datagrams can be sent to names, and a pair can come to have one."""
FCNTLS: Final = (
    *range(5),  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL
    *(8, 9, 10, 11, 15, 16),  # who gets SIGIO
    *(0x403, 0x406),  # F_DUPFD_QUERY, F_DUPFD_CLOEXEC
    *(0x407, 0x408),  # F_SETPIPE_SZ, F_GETPIPE_SZ
    *(0x409, 0x40A),  # F_ADD_SEALS, F_GET_SEALS
)
"""Without leases and F_NOTIFY, by which siblings could signal each other, and without locks:"""
FCNTL_LOCKS: Final = (5, 6, 7)
"""F_GETLK, F_SETLK, F_SETLKW, where the profile allows file locks. A database in a file needs them."""
PRCTLS: Final = (
    1,  # PR_SET_PDEATHSIG: of its own children
    2,  # PR_GET_PDEATHSIG
    3,  # PR_GET_DUMPABLE
    15,  # PR_SET_NAME
    16,  # PR_GET_NAME
    23,  # PR_CAPBSET_READ
    30,  # PR_GET_TIMERSLACK
    36,  # PR_SET_CHILD_SUBREAPER
    37,  # PR_GET_CHILD_SUBREAPER
    38,  # PR_SET_NO_NEW_PRIVS: it is set already
    39,  # PR_GET_NO_NEW_PRIVS
    40,  # PR_GET_TID_ADDRESS
    0x53564D41,  # PR_SET_VMA: names of anonymous memory
)
