/*
 * What KVM is worth: the verdict on figures that are made up, measuring on a KVM that is made up
 * and fails when the test says so, and the file that keeps figures. Where there is /dev/kvm, it is
 * asked, too.
 */
#include "open_files.h"
#include "test.h"

#include "base/util.h"
#include "cpu/engines.h"
#include "ctl/choice.h"
#include "ctl/kvm_worth.h"

#include <errno.h>
#include <limits.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MILLION  1000000ULL
#define RUN_SIZE 12288
#define PORT     0x10

/* ---- A KVM that is made up ---- */

static struct {
    unsigned calls, fail_at; /* the number of the call that fails, from 1 on; 0: none does */
    int code;
    int version;
    unsigned lacks; /* a capability */
    unsigned exit_reason, machines;
    bool hangs; /* KVM_RUN, until a signal is pending */
    struct kvm_run *run;
} kvm;

static bool fails_now(void)
{
    return ++kvm.calls == kvm.fail_at;
}

static int new_file(size_t size)
{
    int fd = memfd_create("made-up", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    return fd;
}

static int fake_open(void *opaque)
{
    return fails_now() ? -kvm.code : new_file(0);
}

static void forget_processor(void)
{
    if (kvm.run)
        munmap(kvm.run, RUN_SIZE);
    kvm.run = NULL;
}

static int create_processor(void)
{
    int fd = new_file(RUN_SIZE);

    forget_processor();
    kvm.run = mmap(NULL, RUN_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_ptr_not_equal(kvm.run, MAP_FAILED);
    return fd;
}

static int hang(void)
{
    const struct timespec moment = {.tv_nsec = 1000000};
    sigset_t set;

    do {
        nanosleep(&moment, NULL);
        sigpending(&set);
    } while (!sigismember(&set, SIGURG));
    return -EINTR;
}

static int fake_ioctl(void *opaque, int fd, unsigned long request, void *argument)
{
    if (fails_now())
        return -kvm.code;
    switch (request) {
    case KVM_GET_API_VERSION: return kvm.version;
    case KVM_CHECK_EXTENSION: return (uintptr_t)argument != kvm.lacks;
    case KVM_CREATE_VM: kvm.machines++; return new_file(0);
    case KVM_CREATE_VCPU: return create_processor();
    case KVM_GET_VCPU_MMAP_SIZE: return RUN_SIZE;
    case KVM_GET_SREGS: memset(argument, 0, sizeof(struct kvm_sregs)); return 0;
    case KVM_RUN:
        if (kvm.hangs)
            return hang();
        kvm.run->exit_reason = kvm.exit_reason;
        kvm.run->io.port = PORT;
        return 0;
    default: return 0;
    }
}

static const struct kvm_calls calls = {.open = fake_open, .ioctl = fake_ioctl};

static int begin(void **unused)
{
    forget_processor();
    memset(&kvm, 0, sizeof(kvm));
    kvm.version = KVM_API_VERSION;
    kvm.exit_reason = KVM_EXIT_IO;
    kvm.lacks = UINT_MAX;
    return 0;
}

static int end(void **unused)
{
    forget_processor();
    return 0;
}

static bool has_figures(const struct kvm_figures *f)
{
    return f->kernel_ips && f->user_ips && f->fault_ns && f->cpuid_ns && f->exit_ns;
}

/* ---- Verdicts ---- */

static void test_verdicts(void **unused)
{
    static const struct {
        struct kvm_figures figures;
        bool native;
        const char *says;
    } cases[] = {
        {{9000 * MILLION, 9000 * MILLION, 300, 1500, 2500}, true, "natively: 9000 million"},
        {{2400 * MILLION, 9000 * MILLION, 300, 1500, 2500}, true, "natively"},
        {{900 * MILLION, 900 * MILLION, 19999, 90000, 90000}, true, "natively"},
        /* Kernel code emulated, as where KVM has page tables instead of hardware. */
        {{3 * MILLION, 9000 * MILLION, 9000, 1500, 2500}, false, "emulates the guest's kernel"},
        {{2000 * MILLION, 9000 * MILLION, 300, 1500, 2500}, false, "2000.0 million"},
        /* All of it is. */
        {{80 * MILLION, 90 * MILLION, 3000, 20000, 90000}, false, "80 million"},
        /* Faults are. */
        {{9000 * MILLION, 9000 * MILLION, 45000, 1500, 2500}, false, "45 us"},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        char text[160] = "";

        assert_int_equal(kvm_probe_is_native(&cases[i].figures, text, sizeof(text)),
                         cases[i].native);
        assert_non_null(strstr(text, cases[i].says));
    }
}

/* What `auto` makes of it. */
static void test_choice(void **unused)
{
    const struct kvm_worth none = {.detail = "/dev/kvm: No such file or directory"};
    const struct kvm_worth slow = {
        .present = true, .able = true, .measured = true, .detail = "KVM emulates"};
    const struct kvm_worth fast = {.present = true,
                                   .able = true,
                                   .measured = true,
                                   .native = true,
                                   .detail = "KVM executes natively"};
    const struct kvm_worth old = {.present = true,
                                  .measured = true,
                                  .native = true,
                                  .missing = "SREGS2",
                                  .detail = "KVM executes natively"};
    const struct kvm_worth busy = {
        .present = true, .able = true, .detail = "KVM: cannot create a virtual machine"};
    char reason[200];

    assert_ptr_equal(choose_engine(&fast, true, reason, sizeof(reason)), &kvm_engine);
    assert_string_equal(reason, fast.detail);
    assert_ptr_equal(choose_engine(&fast, false, reason, sizeof(reason)), &kvm_engine);
    assert_ptr_equal(choose_engine(&old, true, reason, sizeof(reason)), &bt_engine);
    assert_non_null(strstr(reason, "SREGS2"));
    assert_ptr_equal(choose_engine(&old, false, reason, sizeof(reason)), &interp_engine);
    assert_ptr_equal(choose_engine(&busy, true, reason, sizeof(reason)), &bt_engine);
    assert_non_null(strstr(reason, busy.detail));
    assert_ptr_equal(choose_engine(&none, true, reason, sizeof(reason)), &bt_engine);
    assert_null(strstr(reason, "KVM"));
    assert_ptr_equal(choose_engine(&slow, true, reason, sizeof(reason)), &bt_engine);
    assert_non_null(strstr(reason, "KVM emulates"));
    assert_ptr_equal(choose_engine(&slow, false, reason, sizeof(reason)), &interp_engine);
    assert_non_null(strstr(reason, "FSGSBASE"));
}

/* ---- Measuring ---- */

static void test_measures(void **unused)
{
    unsigned before = open_files();
    struct kvm_worth worth;

    kvm_worth_find(&calls, NULL, &worth);
    assert_true(worth.present && worth.able && worth.measured);
    assert_true(has_figures(&worth.figures));
    assert_string_equal(worth.missing, "");
    assert_true(*worth.detail);
    forget_processor();
    assert_int_equal(open_files(), before);
}

/* Each call fails in turn: KVM then counts as not measured, with a reason, and nothing stays open.
 */
static void test_each_call_fails(void **unused)
{
    static const int codes[] = {EPERM, EBUSY, ENOMEM, ENOENT};
    unsigned before = open_files(), checks = 0;
    struct kvm_worth worth;

    for (unsigned at = 1; at <= 200; at++) {
        int code = codes[at % ARRAY_SIZE(codes)];

        begin(NULL);
        kvm.fail_at = at;
        kvm.code = code;
        kvm_worth_find(&calls, NULL, &worth);
        if (worth.measured) {
            checks += *worth.missing != '\0'; /* a capability that cannot be asked is not there */
        } else {
            assert_false(has_figures(&worth.figures) && worth.native);
            assert_non_null(strstr(worth.detail, strerror(code)));
            assert_non_null(strstr(worth.detail, "kvm") ?: strstr(worth.detail, "KVM"));
        }
        forget_processor();
        assert_int_equal(open_files(), before);
    }
    assert_true(checks >= 8);
}

static void test_unusable(void **unused)
{
    struct kvm_worth worth;

    kvm.version = 11;
    kvm_worth_find(&calls, NULL, &worth);
    assert_false(worth.present || worth.measured || worth.native);
    assert_non_null(strstr(worth.detail, "version 11"));

    begin(NULL);
    kvm.exit_reason = KVM_EXIT_INTERNAL_ERROR;
    kvm_worth_find(&calls, NULL, &worth);
    assert_true(worth.present);
    assert_false(worth.measured || worth.native);
    assert_non_null(strstr(worth.detail, "reason 17"));

    begin(NULL);
    kvm.lacks = KVM_CAP_XSAVE;
    kvm_worth_find(&calls, NULL, &worth);
    assert_true(worth.measured);
    assert_false(worth.able);
    assert_string_equal(worth.missing, "XSAVE");

    begin(NULL);
    kvm.lacks = 232;
    kvm_worth_find(&calls, NULL, &worth);
    assert_true(worth.able);
    assert_string_equal(worth.missing, "MEMORY_FAULT_INFO");
}

/* A guest that does not end is given up, and signals are then as they were. */
static void test_hangs(void **unused)
{
    struct kvm_worth worth;
    sigset_t set;

    kvm.hangs = true;
    kvm_worth_find(&calls, NULL, &worth);
    assert_true(worth.present);
    assert_false(worth.measured || worth.native);
    assert_non_null(strstr(worth.detail, "does not end"));
    sigpending(&set);
    assert_false(sigismember(&set, SIGURG));
    pthread_sigmask(SIG_BLOCK, NULL, &set);
    assert_false(sigismember(&set, SIGURG));
}

/* ---- The file ---- */

static char folder[] = P_tmpdir "/doppel-probe-XXXXXX";
static char cache[PATH_MAX];

static void write_cache(const char *text, size_t size)
{
    FILE *file = fopen(cache, "w");

    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

/* Returns whether the figures came from the file. */
static bool find(struct kvm_worth *worth)
{
    begin(NULL);
    kvm_worth_find(&calls, cache, worth);
    assert_true(worth->measured && has_figures(&worth->figures));
    return kvm.machines == 0;
}

static size_t read_cache(char *text, size_t size)
{
    FILE *file = fopen(cache, "r");
    size_t length;

    assert_non_null(file);
    length = fread(text, 1, size - 1, file);
    text[length] = '\0';
    fclose(file);
    return length;
}

static void test_kept(void **unused)
{
    struct kvm_worth first, second;
    struct stat st;

    assert_false(find(&first));
    assert_true(find(&second));
    assert_memory_equal(&first.figures, &second.figures, sizeof(first.figures));
    assert_string_equal(first.detail, second.detail);
    assert_int_equal(stat(cache, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    /* Without a way to KVM they count for nothing. */
    begin(NULL);
    kvm.fail_at = 1;
    kvm.code = EACCES;
    kvm_worth_find(&calls, cache, &second);
    assert_false(second.present || second.measured || second.native);
}

/* What is not exactly what this program has written since the host's start is measured anew. */
static void test_damaged(void **unused)
{
    char good[1100], bad[1100];
    struct kvm_worth worth;
    size_t size, at;

    find(&worth);
    size = read_cache(good, sizeof(good));
    at = (size_t)(strstr(good, "figures") - good);
    for (size_t i = 0; i < size; i += 40) { /* cut off */
        write_cache(good, i);
        assert_false(find(&worth));
    }
    for (size_t i = 0; i < size; i += 3) { /* another byte */
        memcpy(bad, good, size + 1);
        if (i > at + 7 && good[i] >= '0' && good[i] <= '9')
            continue; /* another figure */
        bad[i] ^= 1;
        write_cache(bad, size);
        assert_false(find(&worth));
    }
    static const char *const figures[] = {
        "figures 1 2 3 4\n",    "figures 1 2 3 4 5 6\n", "figures 1 2 3 4 0\n",
        "figures 1 2 3 4 5",    "figures  1 2 3 4 5\n",  "figures 1 2 3 4 99999999999999999999\n",
        "figures 1 2 -3 4 5\n", "figures 1 2 3.5 4 5\n", "figures 1 2 3 4 5\nfigures 1 2 3 4 5\n"};
    for (unsigned i = 0; i < ARRAY_SIZE(figures); i++) {
        snprintf(bad, sizeof(bad), "%.*s%s", (int)at, good, figures[i]);
        write_cache(bad, strlen(bad));
        assert_false(find(&worth));
    }
    write_cache(good, size + 1); /* a 0 at the end */
    assert_false(find(&worth));
    memset(bad, '1', sizeof(bad));
    write_cache(bad, sizeof(bad));
    assert_false(find(&worth));
    assert_true(find(&worth)); /* it was replaced */
}

/* What is no file is in the way, and nothing is kept. */
static void test_no_file(void **unused)
{
    struct kvm_worth worth;

    unlink(cache);
    assert_int_equal(mkdir(cache, 0700), 0);
    assert_false(find(&worth));
    assert_false(find(&worth));
    assert_int_equal(rmdir(cache), 0);
    assert_int_equal(mkfifo(cache, 0600), 0);
    assert_false(find(&worth));
    assert_true(find(&worth));
    assert_int_equal(unlink(cache), 0);
}

static int make_folder(void **unused)
{
    if (!mkdtemp(folder))
        return -1;
    snprintf(cache, sizeof(cache), "%s/kvm-probe", folder);
    return 0;
}

static int remove_folder(void **unused)
{
    unlink(cache);
    return rmdir(folder);
}

/* ---- This host ---- */

static void test_this_host(void **unused)
{
    struct kvm_worth worth;

    kvm_worth_find(&kvm_host_calls, NULL, &worth);
    print_message("KVM here: %s\n", worth.detail);
    assert_true(*worth.detail);
    assert_int_equal(worth.measured, has_figures(&worth.figures));
    if (!worth.present)
        assert_false(worth.measured || worth.native);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_choice),
        cmocka_unit_test_setup_teardown(test_measures, begin, end),
        cmocka_unit_test_setup_teardown(test_each_call_fails, begin, end),
        cmocka_unit_test_setup_teardown(test_unusable, begin, end),
        cmocka_unit_test_setup_teardown(test_hangs, begin, end),
        cmocka_unit_test_setup_teardown(test_kept, begin, end),
        cmocka_unit_test_setup_teardown(test_damaged, begin, end),
        cmocka_unit_test_setup_teardown(test_no_file, begin, end),
        cmocka_unit_test(test_this_host),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
