/*
 * `doppel doctor`: what this host offers, which engine `auto` means here, and why.
 */
#include "cli/cli.h"
#include "cli/guest.h"
#include "cli/json_text.h"

#include "ctl/doppel.h"

#include <stdio.h>
#include <unistd.h>

enum { OPT_JSON, OPT_HELP };

static const struct option_spec specs[] = {
    [OPT_JSON] = {"json", NULL, "print one JSON object instead of text"},
    [OPT_HELP] = {"help", NULL, "show this"},
    {NULL, NULL, NULL},
};

/* The release of the default guest's kernel. */
static const char *default_kernel(const struct guest_files *guest, struct guest_kernel *kernel)
{
    guest_inspect(guest->kernel, kernel);
    return kernel->linux_image ? kernel->release : "not a Linux kernel";
}

static void print_kvm(const struct doppel_host *host)
{
    printf("KVM           %s: %s\n", host->kvm_present ? "present" : "not present",
           host->kvm_detail);
    if (host->kvm_kernel_ips)
        printf("              million instructions/s: kernel %.1f, programs %.1f; us: page fault "
               "%.2f, CPUID %.2f, exit %.2f\n",
               (double)host->kvm_kernel_ips / 1e6, (double)host->kvm_user_ips / 1e6,
               (double)host->kvm_fault_ns / 1e3, (double)host->kvm_cpuid_ns / 1e3,
               (double)host->kvm_exit_ns / 1e3);
    if (*host->kvm_missing)
        printf("              it lacks: %s\n", host->kvm_missing);
}

static void print_text(const struct doppel_host *host, const struct guest_files *guest)
{
    struct guest_kernel kernel;

    printf("processor     %s, %u CPU%s\n", host->cpu, host->cpus, host->cpus == 1 ? "" : "s");
    printf("memory        %.1f GiB, %.1f GiB available\n", (double)host->memory / (1 << 30),
           (double)host->memory_available / (1 << 30));
    if (host->x86_64_v3)
        printf("guest CPU     x86-64-v3, complete\n");
    else
        printf("guest CPU     x86-64-v3 without what this host lacks: %s\n", host->missing);
    print_kvm(host);
    printf("engine        %s: %s\n", doppel_engine_name(host->chosen), host->reason);
    printf("guest files   %s (%s)\n", guest->folder,
           guest->complete ? "complete" : "the default guest is missing");
    if (guest->complete)
        printf("              default kernel: %s\n", default_kernel(guest, &kernel));
    else
        printf("              make them with: %s\n", guest->remedy);
}

static void print_json(const struct doppel_host *host, const struct guest_files *guest)
{
    struct json_text json = {stdout, false};
    struct guest_kernel kernel;

    json_text_open(&json, NULL, '{');
    json_text_string(&json, "version", doppel_version());
    json_text_string(&json, "cpu", host->cpu);
    json_text_number(&json, "cpus", host->cpus);
    json_text_number(&json, "memory", host->memory);
    json_text_number(&json, "memory_available", host->memory_available);
    json_text_bool(&json, "x86_64_v3", host->x86_64_v3);
    json_text_string(&json, "missing_features", host->missing);
    json_text_bool(&json, "kvm_present", host->kvm_present);
    json_text_string(&json, "kvm_detail", host->kvm_detail);
    json_text_bool(&json, "kvm_native", host->kvm_native);
    json_text_string(&json, "kvm_missing", host->kvm_missing);
    json_text_number(&json, "kvm_kernel_ips", host->kvm_kernel_ips);
    json_text_number(&json, "kvm_user_ips", host->kvm_user_ips);
    json_text_number(&json, "kvm_fault_ns", host->kvm_fault_ns);
    json_text_number(&json, "kvm_cpuid_ns", host->kvm_cpuid_ns);
    json_text_number(&json, "kvm_exit_ns", host->kvm_exit_ns);
    json_text_string(&json, "engine", doppel_engine_name(host->chosen));
    json_text_string(&json, "reason", host->reason);
    json_text_string(&json, "guest_folder", guest->folder);
    json_text_bool(&json, "guest_complete", guest->complete);
    if (guest->complete)
        json_text_string(&json, "guest_kernel", default_kernel(guest, &kernel));
    json_text_close(&json, '}');
    putchar('\n');
}

int cmd_doctor(char **argv)
{
    struct options options = {.command = "doctor", .specs = specs, .argv = argv + 1};
    struct doppel_host host = {0};
    struct guest_files guest;
    const char *value = NULL;
    bool json = false;

    for (;;) {
        switch (options_next(&options, &value)) {
        case OPT_JSON: json = true; continue;
        case OPT_HELP:
            puts("Usage: doppel doctor [--json]\n"
                 "Shows what this host offers, which engine would be used, and why.\n");
            options_help(specs);
            return finish_output(0);
        case OPTIONS_FAIL: return STATUS_ERROR;
        default: break;
        }
        break;
    }
    if (*options.argv) {
        complain("unexpected argument '%s'", *options.argv);
        return STATUS_ERROR;
    }
    doppel_probe(&host);
    guest_find(&guest);
    if (json)
        print_json(&host, &guest);
    else
        print_text(&host, &guest);
    return finish_output(0);
}
