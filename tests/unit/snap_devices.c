/*
 * Devices of a machine that is being loaded: they do not serve requests before it is started, and
 * serve them afterwards.
 */
#include "test.h"

#include "cpu/engines.h"
#include "dev/virtio/rng.h"
#include "vm/snap/snap.h"
#include "vm/vm_private.h"

#include "virtio_rig.h"

#define RINGS 0x100000u
#define DATA  0x200000u
#define SIZE  8u

static const char *const devices[] = {"rng,slot=5", NULL}; /* VRIG_SLOT */
/* The guest sleeps for ever. */
static int load_guest(void *opaque, struct mem *mem, struct x86_cpu *cpu, struct error *err)
{
    static const uint8_t code[] = {0xFA, 0xF4, 0xEB, 0xFC}; /* cli; hlt; jmp */

    cpu->seg[X86_CS].selector = 0;
    cpu->seg[X86_CS].base = 0;
    cpu->reg[X86_RIP] = 0x1000;
    return mem_write(mem, 0x1000, code, sizeof(code));
}

static const struct vm_config config = {
    .cpus = 1, .memory = 4 * MiB, .load = load_guest, .devices.list = devices};

/* The pool of the machine that was made last. */
static struct workers *pool;

struct workers *__real_workers_create(const char *name, unsigned threads, struct error *err);
struct workers *__wrap_workers_create(const char *name, unsigned threads, struct error *err);

struct workers *__wrap_workers_create(const char *name, unsigned threads, struct error *err)
{
    pool = __real_workers_create(name, threads, err);
    return pool;
}

/* A driver for the device of VM. */
static struct vrig driver_of(struct vm *vm, struct rig *rig)
{
    *rig = (struct rig){.bus = vm->machine.bus, .clock = vm->machine.clock};
    return (struct vrig){.rig = rig, .mem = vm->machine.mem};
}

/* Puts a request for 16 bytes into the queue. */
static void request(struct vrig *v, unsigned n)
{
    rig_descriptor(&v->queue, n, DATA + 0x1000 * n, 16, RIG_WRITE, 0);
    rig_publish_shared(&v->queue, (uint16_t)n);
}

/* A file, of which the reader knows where RAM begins. */
struct source {
    struct state_image image;
    size_t ram;
};

/* Before RAM is read, each work that a device has posted until then is done: those that are paused
 * are not. */
static ssize_t read_source(void *opaque, void *data, size_t size, struct error *err)
{
    struct source *source = opaque;

    if (source->image.at == source->ram)
        workers_drain(pool);
    return image_read(&source->image, data, size, err);
}

static size_t find_ram(const struct state_image *image)
{
    size_t at = IMAGE_HEADER;

    while (strcmp((const char *)image->data + at, "ram") != 0)
        at = image_next(image, at);
    return at;
}

/* A request has been served and another one waits in the queue when the machine is saved. A device
 * that looked at the queue before RAM is loaded would find it empty, and so believe that the driver
 * has broken a rule. And a machine that is loaded may never be started. */
static void test_served_afterwards(void **unused)
{
    struct vm *vm = vm_create(&interp_engine, &config, NULL);
    struct source source = {0};
    struct state_reader reader = {.read = read_source, .opaque = &source};
    struct state_writer writer = image_writer(&source.image);
    uint32_t head, written;
    struct error err = {0};
    struct rig rig;
    struct vrig v;

    assert_non_null(vm);
    v = driver_of(vm, &rig);
    vrig_start(&v, rig_layout(RINGS, SIZE), VRIG_FEATURES);
    request(&v, 0);
    vrig_notify(&v);
    workers_drain(pool);
    assert_true(rig_reap(&v.queue, &head, &written));
    request(&v, 1);
    assert_int_equal(vm_save(vm, "a test", &writer, &err), 0);
    vm_destroy(vm);

    source.ram = find_ram(&source.image);
    vm = vm_load(&interp_engine, &config, &reader, &err);
    if (!vm)
        fail_msg("%s", err.text);
    assert_int_equal(source.image.at, source.image.size);
    v.rig->bus = vm->machine.bus;
    v.mem = v.queue.mem = vm->machine.mem;
    workers_drain(pool);
    assert_int_equal(vrig_status(&v), 15);
    assert_false(rig_reap(&v.queue, &head, &written));
    assert_int_equal(vm_start(vm, NULL), 0);
    workers_drain(pool);
    assert_true(rig_reap(&v.queue, &head, &written));
    assert_int_equal(head, 1);
    assert_int_equal(written, 16);
    vm_destroy(vm);
    image_free(&source.image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_served_afterwards)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
