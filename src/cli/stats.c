/*
 * What `doppel run --stats` prints.
 */
#include "cli/stats.h"

#include "cli/json.h"

#include <inttypes.h>
#include <stdio.h>

static double mips(const struct doppel_stats *stats)
{
    return stats->run_ns ? (double)stats->instructions * 1e3 / (double)stats->run_ns : 0;
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
    for (unsigned i = 0; i < stats->exit_causes; i++)
        fprintf(stderr, format, stats->exits[i].cause, stats->exits[i].count, "exits");
    for (unsigned i = 0; i < stats->work_kinds; i++)
        fprintf(stderr, format, stats->work[i].cause, stats->work[i].count, "");
}

static void print_json(const struct doppel_stats *stats, long long boot_ms)
{
    struct json json = {stderr, false};

    json_open(&json, NULL, '{');
    json_string(&json, "engine", stats->engine);
    json_number(&json, "instructions", stats->instructions);
    json_number(&json, "elapsed_ns", stats->elapsed_ns);
    json_number(&json, "run_ns", stats->run_ns);
    if (boot_ms >= 0)
        json_number(&json, "boot_ms", (uint64_t)boot_ms);
    json_real(&json, "mips", mips(stats));
    json_number(&json, "guest_resident", stats->guest_resident);
    json_number(&json, "resident", stats->resident);
    json_open(&json, "exits", '{');
    for (unsigned i = 0; i < stats->exit_causes; i++)
        json_number(&json, stats->exits[i].cause, stats->exits[i].count);
    json_close(&json, '}');
    json_open(&json, "work", '{');
    for (unsigned i = 0; i < stats->work_kinds; i++)
        json_number(&json, stats->work[i].cause, stats->work[i].count);
    json_close(&json, '}');
    json_close(&json, '}');
    fputc('\n', stderr);
}

void stats_print(const struct doppel_stats *stats, long long boot_ms, bool json)
{
    if (json)
        print_json(stats, boot_ms);
    else
        print_text(stats, boot_ms);
}
