/*
 * Where a thread of this process is.
 *
 * The stack is not unwound, for which code without frame pointers needs tables, allocation and
 * locks: it is searched for return addresses, words that lie behind a call instruction of the
 * program. A word left over from an earlier call may be among them.
 */
#include "base/where.h"

#include "base/signals.h"
#include "base/util.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define MOST_NAMES 12

/* In si_errno, which the kernel hands on as it is: tells a question from what others may send. */
#define MARK 0x3F3F3F3F

_Static_assert(WHERE_SIGNAL == SIGSTKFLT, "the header does without <signal.h>");

/* ---- The thread's side ---- */

/* In the signal's handler. OPAQUE is the thread's own struct where, or NULL: what was asked was a
 * thread that had this one's number before. */
SIGNALS_SAFE static bool answer(void *opaque, const siginfo_t *info, const ucontext_t *context)
{
    const greg_t *gregs = context->uc_mcontext.gregs;
    uintptr_t at = ALIGN_UP((uintptr_t)gregs[REG_RSP], sizeof(uintptr_t));
    struct where *where = opaque;

    if (info->si_code != SI_QUEUE || info->si_errno != MARK)
        return false;
    if (!where || atomic_load(&where->turn) != WHERE_ASKED)
        return true;
    where->counter = (uintptr_t)gregs[REG_RIP];
    where->words = 0;
    if (at >= where->stack_start)
        for (; at < where->stack_end && where->words < WHERE_WORDS; at += sizeof(uintptr_t))
            where->word[where->words++] = *(const volatile uintptr_t *)at;
    atomic_store(&where->turn, WHERE_ANSWERED);
    return true;
}

static void change_mask(int how)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, WHERE_SIGNAL);
    pthread_sigmask(how, &set, NULL);
}

void where_begin(struct where *where)
{
    pthread_attr_t attr;
    void *start = NULL;
    size_t size = 0;

    if (pthread_getattr_np(pthread_self(), &attr) == 0) {
        pthread_attr_getstack(&attr, &start, &size);
        pthread_attr_destroy(&attr);
    }
    where->stack_start = (uintptr_t)start;
    where->stack_end = (uintptr_t)start + size;
    if (signals_add_question(answer, where, NULL) < 0)
        return;
    change_mask(SIG_UNBLOCK);
    atomic_store(&where->thread, (int)syscall(SYS_gettid));
}

void where_end(struct where *where)
{
    if (!atomic_exchange(&where->thread, 0))
        return;
    /* A question that comes later is never answered, and is gone when the thread is. */
    change_mask(SIG_BLOCK);
    signals_remove_question();
}

/* ---- The other side ---- */

bool where_ask(struct where *where)
{
    int thread = atomic_load(&where->thread);
    siginfo_t info = {
        .si_signo = WHERE_SIGNAL, .si_errno = MARK, .si_code = SI_QUEUE, .si_pid = getpid()};

    atomic_store(&where->turn, thread ? WHERE_ASKED : WHERE_UNASKED);
    return thread && syscall(SYS_rt_tgsigqueueinfo, getpid(), thread, WHERE_SIGNAL, &info) == 0;
}

bool where_has_answered(const struct where *where)
{
    return atomic_load(&where->turn) == WHERE_ANSWERED;
}

/* An object that is loaded, by the file it comes from: only there is the table of all symbols. */
struct object {
    uintptr_t base;
    const uint8_t *file;
    size_t size;
    const Elf64_Sym *symbols;
    size_t count;
    const char *names;
    size_t names_size;
};

/* SIZE bytes at OFFSET of the file, or NULL. */
static const void *part(const struct object *object, uint64_t offset, uint64_t size)
{
    return offset <= object->size && size <= object->size - offset ? object->file + offset : NULL;
}

static void find_symbols(struct object *object)
{
    const Elf64_Ehdr *header = part(object, 0, sizeof(*header));
    const Elf64_Shdr *sections =
        header ? part(object, header->e_shoff, header->e_shnum * sizeof(*sections)) : NULL;

    for (unsigned i = 0; sections && i < header->e_shnum; i++) {
        const Elf64_Shdr *table = &sections[i], *names;

        if (table->sh_type != SHT_SYMTAB || table->sh_link >= header->e_shnum)
            continue;
        names = &sections[table->sh_link];
        object->symbols = part(object, table->sh_offset, table->sh_size);
        object->names = part(object, names->sh_offset, names->sh_size);
        object->names_size = names->sh_size;
        object->count = object->symbols && object->names ? table->sh_size / sizeof(Elf64_Sym) : 0;
    }
}

