/*
 * What `doppel run --stats` prints.
 */
#include "cli/stats.h"

#include "cli/json_text.h"

#include <inttypes.h>
#include <stdio.h>

static double mips(const struct doppel_stats *stats)
{
    return stats->run_ns ? (double)stats->instructions * 1e3 / (double)stats->run_ns : 0;
}

/* Counts and, if MEASURED, what they took. */
static void print_counts(const char *title, const struct doppel_count *counts, unsigned kinds,
                         bool measured)
{
    fprintf(stderr, "  %-24s %14s%s\n", title, "count",
            measured ? "           total        mean" : "");
    for (unsigned i = 0; i < kinds; i++) {
        const struct doppel_count *c = &counts[i];

        fprintf(stderr, "    %-22s %14" PRIu64, c->name, c->count);
        if (measured && c->ns)
            fprintf(stderr, " %12.3f ms", (double)c->ns / 1e6);
        if (measured && c->ns && c->count)
            fprintf(stderr, " %8.3f us", (double)c->ns / 1e3 / (double)c->count);
        fputc('\n', stderr);
    }
}

static void print_text(const struct doppel_stats *stats, long long boot_ms)
{
    static const char format[] = "  %-24s %14" PRIu64 " %s\n";

    fprintf(stderr, "doppel: statistics (engine %s)\n", stats->engine);
    fprintf(stderr, format, "instructions", stats->instructions, "");
    fprintf(stderr, "  %-24s %14.3f s\n", "elapsed", (double)stats->elapsed_ns / 1e9);
    fprintf(stderr, "  %-24s %14.3f s, all vCPUs\n", "executing", (double)stats->run_ns / 1e9);
    if (boot_ms >= 0)
        fprintf(stderr, "  %-24s %14.3f s\n", "until session", (double)boot_ms / 1e3);
    fprintf(stderr, "  %-24s %14.1f million instructions/s of execution\n", "speed", mips(stats));
    fprintf(stderr, format, "guest memory", stats->guest_resident / 1024, "KiB resident");
    fprintf(stderr, format, "process", stats->resident / 1024, "KiB resident");
    for (unsigned i = 0; i < stats->work_kinds; i++)
        fprintf(stderr, format, stats->work[i].name, stats->work[i].count, "");
    if (stats->tlb_hit_rate > 0)
        fprintf(stderr, "  %-24s %14.3f %% of translated code's searches\n", "software TLB hits",
                stats->tlb_hit_rate * 100);
    print_counts("exits", stats->exits, stats->exit_causes, stats->measured);
    if (stats->measured)
        fprintf(stderr, "  %-24s %14s %12.3f ms\n", "guest's own code", "",
                (double)stats->guest_ns / 1e6);
    print_counts("forgotten", stats->forgotten, stats->forget_causes, false);
    if (stats->interpreted_kinds)
        print_counts("interpreted", stats->interpreted, stats->interpreted_kinds, true);
}

static void json_counts(struct json_text *json, const char *name, const struct doppel_count *counts,
                        unsigned kinds)
{
    json_text_open(json, name, '{');
    for (unsigned i = 0; i < kinds; i++)
        json_text_number(json, counts[i].name, counts[i].count);
    json_text_close(json, '}');
}

static void json_times(struct json_text *json, const char *name, const struct doppel_count *counts,
                       unsigned kinds)
{
    json_text_open(json, name, '{');
    for (unsigned i = 0; i < kinds; i++)
        json_text_number(json, counts[i].name, counts[i].ns);
    json_text_close(json, '}');
}

static void print_json(const struct doppel_stats *stats, long long boot_ms)
{
    struct json_text json = {stderr, false};

    json_text_open(&json, NULL, '{');
    json_text_string(&json, "engine", stats->engine);
    json_text_number(&json, "instructions", stats->instructions);
    json_text_number(&json, "elapsed_ns", stats->elapsed_ns);
    json_text_number(&json, "run_ns", stats->run_ns);
    if (boot_ms >= 0)
        json_text_number(&json, "boot_ms", (uint64_t)boot_ms);
    json_text_real(&json, "mips", mips(stats));
    json_text_number(&json, "guest_resident", stats->guest_resident);
    json_text_number(&json, "resident", stats->resident);
    json_counts(&json, "work", stats->work, stats->work_kinds);
    if (stats->tlb_hit_rate > 0)
        json_text_real(&json, "tlb_hit_rate", stats->tlb_hit_rate);
    json_counts(&json, "exits", stats->exits, stats->exit_causes);
    json_times(&json, "exit_ns", stats->exits, stats->exit_causes);
    json_text_number(&json, "guest_ns", stats->guest_ns);
    json_counts(&json, "forgotten", stats->forgotten, stats->forget_causes);
    json_counts(&json, "interpreted", stats->interpreted, stats->interpreted_kinds);
    json_times(&json, "interpreted_ns", stats->interpreted, stats->interpreted_kinds);
    json_text_close(&json, '}');
    fputc('\n', stderr);
}

void stats_print(const struct doppel_stats *stats, long long boot_ms, bool json)
{
    if (json)
        print_json(stats, boot_ms);
    else
        print_text(stats, boot_ms);
}
