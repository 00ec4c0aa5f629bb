/*
 * The named machines and their run folders: who has them, how they come and go, and what is left of
 * those that were killed.
 */
#include "test.h"

#include "ctl/lock_file.h"
#include "ctl/registry.h"
#include "ctl/replace.h"
#include "ctl/run_folder.h"
#include "ctl/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char root[] = P_tmpdir "/doppel-registry-XXXXXX";
static char machines[PATH_MAX], runtime[PATH_MAX];

static int setup(void **unused)
{
    if (!mkdtemp(root) || setenv("XDG_DATA_HOME", root, 1) < 0 ||
        setenv("XDG_RUNTIME_DIR", root, 1) < 0)
        return -1;
    snprintf(machines, sizeof(machines), "%s/doppel/machines", root);
    snprintf(runtime, sizeof(runtime), "%s/doppel", root);
    return 0;
}

static int teardown(void **unused)
{
    return tree_remove(root, NULL);
}

static bool there(const char *folder, const char *name)
{
    char path[PATH_MAX];

    return !registry_file(folder, name, path, NULL) && access(path, F_OK) == 0;
}

/* How many entries FOLDER has, hidden ones too. */
static unsigned entries(const char *folder)
{
    char command[PATH_MAX + 32];
    unsigned count = 0;
    FILE *pipe;

    snprintf(command, sizeof(command), "ls -A '%s' | wc -l", folder);
    pipe = popen(command, "r");
    assert_non_null(pipe);
    assert_int_equal(fscanf(pipe, "%u", &count), 1);
    pclose(pipe);
    return count;
}

static void write_file(const char *folder, const char *name, const char *text)
{
    char path[PATH_MAX];

    assert_int_equal(registry_file(folder, name, path, NULL), 0);
    assert_int_equal(replace_file(path, text, strlen(text), 0600, NULL), 0);
}

static void make(const char *name)
{
    struct registry_use machine = {0};

    assert_int_equal(registry_begin(name, &machine, NULL), 0);
    write_file(machine.folder, "machine.yaml", "version: 1\n");
    assert_int_equal(registry_commit(&machine, NULL), 0);
    registry_give_back(&machine);
}

static void drop(const char *name)
{
    struct registry_use machine = {0};

    assert_int_equal(registry_take(name, "is being removed", &machine, NULL), 0);
    assert_int_equal(registry_remove(&machine, NULL), 0);
    registry_give_back(&machine);
}

static void test_make_and_remove(void **unused)
{
    struct registry_use machine = {0}, second = {0};
    struct registry_names names;
    struct error err = {0};
    char folder[PATH_MAX];

    assert_int_equal(registry_names(&names, NULL), 0);
    assert_int_equal(names.count, 0);
    registry_names_free(&names);
    assert_int_equal(registry_begin("No", &machine, &err), -EINVAL);
    assert_int_equal(registry_begin("web", &machine, NULL), 0);
    assert_false(there(machines, "web"));
    assert_int_equal(registry_folder("web", folder, &err), -ENOENT);
    assert_non_null(strstr(err.text, "no machine 'web'"));
    make("db");
    make("web"); /* somebody else was quicker */
    assert_int_equal(registry_commit(&machine, &err), -EEXIST);
    assert_non_null(strstr(err.text, "there is a machine 'web' already"));
    registry_give_back(&machine);
    assert_int_equal(registry_begin("web", &machine, &err), -EEXIST);
    assert_int_equal(entries(machines), 3); /* with .lock */

    assert_int_equal(registry_names(&names, NULL), 0);
    assert_int_equal(names.count, 2);
    assert_string_equal(names.name[0], "db");
    assert_string_equal(names.name[1], "web");
    registry_names_free(&names);

    assert_int_equal(registry_take("web", "runs", &machine, NULL), 0);
    assert_int_equal(registry_take("web", "is being removed", &second, &err), -EBUSY);
    assert_non_null(strstr(err.text, "'web' runs (process "));
    registry_give_back(&second);
    registry_give_back(&machine);
    drop("web");
    drop("db");
    assert_int_equal(registry_take("web", "runs", &machine, &err), -ENOENT);
    assert_int_equal(entries(machines), 1);
}

