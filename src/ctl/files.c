/*
 * The files that a machine boots from.
 */
#include "ctl/files.h"

#include "base/util.h"
#include "vm/acpi.h"
#include "vm/boot/boot.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_LIMIT (2 * GiB)

struct blob {
    uint8_t *data;
    size_t size;
};

struct file {
    const char *what;
    char *name;
    int fd;
    bool once;           /* a pipe or the like, which can be read but once: */
    struct blob content; /* it is kept */
};

struct boot_files {
    struct file kernel, initrd; /* no initrd: fd is -1 */
    struct blob extra;          /* goes behind the initrd */
    char *command_line;
    bool kaslr, no_host_decompress;
    void (*progress)(void *opaque, const char *what, int percent);
    void *progress_opaque;
};

/* ---- One file ---- */

/* Reads all of FD, whose size is about HINT. */
static int read_all(int fd, size_t hint, const char *path, struct blob *blob, struct error *err)
{
    size_t capacity = blob->size + hint + 1; /* so that the end shows without growing */
    uint8_t *data = realloc(blob->data, capacity);

    while (data) {
        blob->data = data;
        if (blob->size == capacity) {
            capacity *= 2;
            data = realloc(blob->data, capacity);
            continue;
        }
        ssize_t n = read(fd, data + blob->size, capacity - blob->size);
        if (n == 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return error_set(err, errno, "%s: cannot read: %s", path, strerror(errno));
        blob->size += n > 0 ? (size_t)n : 0;
        if (blob->size > FILE_LIMIT)
            return error_set(err, EFBIG, "%s: larger than 2 GiB", path);
    }
    return error_set(err, ENOMEM, "%s: no memory to read it into", path);
}

static int file_open(struct file *file, const char *path, struct error *err)
{
    struct stat st;

    file->name = strdup(path);
    if (!file->name)
        return error_set(err, ENOMEM, "no memory for the configuration");
    file->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (file->fd < 0)
        return error_set(err, errno, "%s: cannot open the %s: %s", path, file->what,
                         strerror(errno));
    if (fstat(file->fd, &st) < 0)
        return error_set(err, errno, "%s: %s", path, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return error_set(err, EISDIR, "%s: is a directory, not the %s", path, file->what);
    if ((uint64_t)st.st_size > FILE_LIMIT)
        return error_set(err, EFBIG, "%s: larger than 2 GiB, so hardly the %s", path, file->what);
    file->once = !S_ISREG(st.st_mode);
    return file->once ? read_all(file->fd, 0, path, &file->content, err) : 0;
}

static void file_close(struct file *file)
{
    if (file->fd >= 0)
        close(file->fd);
    free(file->content.data);
    free(file->name);
}

/* What it holds now; to be given back. */
static int file_read(const struct file *file, struct blob *blob, struct error *err)
{
    struct stat st;
    int ret = 0;

    *blob = file->content;
    if (!file->once) {
        if (fstat(file->fd, &st) < 0 || lseek(file->fd, 0, SEEK_SET) < 0)
            return error_set(err, errno, "%s: %s", file->name, strerror(errno));
        ret = read_all(file->fd, (size_t)st.st_size, file->name, blob, err);
    }
    if (ret == 0 && blob->size == 0)
        ret = error_set(err, EINVAL, "%s: the %s is empty", file->name, file->what);
    return ret;
}

static void file_give_back(const struct file *file, struct blob *blob)
{
    if (blob->data != file->content.data)
        free(blob->data);
}

/* ---- All of them ---- */

static int copy_config(struct boot_files *files, const struct doppel_config *config,
                       struct error *err)
{
    files->kaslr = !config->no_kaslr;
    files->no_host_decompress = config->no_host_decompress;
    files->progress = config->progress;
    files->progress_opaque = config->progress_opaque;
    files->command_line = strdup(config->command_line ? config->command_line : "");
    files->extra.size = config->initrd_extra_size;
    files->extra.data = malloc(config->initrd_extra_size + 1);
    if (!files->command_line || !files->extra.data)
        return error_set(err, ENOMEM, "no memory for the configuration");
    if (config->initrd_extra_size)
        memcpy(files->extra.data, config->initrd_extra, config->initrd_extra_size);
    return 0;
}

struct boot_files *boot_files_open(const struct doppel_config *config, struct error *err)
{
    struct boot_files *files = calloc(1, sizeof(*files));

    if (!files) {
        error_set(err, ENOMEM, "no memory for the configuration");
        return NULL;
    }
    files->kernel = (struct file){.what = "kernel", .fd = -1};
    files->initrd = (struct file){.what = "initrd", .fd = -1};
    if (file_open(&files->kernel, config->kernel, err) < 0 ||
        (config->initrd && file_open(&files->initrd, config->initrd, err) < 0) ||
        copy_config(files, config, err) < 0) {
        boot_files_close(files);
        return NULL;
    }
    return files;
}

void boot_files_close(struct boot_files *files)
{
    if (!files)
        return;
    file_close(&files->kernel);
    file_close(&files->initrd);
    free(files->extra.data);
    free(files->command_line);
    free(files);
}

void boot_files_quiet(struct boot_files *files)
{
    files->progress = NULL;
}

/* The initrd with what goes behind it, in memory of its own. */
static int read_initrd(const struct boot_files *files, struct blob *initrd, struct error *err)
{
    struct blob first = {0};
    size_t start;
    int ret = 0;

    if (files->initrd.fd >= 0)
        ret = file_read(&files->initrd, &first, err);
    if (ret == 0) {
        start = ALIGN_UP(first.size, 4); /* archives begin on multiples of four bytes */
        initrd->size = files->extra.size ? start + files->extra.size : first.size;
        initrd->data = calloc(1, initrd->size + 1);
        if (!initrd->data) {
            ret = error_set(err, ENOMEM, "no memory for the initrd");
        } else {
            memcpy(initrd->data, first.data ? first.data : initrd->data, first.size);
            memcpy(initrd->data + initrd->size - files->extra.size, files->extra.data,
                   files->extra.size);
        }
    }
    file_give_back(&files->initrd, &first);
    return ret;
}

static uint64_t random_seed(void)
{
    uint64_t seed = 0;

    /* Without randomness the kernel is loaded where it was linked: it still boots. */
    if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) != sizeof(seed))
        return 0;
    return seed | 1;
}

