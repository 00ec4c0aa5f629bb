/*
 * OCI image layouts. Their JSON is read by libyaml, for which it is YAML as well.
 */
#include "image/oci.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <yaml.h>

#define FILE_MOST  (4 << 20)
#define DEPTH_MOST 4  /* of indexes that lead to indexes */
#define NEST_MOST  32 /* of brackets: libyaml takes a time that grows with their square */

struct file {
    yaml_document_t document;
    const char *name; /* for messages */
};

/* ---- Files ---- */

static char *read_file(int folder, const char *path, size_t *size, struct error *err)
{
    int fd = openat(folder, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    char *text = malloc(FILE_MOST + 1);
    ssize_t n = 0;

    *size = 0;
    if (fd < 0 || !text)
        error_set(err, fd < 0 ? errno : ENOMEM, "cannot open %s: %s", path, strerror(errno));
    while (fd >= 0 && text && *size <= FILE_MOST &&
           (n = read(fd, text + *size, FILE_MOST + 1 - *size)) > 0)
        *size += (size_t)n;
    if (fd >= 0 && text && (n < 0 || *size > FILE_MOST))
        error_set(err, n < 0 ? errno : EFBIG, "cannot read %s: %s", path,
                  n < 0 ? strerror(errno) : "it is too large");
    else if (fd >= 0 && text)
        err->code = 0;
    if (fd >= 0)
        close(fd);
    if (!err->code)
        return text;
    free(text);
    return NULL;
}

/* Makes TEXT good YAML as well. Returns false if its brackets are nested too deeply. */
static bool prepare(char *text, size_t size)
{
    unsigned depth = 0;
    bool quoted = false;

    for (size_t i = 0; i < size; i++) {
        if (text[i] == '\t') /* a blank in JSON, and none in YAML */
            text[i] = ' ';
        if (text[i] == '"')
            quoted = !quoted;
        else if (text[i] == '\\' && quoted)
            i++;
        else if (!quoted && (text[i] == '[' || text[i] == '{') && ++depth > NEST_MOST)
            return false;
        else if (!quoted && (text[i] == ']' || text[i] == '}') && depth)
            depth--;
    }
    return true;
}

static int file_open(struct file *file, int folder, const char *path, struct error *err)
{
    yaml_parser_t parser;
    size_t size;
    char *text;
    int good = 0;

    *err = (struct error){0};
    text = read_file(folder, path, &size, err);
    if (!text)
        return -err->code;
    file->name = path;
    if (prepare(text, size) && yaml_parser_initialize(&parser)) {
        yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
        good = yaml_parser_load(&parser, &file->document);
        yaml_parser_delete(&parser);
    }
    free(text);
    return good ? 0 : error_set(err, EINVAL, "%s is not good JSON", path);
}

/* ---- What is in them ---- */

static yaml_node_t *member(struct file *file, yaml_node_t *node, const char *name)
{
    if (!node || node->type != YAML_MAPPING_NODE)
        return NULL;
    for (yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         pair < node->data.mapping.pairs.top; pair++) {
        yaml_node_t *key = yaml_document_get_node(&file->document, pair->key);

        if (key && key->type == YAML_SCALAR_NODE && !strcmp((char *)key->data.scalar.value, name))
            return yaml_document_get_node(&file->document, pair->value);
    }
    return NULL;
}

static const char *text_of(struct file *file, yaml_node_t *node, const char *name)
{
    yaml_node_t *found = member(file, node, name);

    return found && found->type == YAML_SCALAR_NODE ? (const char *)found->data.scalar.value : NULL;
}

static yaml_node_t *element(struct file *file, yaml_node_t *list, unsigned n)
{
    if (!list || list->type != YAML_SEQUENCE_NODE ||
        n >= (size_t)(list->data.sequence.items.top - list->data.sequence.items.start))
        return NULL;
    return yaml_document_get_node(&file->document, list->data.sequence.items.start[n]);
}

/* The name in blobs/ of what a descriptor leads to. */
static int blob_of(struct file *file, yaml_node_t *descriptor, char name[OCI_NAME_MOST],
                   struct error *err)
{
    const char *digest = text_of(file, descriptor, "digest");

    if (!digest || strncmp(digest, "sha256:", 7) != 0 || strlen(digest) != 7 + 64 ||
        strspn(digest + 7, "0123456789abcdef") != 64)
        return error_set(err, EINVAL, "%s: a digest is none of sha256", file->name);
    snprintf(name, OCI_NAME_MOST, "sha256/%s", digest + 7);
    return 0;
}

/* Whether it is for this machine, as far as it says. */
static bool is_ours(struct file *file, yaml_node_t *descriptor)
{
    yaml_node_t *platform = member(file, descriptor, "platform");
    const char *os = text_of(file, platform, "os");
    const char *machine = text_of(file, platform, "architecture");

    return (!os || !strcmp(os, "linux")) && (!machine || !strcmp(machine, "amd64"));
}

static int read_layers(struct file *file, yaml_node_t *layers, struct oci *oci, struct error *err)
{
    yaml_node_t *layer;

    for (unsigned i = 0; (layer = element(file, layers, i)); i++) {
        int result;

        if (oci->count == OCI_LAYERS_MOST)
            return error_set(err, EINVAL, "%s: more than %d layers", file->name, OCI_LAYERS_MOST);
        result = blob_of(file, layer, oci->layer[oci->count++], err);
        if (result)
            return result;
    }
    return oci->count ? 0 : error_set(err, EINVAL, "%s: an image without layers", file->name);
}

/* Sets BLOB to the first image that an index names for this machine. */
static int choose(struct file *file, yaml_node_t *manifests, char blob[OCI_NAME_MOST],
                  struct error *err)
{
    yaml_node_t *descriptor;

    for (unsigned i = 0; (descriptor = element(file, manifests, i)); i++)
        if (is_ours(file, descriptor))
            return blob_of(file, descriptor, blob, err);
    return error_set(err, ENOENT, "%s: there is no image for Linux on amd64", file->name);
}

int oci_read(int fd, const char *folder, struct oci *oci, struct error *err)
{
    char path[OCI_NAME_MOST + 8] = "index.json", blob[OCI_NAME_MOST];
    struct error inner = {0};
    int result = -EINVAL;

    *oci = (struct oci){0};
    for (unsigned depth = 0; depth < DEPTH_MOST; depth++) {
        struct file file;
        yaml_node_t *root, *layers;

        result = file_open(&file, fd, path, &inner);
        if (result)
            break;
        root = yaml_document_get_root_node(&file.document);
        layers = member(&file, root, "layers");
        result = layers ? read_layers(&file, layers, oci, &inner)
                        : choose(&file, member(&file, root, "manifests"), blob, &inner);
        yaml_document_delete(&file.document);
        if (result || layers)
            break;
        snprintf(path, sizeof(path), "blobs/%s", blob);
        result = error_set(&inner, EINVAL, "its indexes lead to indexes");
    }
    return result ? error_set(err, inner.code, "%s: %.400s", folder, inner.text) : 0;
}
