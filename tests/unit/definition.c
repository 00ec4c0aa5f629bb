/*
 * Definitions of named machines: what is read is what was written, and what is wrong is said in one
 * line with its place.
 */
#include "test.h"

#include "ctl/definition.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char whole[] = "version: 1\n"
                            "kernel: vmlinuz\n"
                            "initrd: ''\n"
                            "append: root=/dev/vda rw\n"
                            "memory: 1536M\n"
                            "cpus: 2\n"
                            "disks:\n"
                            "- disk.qcow2,cache=none\n"
                            "- /srv/a b.img\n"
                            "nets:\n"
                            "- user,forward=8080:80\n"
                            "shares:\n"
                            "- /srv/src:/src:ro\n"
                            "devices:\n"
                            "- balloon\n"
                            "restart: on-failure\n"
                            "vsock: cid=5\n"
                            "mac: 52:54:00:12:34:ff\n"
                            "base: debian-bookworm\n"
                            "ssh:\n"
                            "  user: me\n"
                            "  key: id\n"
                            "  port: 2222\n";

static int parse(const char *text, struct definition *d, struct error *err)
{
    return definition_parse(text, strlen(text), "F", d, err);
}

static void test_whole(void **unused)
{
    struct definition d;
    char *text;

    assert_int_equal(parse(whole, &d, NULL), 0);
    assert_string_equal(d.kernel, "vmlinuz");
    assert_string_equal(d.initrd, "");
    assert_string_equal(d.append, "root=/dev/vda rw");
    assert_int_equal(d.memory, 1536ULL << 20);
    assert_int_equal(d.cpus, 2);
    assert_int_equal(d.disks.count, 2);
    assert_string_equal(d.disks.word[0], "disk.qcow2,cache=none");
    assert_string_equal(d.disks.word[1], "/srv/a b.img");
    assert_string_equal(d.restart, "on-failure");
    assert_string_equal(d.nets.word[0], "user,forward=8080:80");
    assert_string_equal(d.shares.word[0], "/srv/src:/src:ro");
    assert_string_equal(d.devices.word[0], "balloon");
    assert_string_equal(d.vsock, "cid=5");
    assert_string_equal(d.mac, "52:54:00:12:34:ff");
    assert_string_equal(d.base, "debian-bookworm");
    assert_string_equal(d.ssh_user, "me");
    assert_string_equal(d.ssh_key, "id");
    assert_int_equal(d.ssh_port, 2222);
    text = definition_text(&d, NULL);
    assert_string_equal(text, whole);
    free(text);
    definition_free(&d);
    assert_null(d.kernel);
}

static void test_little(void **unused)
{
    struct definition d;
    char *text;

    assert_int_equal(parse("version: 1\n", &d, NULL), 0);
    text = definition_text(&d, NULL);
    assert_string_equal(text, "version: 1\n");
    free(text);
    definition_free(&d);
    assert_int_equal(parse("{version: 1, disks: , ssh: , cpus: }", &d, NULL), 0);
    assert_true(d.disks.count == 0 && !d.ssh_user && d.cpus == 0);
    definition_free(&d);
    assert_int_equal(parse("# said by hand\nversion: 1 # the first\n---\n", &d, NULL), -EINVAL);
}

/* Texts that YAML reads in other ways unless they are quoted. */
static void test_odd_texts(void **unused)
{
    static const char *const odd[] = {"",
                                      " ",
                                      "yes",
                                      "null",
                                      "~",
                                      "1.5",
                                      "- x",
                                      "a: b",
                                      "#",
                                      "a #b",
                                      "'",
                                      "\"",
                                      "%",
                                      "@",
                                      "&a",
                                      "*a",
                                      "!t",
                                      "|",
                                      ">",
                                      "\xe2\x80\xa8x",
                                      "\xc3\xa4\xf0\x9f\x90\xa7",
                                      "{",
                                      "[1, 2]",
                                      " end ",
                                      "a,,b",
                                      "? x",
                                      "\\n",
                                      "-",
                                      "---",
                                      "...",
                                      ",",
                                      "a\xe2\x80\xa9"};
    struct definition d = {0}, again;

    for (unsigned i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        char *text;

        assert_int_equal(definition_set(&d.append, odd[i], NULL), 0);
        if (*odd[i])
            assert_int_equal(definition_add(&d.shares, odd[i], NULL), 0);
        text = definition_text(&d, NULL);
        assert_non_null(text);
        assert_int_equal(parse(text, &again, NULL), 0);
        assert_string_equal(again.append, odd[i]);
        assert_int_equal(again.shares.count, d.shares.count);
        if (*odd[i])
            assert_string_equal(again.shares.word[again.shares.count - 1], odd[i]);
        definition_free(&again);
        free(text);
    }
    definition_free(&d);
}

