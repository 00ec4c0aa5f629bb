/*
 * A disk from which cloud-init configures a foreign image.
 */
#include "image/seed.h"

#include "image/archive_library.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECTOR 2048 /* bytes; the file is a whole number of them */

static int fail(const struct archive_library *library, struct archive *archive, const char *name,
                struct error *err)
{
    const char *text = library->error_string(archive);

    return error_set(err, EIO, "cannot write %s: %s", name, text ? text : "no reason is given");
}

static int add(const struct archive_library *library, struct archive *archive, const char *path,
               const void *data, size_t size, const char *name, struct error *err)
{
    struct archive_entry *entry = library->entry_new();
    int result = 0;

    if (!entry)
        return error_set(err, ENOMEM, "out of memory");
    library->entry_set_pathname(entry, path);
    library->entry_set_size(entry, (la_int64_t)size);
    library->entry_set_filetype(entry, AE_IFREG);
    library->entry_set_perm(entry, 0644);
    library->entry_set_mtime(entry, 0, 0);
    if (library->write_header(archive, entry) != ARCHIVE_OK ||
        library->write_data(archive, data, size) != (la_ssize_t)size)
        result = fail(library, archive, name, err);
    library->entry_free(entry);
    return result;
}

/* Writes each line of KEYS that is a key as one of YAML's list: in quotes, since its comment may
 * hold anything. */
static void put_keys(FILE *to, const char *keys)
{
    fputs("public-keys:\n", to);
    while (*keys) {
        size_t length = strcspn(keys, "\r\n");

        if (length && *keys != '#') {
            fputs("- '", to);
            for (size_t i = 0; i < length; i++) {
                if (keys[i] == '\'')
                    fputc('\'', to);
                fputc(keys[i], to);
            }
            fputs("'\n", to);
        }
        keys += length;
        keys += strspn(keys, "\r\n");
    }
}

/* The meta-data; the caller frees it. NULL: no memory. */
static char *make_meta(const struct seed *seed, size_t *size)
{
    char *meta = NULL;
    FILE *to = open_memstream(&meta, size);

    if (!to)
        return NULL;
    fprintf(to, "instance-id: %s\nlocal-hostname: %s\n", seed->instance, seed->hostname);
    put_keys(to, seed->keys);
    if (fclose(to) == 0)
        return meta;
    free(meta);
    return NULL;
}

static int fill(const struct archive_library *library, struct archive *archive, int fd,
                const char *name, const struct seed *seed, struct error *err)
{
    size_t length;
    char *meta = make_meta(seed, &length);
    int result;

    if (!meta)
        return error_set(err, ENOMEM, "out of memory");
    library->write_set_format_iso9660(archive);
    if (library->write_set_options(archive, "volume-id=cidata,rockridge=useful,joliet") !=
            ARCHIVE_OK ||
        library->write_open_fd(archive, fd) != ARCHIVE_OK) {
        free(meta);
        return fail(library, archive, name, err);
    }
    result = add(library, archive, "meta-data", meta, length, name, err);
    free(meta);
    if (!result)
        result =
            add(library, archive, "user-data", seed->user_data, seed->user_data_size, name, err);
    if (!result && library->write_close(archive) != ARCHIVE_OK)
        result = fail(library, archive, name, err);
    return result;
}

int seed_write(int fd, const char *name, const struct seed *seed, struct error *err)
{
    struct archive_library library;
    struct archive *archive;
    off_t end;
    int result = archive_library_load(&library, err);

    if (result)
        return result;
    archive = library.write_new();
    if (!archive)
        return error_set(err, ENOMEM, "out of memory");
    result = fill(&library, archive, fd, name, seed, err);
    library.write_free(archive);
    if (result)
        return result;
    end = lseek(fd, 0, SEEK_END);
    if (end < 0 || ftruncate(fd, (end + SECTOR - 1) / SECTOR * SECTOR) < 0)
        return error_set(err, errno, "cannot write %s: %s", name, strerror(errno));
    return 0;
}
