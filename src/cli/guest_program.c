/*
 * A program of a guest's whose streams this process has.
 */
#include "cli/guest_program.h"

#include "cli/cli.h"

#include "base/thread.h"
#include "base/util.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* The thread that reads error output, however much there is: of what comes, the start is kept. */
static void *read_errors(void *opaque)
{
    struct guest_program *program = opaque;
    char bytes[4096];
    ssize_t n;

    while ((n = read(program->child.err, bytes, sizeof(bytes))) > 0 || (n < 0 && errno == EINTR)) {
        size_t room = sizeof(program->errors) - 1 - program->errors_size;
        size_t size = MIN(n > 0 ? (size_t)n : 0, room);

        memcpy(program->errors + program->errors_size, bytes, size);
        program->errors_size += size;
    }
    return NULL;
}

int guest_program_start(struct guest_program *program, const struct guest_place *place,
                        const char *const *command, bool input, bool output, struct error *err)
{
    const char *argv[GUEST_PROGRAM_WORDS + 12];
    unsigned count = 0;
    int result;

    memset(program, 0, sizeof(*program));
    program->name = place->name;
    argv[count++] = "/proc/self/exe"; /* in the child it is this program still */
    argv[count++] = "exec";
    argv[count++] = "--no-terminal";
    argv[count++] = input ? "--input" : "--no-input";
    if (place->wait) {
        argv[count++] = "--wait";
        argv[count++] = place->wait;
    }
    if (place->user) {
        argv[count++] = "--user";
        argv[count++] = place->user;
    }
    argv[count++] = place->name;
    argv[count++] = "--";
    for (unsigned i = 0; command[i] && i < GUEST_PROGRAM_WORDS; i++)
        argv[count++] = command[i];
    argv[count] = NULL;
    result = program_start(argv, "doppel", input, output, &program->child, err);
    if (result)
        return result;
    result = thread_start(&program->reader, "errors", read_errors, program, err);
    if (result)
        program_wait(&program->child);
    return result;
}

/* Says the lines of error output, without the name of this program in front. */
static void tell(struct guest_program *program)
{
    static const char self[] = "doppel: ";
    char *rest = program->errors, *line;

    program->errors[program->errors_size] = '\0';
    while ((line = strsep(&rest, "\n"))) {
        if (!*line)
            continue;
        if (!strncmp(line, self, strlen(self)))
            complain("%s", line + strlen(self));
        else
            complain("'%s': %s", program->name, line);
    }
}

int guest_program_end(struct guest_program *program)
{
    if (program->child.in >= 0)
        close(program->child.in);
    if (program->child.out >= 0)
        close(program->child.out);
    program->child.in = program->child.out = -1;
    pthread_join(program->reader, NULL);
    tell(program);
    return program_wait(&program->child);
}