static void test_refused(void **unused)
{
    static const struct {
        const char *text, *word;
    } cases[] = {
        {"", "F: it is empty"},
        {"# nothing\n", "F: it is empty"},
        {"kernel: x\n", "F:1: the first key must be 'version: 1'"},
        {"{}", "F:1: the first key"},
        {"- a\n", "F:1: 'KEY: VALUE' is expected"},
        {"version: 2\nnew: x\n", "F:1: version 2 is of a later doppel"},
        {"version: one\n", "F:1: version: 'one' is not a number"},
        {"version: []\n", "F:1: a text is expected"},
        {"version: 1\nkernal: x\n", "F:2: there is no key 'kernal'"},
        {"version: 1\nversion: 1\n", "F:2: there is no key 'version'"},
        {"version: 1\ncpus: 2\ncpus: 2\n", "F:3: cpus is given twice"},
        {"version: 1\ncpus: 0\n", "F:2: cpus: '0' is not a number from 1 to 64"},
        {"version: 1\ncpus: 65\n", "from 1 to 64"},
        {"version: 1\ncpus: 18446744073709551617\n", "from 1 to 64"},
        {"version: 1\ncpus: -1\n", "from 1 to 64"},
        {"version: 1\nmemory: 512\n", "F:2: memory: '512' is not a size"},
        {"version: 1\nmemory: 4K\n", "no multiple of 4K from 1M"},
        {"version: 1\nmemory: 1025K\n", "no multiple of 4K"},
        {"version: 1\nmemory: 99999999999T\n", "is not a size"},
        {"version: 1\nmac: 01:00:00:00:00:00\n", "F:2: mac:"},
        {"version: 1\nmac: 52:54:00:00:00\n", "F:2: mac:"},
        {"version: 1\nmac: '52:54:00:00:00:00:'\n", "F:2: mac:"},
        {"version: 1\nbase: ../x\n", "F:2: base: '../x' is not a name"},
        {"version: 1\ndisks: x\n", "F:2: disks: a list is expected"},
        {"version: 1\ndisks:\n- ''\n", "F:3: disks: an empty word"},
        {"version: 1\ndisks:\n- [a]\n", "F:3: a text is expected"},
        {"version: 1\nkernel: [a]\n", "F:2: a text is expected"},
        {"version: 1\nssh: x\n", "F:2: ssh: keys are expected"},
        {"version: 1\nssh:\n  port: 65536\n", "F:3: port:"},
        {"version: 1\nssh:\n  name: x\n", "F:3: there is no key 'name'"},
        {"version: 1\nssh: {user: {a: b}}\n", "F:2: a text is expected"},
        {"version: 1\nssh: {user: 'a b'}\n", "F:2: user: 'a b' is not a user's name"},
        {"version: 1\nssh: {user: -lroot}\n", "F:2: user: '-lroot' is not"},
        {"version: 1\nssh: {user: 'a%h'}\n", "F:2: user: 'a%h' is not"},
        {"version: 1\nssh: {user: \"a\\nProxyCommand x\"}\n",
         "F:2: a text with control characters"},
        {"version: 1\nssh: {user: ''}\n", "F:2: user: '' is not"},
        {"version: 1\nkernel: &a x\n", "F:2: anchors and tags"},
        {"version: 1\nkernel: !!str x\n", "F:2: anchors and tags"},
        {"version: 1\ndisks: &a [x]\n", "F:2: anchors and tags"},
        {"version: 1\nkernel: *a\n", "F:2: aliases"},
        {"version: 1\nkernel: \"a\\0b\"\n", "F:2: a text with control characters"},
        {"version: 1\nkernel: \"\\e[2J\"\n", "F:2: a text with control characters"},
        {"version: 1\nkernel: \"\\x9b\"\n", "F:2: a text with control characters"},
        {"version: 1\nkernel: \"a\\nb\"\n", "F:2: a text with control characters"},
        {"version: 1\n\"\\e\": x\n", "F:2: a text with control characters"},
        {"version: 1\nkernel: x\n---\nversion: 1\n", "F:3: the end is expected"},
        {"version: 1\nkernel: \xff\n", "is no text"},
        {"version: 1\nkernel: 'x\n", "F:"},
        {"version: 1\n\tkernel: x\n", "F:2:"},
        {"version: 1\nkernel\n", "F:"},
    };

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error err = {0};
        struct definition d;

        assert_int_equal(parse(cases[i].text, &d, &err), -EINVAL);
        if (!strstr(err.text, cases[i].word) || strpbrk(err.text, "\n\033"))
            fail_msg("case %u: '%s' does not say '%s'", i, err.text, cases[i].word);
        assert_null(d.kernel);
    }
}

