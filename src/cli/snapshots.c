/*
 * How the snapshots of an image are shown: as qemu-img shows them.
 */
#include "cli/snapshots.h"
#include "cli/image.h"

#include "base/time.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void print_one(const struct qcow2_snapshot *snapshot)
{
    char *id = image_clean(snapshot->id), *name = image_clean(snapshot->name);
    time_t seconds = (time_t)snapshot->seconds;
    uint64_t clock = snapshot->vm_clock / NS_PER_MS;
    char size[32], date[64] = "?";
    struct tm tm;

    image_size_text(size, sizeof(size), snapshot->vm_state_size);
    if (localtime_r(&seconds, &tm))
        strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
    printf("%-9s %-20s %10s %s %4.2" PRIu64 ":%02" PRIu64 ":%02" PRIu64 ".%03" PRIu64 "\n",
           id ? id : "?", name ? name : "?", size, date, clock / 3600000, clock / 60000 % 60,
           clock / 1000 % 60, clock % 1000);
    free(id);
    free(name);
}

void snapshots_print(const struct qcow2_snapshot *list, unsigned count)
{
    if (!count)
        return;
    printf("Snapshot list:\n%-9s %-20s %10s %-19s %13s\n", "ID", "TAG", "VM SIZE", "DATE",
           "VM CLOCK");
    for (unsigned i = 0; i < count; i++)
        print_one(&list[i]);
}

void snapshots_json(struct json_text *json, const struct qcow2_snapshot *list, unsigned count)
{
    json_text_open(json, "snapshots", '[');
    for (unsigned i = 0; i < count; i++) {
        const struct qcow2_snapshot *snapshot = &list[i];

        json_text_open(json, NULL, '{');
        image_json_text(json, "id", snapshot->id);
        image_json_text(json, "name", snapshot->name);
        json_text_number(json, "vm-state-size", snapshot->vm_state_size);
        json_text_number(json, "date-sec", snapshot->seconds);
        json_text_number(json, "date-nsec", snapshot->nanoseconds);
        json_text_number(json, "vm-clock-sec", snapshot->vm_clock / NS_PER_S);
        json_text_number(json, "vm-clock-nsec", snapshot->vm_clock % NS_PER_S);
        json_text_number(json, "disk-size", snapshot->disk_size);
        json_text_close(json, '}');
    }
    json_text_close(json, ']');
}
