/* Attacks by a program (runtime "exec") on what executes it. Standard input names the attack; the report is JSON. */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *separator = "";

static void report(const char *name, long result) {
    printf("%s\"%s\": \"%s\"", separator, name, result < 0 ? strerrorname_np(errno) : "done");
    separator = ", ";
}

static void report_number(const char *name, long number) {
    printf("%s\"%s\": %ld", separator, name, number);
    separator = ", ";
}

/* Every descriptor, and what it is. */
static void descriptors(void) {
    for (int number = 0; number < 65536; number++) {
        char path[64], target[256], name[16];
        snprintf(path, sizeof path, "/proc/self/fd/%d", number);
        ssize_t length = readlink(path, target, sizeof target - 1);
        if (length < 0) continue;
        target[strcspn(target, ":[")] = 0;
        snprintf(name, sizeof name, "%d", number);
        printf("%s\"%s\": \"%.*s\"", separator, name, (int)length, target);
        separator = ", ";
    }
}

/* The executor's memory, descriptors and environment, by /proc; and whatever descriptor of it can be opened anew. */
static void look_at_pid_1(void) {
    static const char *names[] = {"mem", "environ", "maps", "auxv", "exe", "cwd", "root", "io", "stack", "syscall",
                                  "fd", "fd/0", "fd/1", "fd/2", "fd/3", "fd/4", "fd/5", "fd/6", "fd/7", "fd/8",
                                  "map_files", "pagemap", "task/1/mem", "task/1/fd/3", "oom_score_adj", "ns/pid"};
    char path[64];
    for (size_t each = 0; each < sizeof names / sizeof *names; each++) {
        snprintf(path, sizeof path, "/proc/%d/%s", getppid(), names[each]);
        int write_it = !strcmp(names[each], "oom_score_adj") || !strncmp(names[each], "fd/", 3);
        report(names[each], open(path, write_it ? O_WRONLY : O_RDONLY));
    }
    report("pidfd_getfd", syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, 1, 0), 3, 0));
    report("kcmp", syscall(SYS_kcmp, 1, getpid(), 0, 3, 0));
    report("exe for writing", open("/proc/1/exe", O_WRONLY));
    report_number("parent", getppid());
}

static void read_memory(void) {
    char here[64];
    struct iovec local = {here, sizeof here}, remote = {(void *)0x400000, sizeof here};
    report("process_vm_readv", process_vm_readv(1, &local, 1, &remote, 1, 0));
}

static void trace(void) { report("ptrace", ptrace(PTRACE_SEIZE, 1, 0, 0)); }

/* Frames, with a nonce that is a guess, to every descriptor there could be, before the executor writes its own. */
static void forge(void) {
    unsigned char frame[16 + 1 + 8 + 8] = {0};
    memcpy(frame + 16, "V\0\0\0\0\0\0\0\10\"forged\"", 17);
    long written = 0;
    for (int number = 3; number < 65536; number++) written += write(number, frame, sizeof frame) > 0;
    report_number("written", written);
}

/* Every signal to the executor and to everybody, and limits of it that would let no result through. */
static void signal_pid_1(void) {
    for (int round = 0; round < 50; round++)
        for (int number = 1; number <= SIGRTMAX; number++) kill(1, number);
    signal(SIGTERM, SIG_IGN);
    kill(-1, SIGTERM);
    kill(0, SIGTERM);
    report("group", kill(-getpgrp(), SIGTERM));
    report_number("parent", getppid());
}

/* Processes that outlive it with its output open, would write more there, and pile up where others have a result. */
static void linger(void) {
    for (int child = 0; child < 3; child++) {
        if (fork()) continue;
        if (fork()) _exit(0);
        setsid();
        for (int number = 1; number < SIGRTMIN; number++) signal(number, SIG_IGN);
        for (;;) {
            usleep(1000);
            if (write(1, ", \"late\": 1", 11) < 0) _exit(0);
        }
    }
    report("left", 0);
    printf("}");
    fflush(stdout);
    _exit(0);
}