static void test_limits(void **unused)
{
    static char text[2 * DEFINITION_MOST];
    struct definition d;
    struct error err = {0};
    int n = sprintf(text, "version: 1\ndisks:\n");

    for (unsigned i = 0; i < DEFINITION_WORDS_MOST; i++)
        n += sprintf(text + n, "- d%u\n", i);
    assert_int_equal(parse(text, &d, NULL), 0);
    assert_int_equal(d.disks.count, DEFINITION_WORDS_MOST);
    assert_int_equal(definition_add(&d.disks, "x", NULL), -E2BIG);
    definition_free(&d);
    strcpy(text + n, "- x\n");
    assert_int_equal(parse(text, &d, &err), -EINVAL);
    assert_non_null(strstr(err.text, "disks: more than 64"));

    n = sprintf(text, "version: 1\nappend: ");
    memset(text + n, 'x', DEFINITION_TEXT_MOST + 1);
    text[n + DEFINITION_TEXT_MOST + 1] = '\0';
    assert_int_equal(parse(text, &d, &err), -EINVAL);
    text[n + DEFINITION_TEXT_MOST] = '\0';
    assert_int_equal(parse(text, &d, &err), 0);
    definition_free(&d);

    memset(text, '[', sizeof(text));
    assert_int_equal(definition_parse(text, DEFINITION_MOST + 1, "F", &d, &err), -EFBIG);
    assert_int_equal(definition_parse(text, DEFINITION_MOST, "F", &d, &err), -EINVAL);

    /* What cannot be read is not written. */
    d = (struct definition){0};
    assert_int_equal(definition_set(&d.append, "\033[2J", NULL), 0);
    assert_null(definition_text(&d, &err));
    assert_non_null(strstr(err.text, "control characters"));
    assert_int_equal(definition_set(&d.append, "\xff", NULL), 0);
    assert_null(definition_text(&d, &err));
    definition_free(&d);
}

static void test_files(void **unused)
{
    char folder[] = P_tmpdir "/doppel-definition-XXXXXX", path[PATH_MAX], other[PATH_MAX];
    struct definition d, again;
    struct error err = {0};
    struct stat st;

    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/machine.yaml", folder);
    assert_int_equal(definition_load(path, &d, &err), -ENOENT);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(parse(whole, &d, NULL), 0);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(definition_save(&d, path, NULL), 0);
        assert_int_equal(definition_load(path, &again, NULL), 0);
        assert_string_equal(again.ssh_user, "me");
        definition_free(&again);
    }
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    definition_free(&d);
    snprintf(other, sizeof(other), "%s/none/machine.yaml", folder);
    assert_int_equal(definition_save(&again, other, &err), -ENOENT);
    assert_int_equal(definition_load(folder, &d, &err), -EINVAL);
    assert_non_null(strstr(err.text, "not a regular file"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0); /* nobody waits for the other end */
    assert_int_equal(definition_load(path, &d, &err), -EINVAL);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0); /* nothing is left */
}

static void check_disk(const char *word, const char *expected)
{
    char *disk = definition_disk("/m,x", word);

    assert_string_equal(disk, expected);
    free(disk);
}