static int load(const struct boot_files *files, const struct blob *kernel,
                const struct blob *initrd, struct mem *mem, struct x86_cpu *cpu, struct error *err)
{
    struct boot_source source = {
        .kernel = kernel->data,
        .kernel_size = kernel->size,
        .kernel_name = files->kernel.name,
        .initrd = initrd->size ? initrd->data : NULL,
        .initrd_size = initrd->size,
        .initrd_name = files->initrd.name ? files->initrd.name : "initrd",
        .command_line = files->command_line,
        .rsdp = ACPI_RSDP_ADDRESS,
        .mem = mem,
        .kaslr_seed = files->kaslr ? random_seed() : 0,
        .no_host_decompress = files->no_host_decompress,
        .progress = files->progress,
        .progress_opaque = files->progress_opaque,
    };
    struct boot_image *image = boot_prepare(&source, err);
    int ret = image ? boot_load(image, mem, cpu, err) : -err->code;

    boot_free(image);
    return ret;
}

int boot_files_load(void *opaque, struct mem *mem, struct x86_cpu *cpu, struct error *err)
{
    const struct boot_files *files = opaque;
    struct blob kernel = {0}, initrd = {0};
    int ret = file_read(&files->kernel, &kernel, err);

    if (ret == 0)
        ret = read_initrd(files, &initrd, err);
    if (ret == 0)
        ret = load(files, &kernel, &initrd, mem, cpu, err);
    file_give_back(&files->kernel, &kernel);
    free(initrd.data);
    malloc_trim(0); /* else the C library keeps what was freed for next time */
    return ret;
}
