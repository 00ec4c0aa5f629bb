/*
 * OCI image layouts. Their JSON is read by libjansson.
 */
#include "image/oci.h"

#include "base/regular.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MOST  (4 << 20) /* bytes of JSON, as registries take it */
#define DEPTH_MOST 4         /* of indexes that lead to indexes */
#define INDEX      "index.json"

/* ---- Files ---- */

static int open_failed(const char *name, int code, struct error *err)
{
    const char *why = code == ELOOP || code == ENOTDIR ? "links are not followed"
                      : code == EINVAL                 ? "it is not a regular file"
                                                       : strerror(code);

    return error_set(err, code, "cannot open %s: %s", name, why);
}

static int open_folder(int at, const char *name, struct error *err)
{
    int fd = openat(at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    return fd < 0 ? open_failed(name, errno, err) : fd;
}

static int open_regular(int at, const char *name, struct error *err)
{
    int fd = regular_open(at, name, O_NOFOLLOW);

    return fd < 0 ? open_failed(name, -fd, err) : fd;
}

static int open_blob(int folder, const struct oci_blob *blob, struct error *err)
{
    int fd, sha256, blobs = open_folder(folder, "blobs", err);

    if (blobs < 0)
        return blobs;
    sha256 = open_folder(blobs, "sha256", err);
    close(blobs);
    if (sha256 < 0)
        return sha256;
    fd = open_regular(sha256, blob->digest, err);
    close(sha256);
    return fd;
}

static int check_blob(const struct oci_blob *blob, const char digest[DIGEST_TEXT], uint64_t size,
                      struct error *err)
{
    if (size != blob->size)
        return error_set(err, EINVAL, "%s has %llu bytes, and not %llu: it is damaged",
                         blob->digest, (unsigned long long)size, (unsigned long long)blob->size);
    if (strcmp(digest, blob->digest) != 0)
        return error_set(err, EINVAL, "%s has another digest: it is damaged", blob->digest);
    return 0;
}

/* Reads all of FD into memory that the caller frees. */
static char *read_text(int fd, const char *name, size_t *size, struct error *err)
{
    char *text = malloc(FILE_MOST + 1);
    ssize_t n = 1;

    *size = 0;
    while (text && n > 0 && *size <= FILE_MOST) {
        n = read(fd, text + *size, FILE_MOST + 1 - *size);
        *size += n > 0 ? (size_t)n : 0;
    }
    if (text && n >= 0 && *size <= FILE_MOST)
        return text;
    if (!text)
        error_set(err, ENOMEM, "out of memory");
    else if (n < 0)
        error_set(err, errno, "cannot read %s: %s", name, strerror(errno));
    else
        error_set(err, EFBIG, "%s is too large", name);
    free(text);
    return NULL;
}

/* Reads the JSON of BLOB, or the index (NULL). The caller gives it back. */
static json_t *load(int folder, const struct oci_blob *blob, struct error *err)
{
    const char *name = blob ? blob->digest : INDEX;
    int fd = blob ? open_blob(folder, blob, err) : open_regular(folder, INDEX, err);
    char *text, digest[DIGEST_TEXT];
    json_t *json = NULL;
    json_error_t why;
    size_t size;

    if (fd == -ENOENT && !blob)
        error_set(err, ENOENT, "it is no OCI layout: it has no " INDEX);
    if (fd < 0)
        return NULL;
    text = read_text(fd, name, &size, err);
    close(fd);
    if (!text)
        return NULL;
    digest_of(text, size, digest);
    if (!blob || !check_blob(blob, digest, size, err)) {
        json = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);
        if (!json)
            error_set(err, EINVAL, "%s is not good JSON: line %d: %.200s", name, why.line,
                      why.text);
    }
    free(text);
    return json;
}

/* ---- What is in them ---- */

/* Reads a descriptor of NAME's. */
static int read_blob(const json_t *descriptor, const char *name, struct oci_blob *blob,
                     struct error *err)
{
    const char *digest = json_string_value(json_object_get(descriptor, "digest"));
    const json_t *size = json_object_get(descriptor, "size");