static void test_paths(void **unused)
{
    char *path = definition_path("/m/x", "vmlinuz");

    assert_string_equal(path, "/m/x/vmlinuz");
    free(path);
    path = definition_path("/m/x", "/boot/vmlinuz");
    assert_string_equal(path, "/boot/vmlinuz");
    free(path);
    check_disk("disk.img", "/m,,x/disk.img");
    check_disk("/d/disk.img", "/d/disk.img");
    check_disk("a,,b.img,readonly", "/m,,x/a,,b.img,readonly");
    check_disk("nbd://host/x", "nbd://host/x");
    check_disk("nbd+unix:///x?socket=s", "nbd+unix:///x?socket=s");
    check_disk("vhost-user=s", "vhost-user=s");
    check_disk("d.qcow2,backing=b.qcow2,,backing=c,cache=none",
               "/m,,x/d.qcow2,backing=/m,,,,x/b.qcow2,,backing=c,cache=none");
    check_disk("d.qcow2,cache=none,backing=/b.qcow2", "/m,,x/d.qcow2,cache=none,backing=/b.qcow2");
    check_disk("d.qcow2,backing=nbd://h/x", "/m,,x/d.qcow2,backing=nbd://h/x");
    check_disk("d,slot=5", "/m,,x/d,slot=5");
    check_disk("d,,backing=x", "/m,,x/d,,backing=x");
}

static void check_net(const struct definition *d, const char *name, const char *word, unsigned card,
                      const char *expected)
{
    char *net = definition_net(d, name, word, card);

    assert_string_equal(net, expected);
    free(net);
}

static void test_macs(void **unused)
{
    struct definition d;
    uint8_t mac[6], other[6];

    assert_int_equal(parse(whole, &d, NULL), 0);
    definition_mac(&d, "web", 0, mac);
    assert_memory_equal(mac, ((uint8_t[]){0x52, 0x54, 0, 0x12, 0x34, 0xff}), 6);
    definition_mac(&d, "other", 1, mac);
    assert_memory_equal(mac, ((uint8_t[]){0x52, 0x54, 0, 0x12, 0x35, 0x00}), 6);
    check_net(&d, "web", "user", 0, "user,mac=52:54:00:12:34:ff");
    check_net(&d, "web", "user", 1, "user,mac=52:54:00:12:35:00");
    check_net(&d, "web", "tap=t,mac=02:00:00:00:00:01,mtu=9000", 0,
              "tap=t,mac=02:00:00:00:00:01,mtu=9000");
    check_net(&d, "web", "net,to=stream=/a,,mac=,slot=3", 0,
              "net,to=stream=/a,,mac=,slot=3,mac=52:54:00:12:34:ff");
    definition_free(&d);

    /* Without one in the definition: the same each time, another for another name. */
    definition_mac(&d, "web", 0, mac);
    definition_mac(&d, "web", 0, other);
    assert_memory_equal(mac, other, 6);
    assert_memory_equal(mac, ((uint8_t[]){0x52, 0x54, 0}), 3);
    definition_mac(&d, "web2", 0, other);
    assert_memory_not_equal(mac, other, 6);
    definition_mac(&d, "web", 1, other);
    assert_memory_not_equal(mac, other, 6);
}

static void check_vsock(const char *said, const char *expected)
{
    struct definition d = {0};
    char *word;

    if (said)
        assert_int_equal(definition_set(&d.vsock, said, NULL), 0);
    assert_true(definition_has_vsock(&d));
    word = definition_vsock(&d, "/r,n/s");
    assert_string_equal(word, expected);
    free(word);
    definition_free(&d);
}

static void test_vsock(void **unused)
{
    struct definition d = {0};

    check_vsock(NULL, "socket=/r,,n/s");
    check_vsock("", "socket=/r,,n/s");
    check_vsock("cid=5", "cid=5,socket=/r,,n/s");
    check_vsock("socket=/x", "socket=/x");
    check_vsock("cid=5,socket=/x", "cid=5,socket=/x");
    assert_int_equal(definition_set(&d.vsock, "none", NULL), 0);
    assert_false(definition_has_vsock(&d));
    definition_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole),     cmocka_unit_test(test_little),
        cmocka_unit_test(test_odd_texts), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_limits),    cmocka_unit_test(test_files),
        cmocka_unit_test(test_paths),     cmocka_unit_test(test_macs),
        cmocka_unit_test(test_vsock),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
