/*
 * The benchmark program: runs natively and, as process 1, in guests; does what it is told line by
 * line on standard input (in a guest: on COM1). Linked statically.
 *
 *   list                   -> "@@test NAME GROUP CPUS WHAT" for each test, "@@done"
 *   test NAME MS           runs the test for about MS milliseconds
 *   ops NAME COUNT         runs the test for COUNT operations (a gauge: milliseconds)
 *   exec WORD...           runs a program, words separated by tabs: the file for its standard
 *                          input, "show" or "hide" (its output), its path, its arguments
 *   quit
 *
 * A run answers "@@begin CLOCK" and "@@end CLOCK", this machine's clock in nanoseconds before and
 * after, so that the reader can compare it with its own; then "@@result NS OPS", the time of one
 * operation; in the case of exec after the shown output's lines "@@out TEXT". "@@error TEXT" says
 * that it went wrong. "@@up" is the first thing that is said at all, "@@ready" asks for the next
 * line.
 *
 *   bench ROOT             natively; ROOT: where the programs for exec and their libraries are
 *   bench exit             nothing, for the test of exec
 *   bench net WORD...      a server or client of its own (net.c)
 */
#include "bench.h"
#include "net.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define MAX_LINE  1024
#define MAX_WORDS 64
#define MAX_OUT   16384
#define MAX_OPS   (1ull << 40)
#define MAX_STEP  16

volatile uint64_t sink;
volatile double sink_fp;
const char *tmp_dir = "/tmp", *self_path;

static const struct test *const groups[] = {compute_tests, os_tests, kernel_tests, jit_tests,
                                            smp_tests};
#define GROUPS (sizeof(groups) / sizeof(groups[0]))

static const char *root = ""; /* natively: where Debian's programs were unpacked */

/* What a run in a child process leaves behind; shared. */
struct outcome {
    double ns_per_op;
    uint64_t ops;
    bool valid;
};
static struct outcome *outcome;

void test_failed(const char *what)
{
    printf("@@error %s: %s\n", what, strerror(errno));
    fflush(stdout);
    _exit(1);
}

static const struct test *find_test(const char *name)
{
    for (unsigned g = 0; g < GROUPS; g++)
        for (const struct test *t = groups[g]; t->name; t++)
            if (!strcmp(t->name, name))
                return t;
    return NULL;
}

static void list_tests(void)
{
    for (unsigned g = 0; g < GROUPS; g++)
        for (const struct test *t = groups[g]; t->name; t++)
            printf("@@test %s %s %u %s\n", t->name, t->group, t->cpus, t->what);
    puts("@@done");
}

/* --- Tests --------------------------------------------------------------------------------- */

/* The line is empty before the clock starts: sending takes the guest's time. */
static void say_clock(const char *what)
{
    printf("@@%s %llu\n", what, (unsigned long long)now_ns());
    fflush(stdout);
    tcdrain(STDOUT_FILENO);
}

static uint64_t time_of(const struct test *test, uint64_t ops)
{
    uint64_t start = now_ns();

    test->run(ops);
    return now_ns() - start;
}

/* How many operations take about TARGET nanoseconds, when OPS took NS. A step is not too large, for
 * NS may be due to something else; nor does what one run of a test costs by itself count then. */
static uint64_t more_ops(uint64_t ops, uint64_t ns, uint64_t target)
{
    double factor = (double)target / (double)(ns ? ns : 1);

    ops = (uint64_t)((double)ops * (factor > MAX_STEP ? MAX_STEP : factor));
    return ops ? ops : 1;
}

/* Runs the test with more and more operations until that takes long enough. */
static uint64_t find_ops(const struct test *test, uint64_t target)
{
    uint64_t ops = 1, ns = time_of(test, ops), more;

    while ((more = more_ops(ops, ns, target)) > ops && ns < target / 2 && ops < MAX_OPS) {
        ops = more;
        ns = time_of(test, ops);
    }
    return more;
}