    if (!digest || strncmp(digest, "sha256:", 7) != 0 || strlen(digest + 7) != DIGEST_TEXT - 1 ||
        strspn(digest + 7, "0123456789abcdef") != DIGEST_TEXT - 1)
        return error_set(err, EINVAL, "%s: a digest is none of sha256", name);
    if (!json_is_integer(size) || json_integer_value(size) < 0)
        return error_set(err, EINVAL, "%s: a descriptor has no size", name);
    snprintf(blob->digest, sizeof(blob->digest), "%s", digest + 7);
    blob->size = (uint64_t)json_integer_value(size);
    return 0;
}

/* Whether it is for this machine, as far as it says. */
static bool is_ours(const json_t *descriptor)
{
    const json_t *platform = json_object_get(descriptor, "platform");
    const char *os = json_string_value(json_object_get(platform, "os"));
    const char *machine = json_string_value(json_object_get(platform, "architecture"));

    return (!os || !strcmp(os, "linux")) && (!machine || !strcmp(machine, "amd64"));
}

static int read_layers(const json_t *layers, const char *name, struct oci *oci, struct error *err)
{
    size_t count = json_array_size(layers);
    int result = 0;

    if (!count)
        return error_set(err, EINVAL, "%s: an image without layers", name);
    if (count > OCI_LAYERS_MOST)
        return error_set(err, EINVAL, "%s: more than %d layers", name, OCI_LAYERS_MOST);
    while (!result && oci->count < count) {
        result = read_blob(json_array_get(layers, oci->count), name, &oci->layer[oci->count], err);
        oci->count++;
    }
    return result;
}

/* Sets BLOB to the first image that an index names for this machine. */
static int choose(const json_t *manifests, const char *name, struct oci_blob *blob,
                  struct error *err)
{
    for (size_t i = 0; i < json_array_size(manifests); i++)
        if (is_ours(json_array_get(manifests, i)))
            return read_blob(json_array_get(manifests, i), name, blob, err);
    return error_set(err, ENOENT, "%s: there is no image for Linux on amd64", name);
}

int oci_read(int fd, const char *folder, struct oci *oci, struct error *err)
{
    struct oci_blob blob, *from = NULL;
    struct error inner = {0};
    bool done = false;
    int result = 0;

    *oci = (struct oci){0};
    for (unsigned depth = 0; !result && !done; depth++) {
        const char *name = from ? blob.digest : INDEX;
        json_t *json = depth < DEPTH_MOST ? load(fd, from, &inner) : NULL;
        const json_t *layers = json_object_get(json, "layers");

        if (depth == DEPTH_MOST)
            result = error_set(&inner, EINVAL, "its indexes lead to indexes");
        else if (!json)
            result = -inner.code;
        else if (layers)
            result = read_layers(layers, name, oci, &inner);
        else
            result = choose(json_object_get(json, "manifests"), name, &blob, &inner);
        done = layers;
        from = &blob;
        json_decref(json);
    }
    return result ? error_set(err, inner.code, "%s: %.400s", folder, inner.text) : 0;
}

int oci_open(int fd, const char *folder, const struct oci_blob *blob, bool (*tick)(void *opaque),
             void *opaque, struct error *err)
{
    char digest[DIGEST_TEXT];
    struct error inner = {0};
    int file = open_blob(fd, blob, &inner), result = file < 0 ? file : 0;
    struct stat st;
    uint64_t size;

    /* What has another size is not read. */
    if (!result && fstat(file, &st) == 0 && (uint64_t)st.st_size != blob->size)
        result = check_blob(blob, blob->digest, (uint64_t)st.st_size, &inner);
    if (!result)
        result = digest_of_file(file, blob->digest, tick, opaque, digest, &size, &inner);
    if (!result)
        result = check_blob(blob, digest, size, &inner);
    if (!result)
        return file;
    if (file >= 0)
        close(file);
    return error_set(err, inner.code, "%s: %.400s", folder, inner.text);
}