/* A whole result, and then its end without closing: by closing, going on, and opening what was its output anew. */
static void close_and_go_on(void) {
    report("written", 0);
    printf("}");
    fflush(stdout);
    close(0);
    close(1);
    usleep(200 * 1000);
    report("again", open("/proc/1/fd/1", O_WRONLY));
    int again = open("/proc/self/fd/1", O_WRONLY);
    if (again >= 0) write(again, "x", 1);
    _exit(0);
}

/* A crash of a child that is dumpable again since exec, and the limit that keeps its core from everybody. */
static void crash(void) {
    struct rlimit core, more = {1 << 20, 1 << 20}, none = {0, 0};
    int status;
    pid_t child = fork();
    if (!child) abort();
    waitpid(child, &status, 0);
    report_number("signal", WTERMSIG(status));
    report_number("core", !!WCOREDUMP(status));
    getrlimit(RLIMIT_CORE, &core);
    report_number("soft", core.rlim_cur);
    report_number("hard", core.rlim_max);
    report("raise", setrlimit(RLIMIT_CORE, &more));
    report("lower", setrlimit(RLIMIT_CORE, &none));
    report("pid 1's", prlimit(1, RLIMIT_CORE, &more, NULL));
    long files = 0;
    DIR *folder = opendir("/tmp");
    while (folder && readdir(folder)) files++;
    report_number("files", files - 2);
}

/* Its own file, by every name; and by the memory file that it may open, since exec made it dumpable. */
static void overwrite(const char *self) {
    report("exe", open("/proc/self/exe", O_WRONLY));
    report("path", open(self, O_WRONLY));
    report("unlink", unlink(self));
    report("rename", rename(self, "/tmp/other"));
    int memory = open("/proc/self/mem", O_RDWR);
    report("memory", memory);
    report("text", pwrite(memory, "x", 1, (off_t)(uintptr_t)trace));
}

/* Standard output handed round in sockets that nobody holds: as long as they are there, so is a writer. */
static void pass_output_round(void) {
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) report("socketpair", -1);
    for (int number = 0; number < 2; number++) {
        int given[2] = {1, pair[number]};
        char control[CMSG_SPACE(sizeof given)] = {0}, byte = 'x';
        struct iovec one = {&byte, 1};
        struct msghdr message = {
            .msg_iov = &one, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET, head->cmsg_type = SCM_RIGHTS, head->cmsg_len = CMSG_LEN(sizeof given);
        memcpy(CMSG_DATA(head), given, sizeof given);
        report(number ? "second" : "first", sendmsg(pair[number], &message, 0));
    }
}

/* Wake the executor as often as it goes: what it uses is this run's. */
static void wake_pid_1(void) {
    for (int round = 0; round < 200 * 1000; round++) kill(1, SIGCHLD);
    report("woken", 0);
}

int main(int count, char **arguments) {
    char text[4096] = {0};
    fread(text, 1, sizeof text - 1, stdin);
    printf("{");
    if (strstr(text, "\"descriptors\"")) descriptors();
    if (strstr(text, "\"look_at_pid_1\"")) look_at_pid_1();
    if (strstr(text, "\"read_memory\"")) read_memory();
    if (strstr(text, "\"trace\"")) trace();
    if (strstr(text, "\"forge\"")) forge();
    if (strstr(text, "\"signal_pid_1\"")) signal_pid_1();
    if (strstr(text, "\"linger\"")) linger();
    if (strstr(text, "\"close_and_go_on\"")) close_and_go_on();
    if (strstr(text, "\"crash\"")) crash();
    if (strstr(text, "\"overwrite\"")) overwrite(arguments[0]);
    if (strstr(text, "\"pass_output_round\"")) pass_output_round();
    if (strstr(text, "\"wake_pid_1\"")) wake_pid_1();
    printf("}\n");
    return 0;
}