static void test_rename(void **unused)
{
    struct registry_use machine = {0};
    char path[PATH_MAX];
    struct error err = {0};

    make("old");
    make("other");
    assert_int_equal(registry_take("old", "is being renamed", &machine, NULL), 0);
    assert_int_equal(registry_rename(&machine, "other", &err), -EEXIST);
    assert_int_equal(registry_rename(&machine, "old", &err), -EEXIST);
    assert_int_equal(registry_rename(&machine, "../new", &err), -EINVAL);
    write_file(machines, "file", "x");
    assert_int_equal(registry_rename(&machine, "file", &err), -EEXIST);
    assert_int_equal(registry_file(machines, "file", path, NULL), 0);
    assert_int_equal(unlink(path), 0);
    assert_true(there(machine.folder, "machine.yaml"));
    assert_int_equal(registry_rename(&machine, "new", NULL), 0);
    assert_true(there(machines, "new"));
    assert_false(there(machines, "old"));
    assert_true(there(machine.folder, "machine.yaml"));
    /* It is still taken, by its new name. */
    assert_int_equal(registry_take("new", "x", &(struct registry_use){0}, &err), -EBUSY);
    registry_give_back(&machine);
    drop("new");
    drop("other");
}

/* A process that has been told to do WHAT, and then to wait until it is killed. */
static pid_t start(void (*what)(void))
{
    int ready[2];
    pid_t pid;
    char byte;

    assert_int_equal(pipe(ready), 0);
    pid = fork();
    if (pid == 0) {
        what();
        (void)!write(ready[1], "", 1);
        for (;;)
            pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void hold_all(void)
{
    static struct registry_use draft, machine;
    static struct run_folder folder;

    if (registry_begin("unborn", &draft, NULL) < 0 ||
        registry_take("web", "runs", &machine, NULL) < 0 ||
        run_folder_take("web", &folder, NULL) < 0)
        _exit(1);
    write_file(draft.folder, "disk", "half of it");
    write_file(folder.path, RUN_VSOCK, "");
}

static void count_swept(void *opaque, const char *path)
{
    assert_non_null(strstr(path, root));
    ++*(unsigned *)opaque;
}

static void test_killed(void **unused)
{
    struct lock_holder holder;
    struct run_folder folder = {0};
    struct registry_use machine = {0};
    struct error err = {0};
    char path[PATH_MAX], text[64];
    unsigned swept = 0;
    pid_t pid;

    make("web");
    pid = start(hold_all);
    snprintf(text, sizeof(text), "'web' runs already (process %ld)", (long)pid);
    assert_int_equal(run_folder_take("web", &folder, &err), -EBUSY);
    assert_string_equal(err.text, text);
    assert_int_equal(run_folder_find("web", RUN_VSOCK, path, &holder, NULL), 0);
    assert_true(holder.held);
    assert_int_equal(holder.pid, pid);
    assert_string_equal(holder.use, "runs");
    assert_int_equal(registry_sweep(false, count_swept, &swept, NULL), 0);
    assert_int_equal(run_folder_sweep(false, count_swept, &swept, NULL), 0);
    assert_int_equal(swept, 0);
    assert_int_equal(access(path, F_OK), 0);

    end(pid);
    assert_int_equal(run_folder_find("web", RUN_VSOCK, path, &holder, NULL), 0);
    assert_false(holder.held);
    assert_int_equal(registry_sweep(true, count_swept, &swept, NULL), 0);
    assert_int_equal(run_folder_sweep(true, count_swept, &swept, NULL), 0);
    assert_int_equal(swept, 2);
    assert_int_equal(entries(machines), 3); /* .lock, web, the draft */

    /* The next run takes over the folder, without what was in it. Its own processes leave it. */
    assert_int_equal(run_folder_take("web", &folder, NULL), 0);
    assert_int_equal(access(path, F_OK), -1);
    pid = fork();
    if (pid == 0) {
        run_folder_remove(&folder);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_true(there(folder.path, "lock"));
    run_folder_remove(&folder);
    assert_false(there(runtime, "web"));
    assert_int_equal(registry_take("web", "runs", &machine, NULL), 0);
    registry_give_back(&machine);

    end(start(hold_all));
    swept = 0;
    assert_int_equal(registry_sweep(false, count_swept, &swept, NULL), 0);
    assert_int_equal(swept, 2); /* drafts */
    assert_int_equal(run_folder_sweep(false, count_swept, &swept, NULL), 0);
    assert_int_equal(swept, 3);
    assert_int_equal(entries(machines), 2);
    assert_false(there(runtime, "web"));
    drop("web");
}

/* A small file's draft is left where it was being replaced. */
static void test_sweep_files(void **unused)
{
    unsigned swept = 0;
    char folder[PATH_MAX];

    make("web");
    assert_int_equal(registry_folder("web", folder, NULL), 0);
    write_file(folder, REPLACE_PREFIX "abcdef", "half");
    write_file(folder, "disk.qcow2", "whole");
    assert_int_equal(registry_sweep(false, count_swept, &swept, NULL), 0);
    assert_int_equal(swept, 1);
    assert_true(there(folder, "disk.qcow2"));
    assert_true(there(folder, "machine.yaml"));
    drop("web");
}

/* Locks go on as long as any process has them that was forked; what is written in them may be
 * anything. */
static void test_locks(void **unused)
{
    static const char *const odd[] = {
        "", "x", "-1 runs\n", "99999999999 runs\n", "12\n", "12 \033[2J\n", "12 runs", "0 runs\n"};
    struct lock_holder holder;
    char path[PATH_MAX];
    int fd;
    pid_t pid;

    assert_int_equal(registry_file(root, "lock", path, NULL), 0);
    lock_file_look(path, &holder);
    assert_false(holder.held);
    fd = lock_file_take(path, "is being tried");
    assert_true(fd >= 0);
    assert_int_equal(lock_file_take(path, "x"), -EBUSY);
    lock_file_look(path, &holder);
    assert_true(holder.held && holder.pid == getpid());
    assert_string_equal(holder.use, "is being tried");
    for (unsigned i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(pwrite(fd, odd[i], strlen(odd[i]), 0), strlen(odd[i]));
        lock_file_look(path, &holder);
        assert_true(holder.held);
        assert_true(holder.pid == 0 || holder.pid == 12);
        assert_string_equal(holder.use, "");
    }
    pid = fork();
    if (pid == 0)
        for (;;)
            pause();
    close(fd);
    assert_int_equal(lock_file_take(path, "x"), -EBUSY);
    end(pid);
    fd = lock_file_take(path, "x");
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("elsewhere", path), 0);
    assert_int_equal(lock_file_take(path, "x"), -ELOOP);
    assert_int_equal(unlink(path), 0);
}

/* Many processes make, run and remove the same machine: each of them has it for itself. */
static void test_storm(void **unused)
{
    enum { PROCESSES = 4, ROUNDS = 40 };
    pid_t pids[PROCESSES];
    char alone[PATH_MAX];

    assert_int_equal(registry_file(root, "alone", alone, NULL), 0);
    for (unsigned i = 0; i < PROCESSES; i++) {
        pids[i] = fork();
        if (pids[i])
            continue;
        for (unsigned round = 0; round < ROUNDS; round++) {
            struct registry_use machine = {0};
            struct run_folder folder = {0};
            unsigned swept = 0;

            if (registry_begin("storm", &machine, NULL) == 0)
                registry_commit(&machine, NULL);
            registry_give_back(&machine);
            if (registry_take("storm", "runs", &machine, NULL) == 0) {
                if (mkdir(alone, 0700) < 0)
                    _exit(1);
                if (run_folder_take("storm", &folder, NULL) < 0)
                    _exit(2);
                run_folder_remove(&folder);
                if (rmdir(alone) < 0)
                    _exit(3);
                if (round % 2 && registry_remove(&machine, NULL) < 0)
                    _exit(4);
            }
            registry_give_back(&machine);
            if (registry_sweep(false, count_swept, &swept, NULL) < 0)
                _exit(5);
        }
        _exit(0);
    }
    for (unsigned i = 0; i < PROCESSES; i++) {
        int status;

        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
}

static void test_trees(void **unused)
{
    char folder[PATH_MAX], path[PATH_MAX];
    struct error err = {0};

    assert_int_equal(home_folder(HOME_DATA, "tree/a/b", folder, sizeof(folder), NULL), 0);
    write_file(folder, "file", "x");
    assert_int_equal(registry_file(folder, "link", path, NULL), 0);
    assert_int_equal(symlink(machines, path), 0); /* is not followed */
    assert_int_equal(chmod(folder, 0500), 0);
    assert_int_equal(home_path(HOME_DATA, "tree", folder, sizeof(folder), NULL), 0);
    assert_true(tree_size(folder) > 0);
    assert_int_equal(chmod(folder, 0), 0);
    assert_int_equal(tree_remove(folder, &err), 0);
    assert_int_equal(access(folder, F_OK), -1);
    assert_int_equal(access(machines, F_OK), 0);
    assert_int_equal(tree_remove(folder, &err), 0);
    assert_int_equal(tree_size(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_make_and_remove), cmocka_unit_test(test_rename),
        cmocka_unit_test(test_killed),          cmocka_unit_test(test_sweep_files),
        cmocka_unit_test(test_locks),           cmocka_unit_test(test_storm),
        cmocka_unit_test(test_trees),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