/* Tests of one CPU stay on the one they are on. */
static void stay_on_cpu(void)
{
    cpu_set_t set;
    int cpu = sched_getcpu();

    CPU_ZERO(&set);
    CPU_SET(cpu < 0 ? 0 : (unsigned)cpu, &set);
    sched_setaffinity(0, sizeof(set), &set);
}

/* In a child. OPS 0: as many as TARGET nanoseconds take. */
static void measure(const struct test *test, uint64_t target, uint64_t ops)
{
    uint64_t ns;

    if (!test->cpus)
        stay_on_cpu();
    if (test->prepare)
        test->prepare();
    if (test->gauge) {
        say_clock("begin");
        outcome->ns_per_op = test->gauge(target, &outcome->ops);
        outcome->valid = outcome->ns_per_op > 0;
    } else {
        if (!ops)
            ops = find_ops(test, target);
        say_clock("begin");
        ns = time_of(test, ops);
        outcome->ns_per_op = (double)ns / (double)ops;
        outcome->ops = ops;
        outcome->valid = true;
    }
    say_clock("end");
}

static void report(int status)
{
    if (WIFSIGNALED(status))
        printf("@@error ended by signal %d (%s)\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
    else if (WEXITSTATUS(status))
        printf("@@error exit status %d\n", WEXITSTATUS(status));
    else if (!outcome->valid)
        puts("@@error no result");
    else
        printf("@@result %.4f %llu\n", outcome->ns_per_op, (unsigned long long)outcome->ops);
}

static void run_test(const char *name, unsigned long long number, bool is_ops)
{
    const struct test *test = find_test(name);
    int status;
    pid_t child;

    if (!test || !number || number > MAX_OPS) {
        printf("@@error cannot run '%s' for %llu\n", name, number);
        return;
    }
    if (sysconf(_SC_NPROCESSORS_ONLN) < (long)test->cpus) {
        printf("@@error needs %u CPUs\n", test->cpus);
        return;
    }
    *outcome = (struct outcome){0};
    fflush(stdout);
    child = fork();
    if (child == 0) {
        if (is_ops && !test->gauge)
            measure(test, 0, number);
        else
            measure(test, number * 1000000, 0);
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        test_failed("fork");
    report(status);
}

/* --- Programs ------------------------------------------------------------------------------ */

/* In the child. A program from another root is started by that root's dynamic linker. */
__attribute__((noreturn)) static void become_program(char **words, int output)
{
    static char program[PATH_MAX], linker[PATH_MAX], libraries[2 * PATH_MAX], input[PATH_MAX];
    char *argv[MAX_WORDS + 4], **at = argv;
    int in;

    snprintf(program, sizeof(program), "%s%s", root, words[2]);
    snprintf(linker, sizeof(linker), "%s/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", root);
    snprintf(libraries, sizeof(libraries), "%s/lib/x86_64-linux-gnu:%s/usr/lib/x86_64-linux-gnu",
             root, root);
    snprintf(input, sizeof(input), "%s", words[0]);
    in = open(input, O_RDONLY | O_CLOEXEC);
    if (in < 0)
        test_failed(input);
    dup2(in, STDIN_FILENO);
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    if (*root) {
        *at++ = linker;
        *at++ = (char *)"--library-path";
        *at++ = libraries;
    }
    *at++ = program;
    for (words += 3; *words; words++)
        *at++ = *words;
    *at = NULL;
    execv(argv[0], argv);
    _exit(127);
}

static void show_output(int fd)
{
    static char text[MAX_OUT + 1];
    ssize_t size = pread(fd, text, MAX_OUT, 0);
    char *line, *rest = text;

    text[size > 0 ? size : 0] = 0;
    while ((line = strsep(&rest, "\n")))
        if (*line)
            printf("@@out %.900s\n", line);
}

static void run_program(char *command)
{
    char *words[MAX_WORDS + 1], *word;
    unsigned count = 0;
    uint64_t start;
    int status, output, shown = memfd_create("output", MFD_CLOEXEC);
    pid_t child;

    while ((word = strsep(&command, "\t")) && count < MAX_WORDS)
        words[count++] = word;
    words[count] = NULL;
    output = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (count < 3 || shown < 0 || output < 0) {
        puts("@@error cannot run that");
        return;
    }
    say_clock("begin");
    start = now_ns();
    child = fork();
    if (child == 0)
        become_program(words, strcmp(words[1], "show") != 0 ? output : shown);
    if (child < 0 || waitpid(child, &status, 0) != child)
        test_failed("fork");
    *outcome = (struct outcome){(double)(now_ns() - start), 1, true};
    say_clock("end");
    show_output(shown);
    close(shown);
    close(output);
    report(status);
}

/* --- Commands ------------------------------------------------------------------------------ */

/* False at the end. */
static bool obey(char *line)
{
    char *command = strsep(&line, " "), *name;

    if (!strcmp(command, "quit"))
        return false;
    if (!strcmp(command, "list")) {
        list_tests();
    } else if (!strcmp(command, "exec") && line) {
        run_program(line);
    } else if ((!strcmp(command, "test") || !strcmp(command, "ops")) && line) {
        name = strsep(&line, " ");
        run_test(name, strtoull(line ? line : "0", NULL, 10), *command == 'o');
    } else {
        printf("@@error unknown command '%s'\n", command);
    }
    return true;
}

static void obey_lines(void)
{
    char line[MAX_LINE];

    do {
        puts("@@ready");
        fflush(stdout);
        if (!fgets(line, sizeof(line), stdin))
            return;
        line[strcspn(line, "\r\n")] = 0;
    } while (obey(line));
}

/* --- Process 1 ----------------------------------------------------------------------------- */

static void set_up_guest(void)
{
    struct termios t;
    int line;

    mkdir("/proc", 0755);
    mkdir("/sys", 0755);
    mkdir("/dev", 0755);
    mkdir("/tmp", 01777);
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
    mount("tmpfs", "/tmp", "tmpfs", 0, NULL);
    line = open("/dev/ttyS0", O_RDWR | O_NOCTTY);
    if (line < 0 || tcgetattr(line, &t))
        test_failed("open /dev/ttyS0");
    cfmakeraw(&t);
    cfsetspeed(&t, B115200);
    t.c_cflag |= CLOCAL | CREAD;
    tcsetattr(line, TCSANOW, &t);
    for (int fd = 0; fd < 3; fd++)
        dup2(line, fd);
    setenv("PATH", "/usr/bin:/bin", 1);
    setenv("HOME", "/tmp", 1);
    self_path = "/bench/bench";
}

/* The first program of a guest that boots on as usual: says when it was reached. */
static void announce_and_go_on(void)
{
    if (write(STDOUT_FILENO, "@@up\n", 5) == 5)
        execl("/init", "/init", (char *)NULL);
    _exit(1);
}

int main(int argc, char **argv)
{
    static char self[PATH_MAX];
    bool guest = getpid() == 1;

    if (argc > 1 && !strcmp(argv[1], "exit"))
        return 0;
    if (argc > 1 && !strcmp(argv[1], "net"))
        return net_main(argc - 2, argv + 2);
    if (guest && !strcmp(argv[0], "/bench/up"))
        announce_and_go_on();
    if (guest)
        set_up_guest();
    else if (argc == 2 && readlink("/proc/self/exe", self, sizeof(self) - 1) > 0)
        root = argv[1];
    else
        return 2;
    if (!guest) {
        self_path = self;
        tmp_dir = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    }
    outcome =
        mmap(NULL, sizeof(*outcome), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (outcome == MAP_FAILED)
        test_failed("mmap");
    puts("@@up");
    obey_lines();
    fflush(stdout);
    if (guest)
        reboot(RB_POWER_OFF);
    return 0;
}