/* The program itself. Left as zero when its file cannot be read. */
static void open_program(struct object *object)
{
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    void *file = MAP_FAILED;
    struct stat st;

    *object = (struct object){.base = getauxval(AT_PHDR) - sizeof(Elf64_Ehdr)};
    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0)
        file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (file == MAP_FAILED)
        return;
    object->file = file;
    object->size = (size_t)st.st_size;
    find_symbols(object);
}

static void close_program(struct object *object)
{
    if (object->file)
        munmap((void *)(uintptr_t)object->file, object->size);
}

/* Whether ADDRESS lies in the program's code, by the headers that are loaded with it. */
static bool in_code(const struct object *object, uintptr_t address)
{
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)object->base;
    const Elf64_Phdr *segment = (const Elf64_Phdr *)(object->base + header->e_phoff);
    uintptr_t offset = header->e_type == ET_DYN ? address - object->base : address;

    for (unsigned i = 0; i < header->e_phnum; i++)
        if (segment[i].p_type == PT_LOAD && segment[i].p_flags & PF_X &&
            offset >= segment[i].p_vaddr && offset - segment[i].p_vaddr < segment[i].p_memsz)
            return true;
    return false;
}

/* Whether the instruction before ADDRESS is a call: CALL rel32, or CALL r/m64 in its lengths. */
static bool follows_call(const struct object *object, uintptr_t address)
{
    const uint8_t *code = (const uint8_t *)address;

    if (!in_code(object, address) || !in_code(object, address - 7))
        return false;
    if (code[-5] == 0xE8)
        return true;
    for (unsigned length = 2; length <= 7; length++)
        if (code[-(int)length] == 0xFF && (code[1 - (int)length] & 0x38) == 0x10)
            return true;
    return false;
}

static const char *symbol_at(const struct object *object, uintptr_t address)
{
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)object->base;
    uintptr_t value = header->e_type == ET_DYN ? address - object->base : address;

    for (size_t i = 0; i < object->count; i++) {
        const Elf64_Sym *symbol = &object->symbols[i];

        if (ELF64_ST_TYPE(symbol->st_info) == STT_FUNC && value >= symbol->st_value &&
            value - symbol->st_value < symbol->st_size && symbol->st_name < object->names_size)
            return object->names + symbol->st_name;
    }
    return NULL;
}

/* The function at ADDRESS by name, else by its offset in its file. */
static void name_at(const struct object *object, uintptr_t address, char name[64])
{
    const char *symbol = NULL, *slash;
    Dl_info info = {0};

    if (in_code(object, address))
        symbol = symbol_at(object, address);
    if (!symbol && !dladdr((void *)address, &info)) {
        snprintf(name, 64, "generated code");
        return;
    }
    if (!symbol)
        symbol = info.dli_sname;
    if (symbol) {
        snprintf(name, 64, "%s", symbol);
        return;
    }
    slash = strrchr(info.dli_fname, '/');
    snprintf(name, 64, "%s+%#lx", slash ? slash + 1 : info.dli_fname,
             address - (uintptr_t)info.dli_fbase);
}

void where_describe(const struct where *where, char *text, size_t size)
{
    char last[64] = "", name[64];
    struct object program;
    size_t length;

    open_program(&program);
    name_at(&program, where->counter, last);
    length = (size_t)snprintf(text, size, "%s", last);
    for (unsigned i = 0, names = 1; i < where->words && names < MOST_NAMES; i++) {
        if (!follows_call(&program, where->word[i]))
            continue;
        /* The call itself: behind it another function may begin. */
        name_at(&program, where->word[i] - 1, name);
        if (strcmp(name, last) == 0 || length >= size)
            continue;
        length += (size_t)snprintf(text + length, size - length, " < %s", name);
        memcpy(last, name, sizeof(last));
        names++;
    }
    close_program(&program);
}
