/*
 * The test program: runs cases on the host's processor and in an engine, and compares.
 */
#include "cases.h"
#include "compare.h"
#include "engine.h"

#include "forms.h"
#include "generate.h"
#include "self_test.h"

#include "../variants.h"
#include "base/time.h"
#include "base/util.h"

#include <ctype.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define COUNT_FAST   100000
#define COUNT_FULL   2000000
#define STATUS_ERROR 2
#define STATUS_SKIP  77 /* as meson understands it: not on this host */
#define SHOWN        10 /* differences printed in full */

struct options {
    uint64_t seed, count, one;
    bool have_one, list, masks, all, brief, self_test, sequences, interrupt;
    const char *only, *hand, *engine;
};

struct test {
    struct options opt;
    struct forms forms;
    struct generator generator;
    struct native *native;

    struct engine_ops variant;
    struct engine_executor *guest;
    struct executor engine;
    struct diff_case c;
    struct diff_result expected, got;
    uint64_t run, skipped, different, timeouts;
    uint64_t ended[32]; /* by vector */
    uint32_t *form_run; /* cases that ran, by form */
    uint32_t *form_bad; /* and differed */
};

/* Case N: every eighth is a sequence, and now and then an opcode is undefined, unless single
 * mnemonics were asked for. */
static bool make_case(struct test *t, uint64_t n, int *form)
{
    *form = -1;
    if (t->opt.sequences || (!t->opt.only && n % 8 == 7))
        return generate_sequence(&t->generator, n, &t->c);
    if (!t->opt.only && n % 64 == 0)
        return generate_undefined(&t->generator, n, &t->c);
    if (!t->opt.only)
        n -= n / 8 + n / 64 + 1;
    *form = (int)(n % t->forms.count);
    return generate_single(&t->generator, n, &t->c);
}

/* Runs t->c; says whether the results were the same. */
static bool run_both(struct test *t)
{
    bool same;

    if (t->guest && !engine_takes(t->guest, &t->c)) {
        t->skipped++;
        return true;
    }
    native_run(t->native, &t->c, &t->expected);
    if (t->expected.timeout) {
        t->timeouts++;
        return true;
    }
    t->engine.run(t->engine.opaque, &t->c, &t->got);
    t->run++;
    t->ended[t->expected.vector & 31]++;
    same = compare_results(&t->c, &t->expected, &t->got, NULL) == 0;
    t->different += !same;
    if (t->opt.brief && !same)
        compare_brief(&t->c, &t->expected, &t->got, stdout);
    else if (t->opt.have_one || (!same && (t->different <= SHOWN || t->opt.all)))
        compare_print(&t->c, &t->expected, &t->got, t->engine.name, stdout);
    return same;
}

static void run_generated(struct test *t, uint64_t n)
{
    bool same;
    int form;

    if (!make_case(t, n, &form)) {
        t->skipped++;
        return;
    }
    t->c.number = n;
    same = run_both(t);
    if (form >= 0) {
        t->form_run[form]++;
        t->form_bad[form] += !same;
    }
}

static void run_hand(struct test *t)
{
    for (unsigned i = 0; i < cases_count(); i++)
        for (unsigned v = 0; v < CASES_VARIATIONS; v++) {
            if (t->opt.have_one && v != t->opt.one)
                continue;
            cases_make(&t->generator, i, v, &t->c);
            if (!t->opt.hand || !strcmp(t->opt.hand, "all") || !strcmp(t->opt.hand, t->c.name))
                run_both(t);
        }
}

static bool keep_only(struct forms *forms, const char *mnemonic)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < forms->count; i++)
        if (!strcasecmp(ZydisMnemonicGetString(forms->form[i].mnemonic), mnemonic))
            forms->form[kept++] = forms->form[i];
    forms->count = kept;
    return kept > 0;
}

/* Cases by mnemonic: how many forms, how many ran. */
static void list_coverage(const struct test *t)
{
    unsigned entries;
    const struct x86_insn_info *table = x86_insn_table(&entries);

    for (unsigned i = 0; i < entries; i++) {
        unsigned forms = 0, run = 0, bad = 0;
        uint64_t cases = 0;

        for (unsigned f = 0; f < t->forms.count; f++) {
            if (t->forms.form[f].info->mnemonic != table[i].mnemonic ||
                t->forms.form[f].info->class != table[i].class)
                continue;
            forms++;
            run += t->form_run[f] > 0;
            cases += t->form_run[f];
            bad += t->form_bad[f];
        }
        printf("%-16s %3u forms, %3u run, %6" PRIu64 " cases, %5u different%s%s\n",
               ZydisMnemonicGetString(table[i].mnemonic), forms, run, cases, bad,
               forms_excluded(table[i].mnemonic) ? "; left out: " : "",
               forms_excluded(table[i].mnemonic) ? forms_excluded(table[i].mnemonic) : "");
    }
}

static void summarize(const struct test *t, double seconds)
{
    unsigned covered = 0;

    for (unsigned i = 0; i < t->forms.count; i++)
        covered += t->form_run[i] > 0;
    printf("diff: native against %s, seed %" PRIu64 ": %" PRIu64 " cases (%.0f a second), "
           "%u of %u forms, %" PRIu64 " skipped, %" PRIu64 " without end, %" PRIu64 " different\n",
           t->engine.name, t->opt.seed, t->run, seconds > 0 ? (double)t->run / seconds : 0, covered,
           t->forms.count, t->skipped, t->timeouts, t->different);
    printf("diff: ended by");
    for (unsigned i = 0; i < 32; i++)
        if (t->ended[i])
            printf(" %u: %" PRIu64, i, t->ended[i]);
    putchar('\n');
}

