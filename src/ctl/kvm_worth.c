/*
 * What KVM is worth, and the file that keeps it:
 *
 *     doppel-kvm-probe 1
 *     boot 8a3c...             /proc/sys/kernel/random/boot_id
 *     host Linux 6.1.0-9 ...   the kernel, and the processor's signature and name
 *     figures 9100000000 9200000000 450 1200 2100   those of struct kvm_figures, in their order
 */
#include "ctl/kvm_worth.h"

#include "base/field.h"
#include "base/util.h"
#include "ctl/home.h"
#include "ctl/replace.h"

#include <cpuid.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define CACHE_NAME "kvm-probe"
#define CACHE_MOST 1024u
#define KEY_SIZE   512u
#define FIGURES    5u
#define FIGURE_MAX 1000000000000000u

/* ---- What the figures are of ---- */

static void boot_id(char *id, size_t size)
{
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

    if (!file || !fgets(id, (int)size, file))
        *id = '\0';
    id[strcspn(id, "\n")] = '\0';
    if (file)
        fclose(file);
}

/* Stores the lines before the figures. False: this start of the host cannot be told from others. */
static bool make_key(char key[KEY_SIZE])
{
    uint32_t leaf[4] = {0}, brand[13] = {0};
    struct utsname kernel;
    char id[64];
    int length;

    boot_id(id, sizeof(id));
    if (!*id || uname(&kernel) < 0)
        return false;
    __get_cpuid(1, &leaf[0], &leaf[1], &leaf[2], &leaf[3]);
    for (unsigned i = 0; i < 3; i++)
        __get_cpuid(0x80000002 + i, &brand[4 * i], &brand[4 * i + 1], &brand[4 * i + 2],
                    &brand[4 * i + 3]);
    length = snprintf(key, KEY_SIZE, "doppel-kvm-probe 1\nboot %s\nhost %s %s, %x %.48s\n", id,
                      kernel.sysname, kernel.release, leaf[0], (const char *)brand);
    return length > 0 && (unsigned)length < KEY_SIZE;
}

/* ---- The file ---- */

static uint64_t *figure(struct kvm_figures *f, unsigned i)
{
    uint64_t *const all[FIGURES] = {&f->kernel_ips, &f->user_ips, &f->fault_ns, &f->cpuid_ns,
                                    &f->exit_ns};

    return all[i];
}

static bool parse(const char *text, const char *key, struct kvm_figures *figures)
{
    const char *at = field_after(text, key);

    at = at ? field_after(at, "figures") : NULL;
    for (unsigned i = 0; at && i < FIGURES; i++)
        if (*at++ != ' ' || !field_number(&at, FIGURE_MAX, figure(figures, i)) ||
            !*figure(figures, i))
            return false;
    return at && !strcmp(at, "\n");
}

static bool load(const char *cache, const char *key, struct kvm_figures *figures)
{
    size_t size = 0;
    char *text = read_small_file(cache, CACHE_MOST, &size, NULL);
    bool good = text && strlen(text) == size && parse(text, key, figures);

    free(text);
    return good;
}

/* What cannot be kept is measured again. */
static void store(const char *cache, const char *key, struct kvm_figures *figures)
{
    char text[CACHE_MOST];
    int length = snprintf(text, sizeof(text), "%sfigures", key);

    for (unsigned i = 0; i < FIGURES; i++)
        length += snprintf(text + length, sizeof(text) - (size_t)length, " %llu",
                           (unsigned long long)*figure(figures, i));
    length += snprintf(text + length, sizeof(text) - (size_t)length, "\n");
    replace_file(cache, text, (size_t)length, 0600, NULL);
}

/* ---- Finding out ---- */

static int measure(const struct kvm_calls *calls, int kvm, const char *cache,
                   struct kvm_figures *figures, struct error *err)
{
    char key[KEY_SIZE];
    bool known = cache && make_key(key);
    int ret;

    if (known && load(cache, key, figures))
        return 0;
    ret = kvm_probe_measure(calls, kvm, figures, err);
    if (ret == 0 && known)
        store(cache, key, figures);
    return ret;
}

void kvm_worth_find(const struct kvm_calls *calls, const char *cache, struct kvm_worth *worth)
{
    struct error err = {0};
    int kvm = kvm_probe_open(calls, &err);

    *worth = (struct kvm_worth){.present = kvm >= 0};
    if (worth->present) {
        worth->able = kvm_probe_lacks(calls, kvm, worth->missing, sizeof(worth->missing));
        worth->measured = measure(calls, kvm, cache, &worth->figures, &err) == 0;
        close(kvm);
    }
    if (!worth->measured)
        snprintf(worth->detail, sizeof(worth->detail), "%.*s", (int)sizeof(worth->detail) - 1,
                 err.text);
    else
        worth->native = kvm_probe_is_native(&worth->figures, worth->detail, sizeof(worth->detail));
}

void kvm_worth_here(struct kvm_worth *worth)
{
    char cache[PATH_MAX];
    bool kept = home_path(HOME_CACHE, CACHE_NAME, cache, sizeof(cache), NULL) == 0;

    kvm_worth_find(&kvm_host_calls, kept ? cache : NULL, worth);
}
