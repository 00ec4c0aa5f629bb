/*
 * Fuzz target: an OCI image layout from anywhere. The input is the text of the index and, behind
 * each byte 0xFF, that of a blob. Where a text has '@' and a digit, there is the descriptor of the
 * blob with that number, one of those behind it: digests cannot be guessed.
 *
 * What is read has names of files in blobs/sha256 and nothing else, and what is opened is what its
 * digest says.
 */
#include "image/oci.h"

#include "input.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEXTS_MOST 4u
#define TEXT_MOST  65536u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct text {
    char *data;
    size_t size;
    char digest[DIGEST_TEXT];
};

static void put(int folder, const char *name, const struct text *text)
{
    int fd = openat(folder, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    check(fd >= 0 && write(fd, text->data, text->size) == (ssize_t)text->size);
    close(fd);
}

/* Makes text NUMBER of SIZE bytes at DATA, with the descriptors of those behind it. */
static void expand(struct text texts[TEXTS_MOST], unsigned number, const uint8_t *data, size_t size)
{
    struct text *text = &texts[number];
    FILE *to = open_memstream(&text->data, &text->size);

    check(to);
    for (size_t i = 0; i < size; i++) {
        unsigned other = i + 1 < size ? number + 1 + data[i + 1] % TEXTS_MOST : 0;

        if (data[i] == '@' && other > number && other < TEXTS_MOST && texts[other].data &&
            ftell(to) < (long)TEXT_MOST) {
            fprintf(to, "{\"digest\":\"sha256:%s\",\"size\":%zu}", texts[other].digest,
                    texts[other].size);
            i++;
        } else {
            fputc(data[i], to);
        }
    }
    fclose(to);
    digest_of(text->data, text->size, text->digest);
}

/* Divides the input, and makes the last text first, to which the others may lead. */
static void make_texts(struct text texts[TEXTS_MOST], const uint8_t *data, size_t size)
{
    const uint8_t *start[TEXTS_MOST + 1] = {data};
    unsigned count = 1;

    for (size_t i = 0; i < size && count < TEXTS_MOST; i++)
        if (data[i] == 0xFF)
            start[count++] = data + i + 1;
    start[count] = data + size + 1; /* as if one more followed */
    while (count-- > 0)
        expand(texts, count, start[count], (size_t)(start[count + 1] - 1 - start[count]));
}

static void look(int folder)
{
    struct oci *oci = malloc(sizeof(*oci));
    struct error err = {0};

    check(oci);
    if (oci_read(folder, "it", oci, &err)) {
        check(err.code > 0 && *err.text);
    } else {
        check(oci->count > 0 && oci->count <= OCI_LAYERS_MOST);
        for (unsigned i = 0; i < oci->count; i++) {
            int fd = oci_open(folder, "it", &oci->layer[i], NULL, NULL, &err);
            struct stat st;

            check(strspn(oci->layer[i].digest, "0123456789abcdef") == DIGEST_TEXT - 1);
            if (fd < 0)
                continue;
            check(fstat(fd, &st) == 0 && (uint64_t)st.st_size == oci->layer[i].size);
            close(fd);
        }
    }
    free(oci);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[] = P_tmpdir "/doppel-fuzz-oci-XXXXXX";
    struct text texts[TEXTS_MOST] = {0};
    int folder, blobs;

    make_texts(texts, data, size);
    check(mkdtemp(path));
    folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    check(folder >= 0 && !mkdirat(folder, "blobs", 0700) && !mkdirat(folder, "blobs/sha256", 0700));
    blobs = openat(folder, "blobs/sha256", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    check(blobs >= 0);
    put(folder, "index.json", &texts[0]);
    for (unsigned i = 1; i < TEXTS_MOST; i++)
        if (texts[i].data)
            put(blobs, texts[i].digest, &texts[i]);
    look(folder);
    unlinkat(folder, "index.json", 0);
    for (unsigned i = 0; i < TEXTS_MOST; i++) {
        if (i && texts[i].data)
            unlinkat(blobs, texts[i].digest, 0);
        free(texts[i].data);
    }
    unlinkat(folder, "blobs/sha256", AT_REMOVEDIR);
    unlinkat(folder, "blobs", AT_REMOVEDIR);
    rmdir(path);
    close(blobs);
    close(folder);
    return 0;
}