static double now(void)
{
    return (double)time_now_ns() / 1e9;
}

static int usage(void)
{
    fprintf(
        stderr,
        "usage: diff [--engine NAME] [--seed N] [--count N | --full] [--only MNEMONIC|sequence] "
        "[--hand NAME|all] [--case N] [--all|--brief] [--list] [--masks] [--interrupt] "
        "[--self-test]\n");
    return 2;
}

static bool parse(struct options *opt, int argc, char **argv)
{
    static const struct option longs[] = {
        {"seed", required_argument, NULL, 's'}, {"count", required_argument, NULL, 'n'},
        {"full", no_argument, NULL, 'f'},       {"only", required_argument, NULL, 'o'},
        {"case", required_argument, NULL, 'c'}, {"all", no_argument, NULL, 'a'},
        {"brief", no_argument, NULL, 'b'},      {"list", no_argument, NULL, 'l'},
        {"masks", no_argument, NULL, 'm'},      {"engine", required_argument, NULL, 'e'},
        {"hand", required_argument, NULL, 'h'}, {"interrupt", no_argument, NULL, 'i'},
        {"self-test", no_argument, NULL, 't'},  {NULL, 0, NULL, 0},
    };
    int o;

    *opt = (struct options){.seed = 1, .count = COUNT_FAST, .engine = "interp"};
    while ((o = getopt_long(argc, argv, "", longs, NULL)) >= 0)
        switch (o) {
        case 's': opt->seed = strtoull(optarg, NULL, 0); break;
        case 'n': opt->count = strtoull(optarg, NULL, 0); break;
        case 'e': opt->engine = optarg; break;
        case 'h': opt->hand = optarg; break;
        case 'f': opt->count = COUNT_FULL; break;
        case 'o': opt->only = optarg; break;
        case 'c':
            opt->one = strtoull(optarg, NULL, 0);
            opt->have_one = true;
            break;
        case 'a': opt->all = true; break;
        case 'b': opt->brief = true; break;
        case 'l': opt->list = true; break;
        case 'i': opt->interrupt = true; break;
        case 'm': opt->masks = true; break;
        case 't': opt->self_test = true; break;
        default: return false;
        }
    return optind == argc;
}

static void tick(void *test)
{
    struct test *t = test;

    if (t->guest)
        engine_tick(t->guest);
}

static bool set_up_executors(struct test *t)
{
    const struct engine_ops *ops = variant_find(t->opt.engine, &t->variant);

    if (!ops && strcmp(t->opt.engine, "native") != 0) {
        fprintf(stderr, "diff: no engine %s\n", t->opt.engine);
        return false;
    }
    /* The engine first: the native side's signal handlers pass on what is the engine's. */
    if (ops)
        t->guest = engine_create(ops);
    t->native = native_create(tick, t);
    if (ops)
        t->engine = (struct executor){ops->name, engine_run, t->guest};
    else
        t->engine = (struct executor){"native", native_run, t->native};
    if (t->opt.interrupt && t->guest && !engine_interrupt(t->guest))
        return false;
    return t->native && t->engine.opaque;
}

/* Everything but the cases. */
static bool set_up(struct test *t)
{
    struct x86_model model;

    x86_model_default(&model, 1, GiB);
    if (!forms_collect(&t->forms, &model))
        return false;
    t->opt.sequences = t->opt.only && !strcmp(t->opt.only, "sequence");
    if (t->opt.only && !t->opt.sequences && !keep_only(&t->forms, t->opt.only)) {
        fprintf(stderr, "diff: no form of %s\n", t->opt.only);
        return false;
    }
    t->form_run = calloc(t->forms.count, sizeof(*t->form_run));
    t->form_bad = calloc(t->forms.count, sizeof(*t->form_bad));
    generator_init(&t->generator, &t->forms, t->opt.seed);
    return t->form_run && t->form_bad && set_up_executors(t);
}

static void tear_down(struct test *t)
{
    native_destroy(t->native);
    engine_destroy(t->guest);
    forms_free(&t->forms);
    free(t->form_run);
    free(t->form_bad);
}

static bool run_all(struct test *t)
{
    double start = now();

    if (t->opt.hand || (!t->opt.only && !t->opt.have_one))
        run_hand(t);
    if (t->opt.have_one && !t->opt.hand)
        run_generated(t, t->opt.one);
    for (uint64_t n = 0; !t->opt.have_one && !t->opt.hand && n < t->opt.count; n++)
        run_generated(t, n);
    if (t->opt.list)
        list_coverage(t);
    summarize(t, now() - start);
    return t->run && !t->different;
}

/* Whether the host lacks what engine NAME needs, which is said then. */
static bool is_missing(const char *name)
{
    struct x86_model model;
    struct error err = {0};

    x86_model_default(&model, 1, GiB);
    if (strcmp(name, kvm_engine.name) != 0 || kvm_engine.restrict_model(&model, &err) == 0)
        return false;
    printf("diff: not run: %s\n", err.text);
    return true;
}

int main(int argc, char **argv)
{
    static struct test t; /* large */
    int status = STATUS_ERROR;

    if (!parse(&t.opt, argc, argv))
        return usage();
    if (t.opt.masks) {
        mask_list(stdout);
        forms_list_excluded(stdout);
        return 0;
    }
    if (is_missing(t.opt.engine))
        return STATUS_SKIP;
    if (set_up(&t)) {
        bool good = t.opt.self_test ? self_test(&t.generator, t.native, t.opt.count) : run_all(&t);

        status = good ? 0 : 1;
    }
    if (t.engine.name && !t.native)
        status = STATUS_SKIP;
    tear_down(&t);
    return status;
}
