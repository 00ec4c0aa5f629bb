/*
 * `doppel isa`: the instruction table as Popek and Goldberg look at it, and what the engines make
 * of it. Everything here comes from the table in x86/ and from what the engines say of themselves.
 */
#include "cli/cli.h"
#include "cli/json_text.h"

#include "base/util.h"
#include "cpu/treatment.h"
#include "x86/isa.h"

#include <stdio.h>
#include <stdlib.h>

enum { OPT_SENSITIVE, OPT_ACTIONS, OPT_JSON, OPT_HELP };

static const struct option_spec specs[] = {
    [OPT_SENSITIVE] = {"sensitive-unprivileged", NULL,
                       "list only what makes trap and emulate fail on this architecture"},
    [OPT_ACTIONS] = {"actions", NULL,
                     "show what happens to each kind of instruction, by engine and mode"},
    [OPT_JSON] = {"json", NULL, "print one JSON object instead of text"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

/* The engines, and the modes of a guest that they tell apart. */
enum { INTERP, BT, ENGINES };
static const char *const engine_name[ENGINES] = {"interp", "bt"};
enum { USER, KERNEL, LEVELS };
static const char *const level_name[LEVELS] = {"user", "privileged"};

static enum treatment treatment_of(unsigned engine, unsigned level,
                                   const struct x86_insn_info *info)
{
    return engine == BT ? bt_treatment(info, level == USER) : interp_treatment(info);
}

static int help(void)
{
    puts(
        "Usage: doppel isa [--sensitive-unprivileged | --actions] [--json]\n"
        "Shows the instructions that guests have as Popek and Goldberg (1974) class them, and how\n"
        "each engine executes them.\n");
    options_help(specs);
    return finish_output(0);
}

/* ---- The table ---- */

static const char *kind_of(const struct x86_insn_info *info)
{
    bool control = info->sensitive & X86_CONTROL_SENSITIVE;
    bool behaviour = info->sensitive & X86_BEHAVIOUR_SENSITIVE;

    return control && behaviour ? "control, behaviour"
           : control            ? "control"
           : behaviour          ? "behaviour"
                                : "innocuous";
}

static void print_reasons(const struct x86_insn_info *info)
{
    const char *before = "";

    for (unsigned i = 0; i < ISA_REASONS; i++) {
        if (!(info->sensitive & isa_reason[i].bit))
            continue;
        printf("%s%s", before, isa_reason[i].name);
        before = " ";
    }
}

/* "inlined/emulated" where a program's differs from the kernel's. */
static void print_treatment(unsigned engine, const struct x86_insn_info *info)
{
    enum treatment user = treatment_of(engine, USER, info);
    enum treatment kernel = treatment_of(engine, KERNEL, info);
    char text[40];

    snprintf(text, sizeof(text), "%s%s%s", treatment_name[user], user == kernel ? "" : "/",
             user == kernel ? "" : treatment_name[kernel]);
    printf("  %-19s", text);
}

static void print_entry(const struct isa_entry *e)
{
    printf("%-18s %c %-26s %-19s", e->name, isa_is_pentium(e->info) ? '*' : ' ',
           isa_privilege(e->info), kind_of(e->info));
    for (unsigned engine = 0; engine < ENGINES; engine++)
        print_treatment(engine, e->info);
    putchar(' ');
    print_reasons(e->info);
    putchar('\n');
}

static void print_legend(void)
{
    puts("\nWho may execute it is who can without a trap. How an engine executes it is, where the "
         "two\n"
         "differ, a program's and the kernel's:");
    for (unsigned i = 0; i < TREATMENTS; i++)
        printf("  %-16s %s\n", treatment_name[i], treatment_text[i]);
    puts("Why it is sensitive:");
    for (unsigned i = 0; i < ISA_REASONS; i++)
        printf("  %-16s %s\n", isa_reason[i].name, isa_reason[i].text);
    puts("* one of the 17 that Robin and Irvine (2000) found on the Pentium (they count VERR and "
         "VERW as\n"
         "  one, and PUSHF with PUSHFD and POPF with POPFD); the others are their 64-bit brothers, "
         "or\n"
         "  sensitive for what their paper does not look at: time, identity, and entering the "
         "kernel.");
}

static void print_table(const struct isa_entry *entries, unsigned count, bool escapes)
{
    unsigned shown = 0;

    printf("%-18s   %-26s %-19s  %-19s  %-19s %s\n", "instruction", "who may execute it",
           "sensitive", engine_name[INTERP], engine_name[BT], "why it is sensitive");
    for (unsigned i = 0; i < count; i++) {
        if (escapes && !isa_escapes(entries[i].info))
            continue;
        print_entry(&entries[i]);
        shown++;
    }
    printf("\n%u instructions\n", shown);
    print_legend();
}

/* ---- Actions ---- */

/* The rows of the textbook's table. An errant instruction is one that faults in the guest's own
 * terms: a division by zero, a page that is not mapped, an instruction of the kernel's in a
 * program. */
enum action_row { INNOCUOUS, ERRANT, SENSITIVE, ACTION_ROWS };
static const char *const row_name[ACTION_ROWS] = {"non-sensitive", "errant", "sensitive"};

static bool in_row(enum action_row row, unsigned level, const struct x86_insn_info *info)
{
    switch (row) {
    case INNOCUOUS: return !info->sensitive;
    case ERRANT: return level == USER && isa_is_privileged(info);
    case SENSITIVE: return info->sensitive && !(level == USER && isa_is_privileged(info));
    default: return false;
    }
}

/* How many instructions of ROW an engine treats in which way. */
static void count_row(enum action_row row, unsigned engine, unsigned level,
                      const struct isa_entry *entries, unsigned count, unsigned by[TREATMENTS])
{
    for (unsigned i = 0; i < count; i++)
        if (in_row(row, level, entries[i].info))
            by[treatment_of(engine, level, entries[i].info)]++;
}

/* What follows for the guest, in words. */
static const char *action_text(enum action_row row, unsigned engine, unsigned level)
{
    switch (row) {
    case INNOCUOUS: return "works on the guest's registers and memory, and on nothing else";
    case ERRANT:
        return engine == BT ? "leaves translated code with the guest's state as before it; the "
                              "interpreter raises the exception through the guest's IDT"
                            : "raises the exception through the guest's IDT";
    case SENSITIVE:
        return level == USER ? "works on the virtual processor's state, as its level allows"
                             : "works on the virtual processor's state and devices";
    default: return "";
    }
}

static void print_counts(const unsigned by[TREATMENTS])
{
    const char *before = " (";

    for (unsigned i = 0; i < TREATMENTS; i++) {
        if (!by[i])
            continue;
        printf("%s%u %s", before, by[i], treatment_name[i]);
        before = ", ";
    }
    puts(*before == ',' ? ")" : " (none is errant by itself: its operands may be)");
}

static void print_actions(const struct isa_entry *entries, unsigned count)
{
    for (unsigned engine = 0; engine < ENGINES; engine++) {
        printf("%s%s\n", engine ? "\n" : "", engine_name[engine]);
        for (unsigned row = 0; row < ACTION_ROWS; row++) {
            for (unsigned level = 0; level < LEVELS; level++) {
                unsigned by[TREATMENTS] = {0};

                count_row(row, engine, level, entries, count, by);
                printf("  %-14s virtual %-11s %s\n%31s", row_name[row], level_name[level],
                       action_text(row, engine, level), "");
                print_counts(by);
            }
        }
    }
    puts(
        "\nThe guest's kernel and its programs are code of ours for the host: its privileged mode "
        "is\n"
        "virtual. An errant instruction of a program's is, in these counts, one that is the "
        "kernel's;\n"
        "what any instruction can raise (#DE, #PF, ...) goes the same way. Numbers are entries of\n"
        "`doppel isa`.");
    for (unsigned i = 0; i < TREATMENTS; i++)
        printf("  %-11s %s\n", treatment_name[i], treatment_text[i]);
}

/* ---- JSON ---- */

static void json_entry(struct json_text *json, const struct isa_entry *e)
{
    json_text_open(json, NULL, '{');
    json_text_string(json, "name", e->name);
    json_text_string(json, "who", isa_privilege(e->info));
    json_text_bool(json, "privileged", isa_is_privileged(e->info));
    json_text_bool(json, "control_sensitive", e->info->sensitive & X86_CONTROL_SENSITIVE);
    json_text_bool(json, "behaviour_sensitive", e->info->sensitive & X86_BEHAVIOUR_SENSITIVE);
    json_text_open(json, "why", '[');
    for (unsigned i = 0; i < ISA_REASONS; i++)
        if (e->info->sensitive & isa_reason[i].bit)
            json_text_string(json, NULL, isa_reason[i].name);
    json_text_close(json, ']');
    json_text_bool(json, "pentium", isa_is_pentium(e->info));
    for (unsigned engine = 0; engine < ENGINES; engine++) {
        json_text_open(json, engine_name[engine], '{');
        for (unsigned level = 0; level < LEVELS; level++)
            json_text_string(json, level_name[level],
                             treatment_name[treatment_of(engine, level, e->info)]);
        json_text_close(json, '}');
    }
    json_text_close(json, '}');
}

static void json_actions(struct json_text *json, const struct isa_entry *entries, unsigned count)
{
    for (unsigned engine = 0; engine < ENGINES; engine++) {
        json_text_open(json, engine_name[engine], '{');
        for (unsigned row = 0; row < ACTION_ROWS; row++) {
            json_text_open(json, row_name[row], '{');
            for (unsigned level = 0; level < LEVELS; level++) {
                unsigned by[TREATMENTS] = {0};

                count_row(row, engine, level, entries, count, by);
                json_text_open(json, level_name[level], '{');
                json_text_string(json, "action", action_text(row, engine, level));
                for (unsigned i = 0; i < TREATMENTS; i++)
                    json_text_number(json, treatment_name[i], by[i]);
                json_text_close(json, '}');
            }
            json_text_close(json, '}');
        }
        json_text_close(json, '}');
    }
}

static void print_json(const struct isa_entry *entries, unsigned count, bool escapes, bool actions)
{
    struct json_text json = {stdout, false};

    json_text_open(&json, NULL, '{');
    if (actions) {
        json_actions(&json, entries, count);
    } else {
        json_text_open(&json, "instructions", '[');
        for (unsigned i = 0; i < count; i++)
            if (!escapes || isa_escapes(entries[i].info))
                json_entry(&json, &entries[i]);
        json_text_close(&json, ']');
    }
    json_text_close(&json, '}');
    putchar('\n');
}

int cmd_isa(char **argv)
{
    struct options options = {.command = "isa", .specs = specs, .argv = argv + 1};
    bool escapes = false, actions = false, json = false;
    const char *value = NULL;
    struct isa_entry *entries;
    unsigned count;
    int option;

    while ((option = options_next(&options, &value)) >= 0) {
        switch (option) {
        case OPT_SENSITIVE: escapes = true; break;
        case OPT_ACTIONS: actions = true; break;
        case OPT_JSON: json = true; break;
        default: return help();
        }
    }
    if (option == OPTIONS_FAIL)
        return STATUS_ERROR;
    if (*options.argv) {
        complain("unexpected argument '%s'", *options.argv);
        return STATUS_ERROR;
    }
    if (escapes && actions) {
        complain("--sensitive-unprivileged and --actions are two different tables");
        return STATUS_ERROR;
    }
    entries = isa_entries(&count);
    if (!entries) {
        complain("out of memory");
        return STATUS_ERROR;
    }
    if (json)
        print_json(entries, count, escapes, actions);
    else if (actions)
        print_actions(entries, count);
    else
        print_table(entries, count, escapes);
    free(entries);
    return finish_output(0);
}
