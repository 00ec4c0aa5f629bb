/*
 * The guest of the lockstep test: programs as compilers make them, one after another, with a HLT at
 * every point where the two machines are compared. Everything is deterministic.
 *
 * It is linked at 10000h and runs with 4 KiB pages mapped one to one (interp_rig.h): in 64-bit
 * mode, or built for it in 32-bit mode with PAE. FS has an address within HEAP for its base.
 */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned long word; /* as wide as a register */

#define TABLE    ((volatile u64 *)0x4000) /* of the first 2 MiB; see interp_rig.c */
#define HEAP     ((u8 *)0x80000)
#define HEAP_END ((u8 *)0xF0000)
#define PAGE     4096
#define PTE_P    1

/* Descriptor tables as interp_rig.h has them. */
#ifdef __x86_64__
#define IDT  0x9000UL
#define CODE 0x08UL
#define IRET "iretq"
#else
#define IDT  0xA000UL
#define CODE 0x18UL
#define IRET "iret"
#endif

/* Both machines stop here; RAX says where, 0: at the end. */
static void compare(word where)
{
    __asm__ volatile("cli; hlt; sti" : : "a"(where) : "memory");
}

static u32 random_state = 1;

static u32 random_next(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    return random_state ^= random_state << 5;
}

void *memset(void *to, int value, word size);
void *memcpy(void *to, const void *from, word size);

void *memset(void *to, int value, word size)
{
    void *at = to;

    __asm__ volatile("rep stosb" : "+D"(at), "+c"(size) : "a"(value) : "memory");
    return to;
}

void *memcpy(void *to, const void *from, word size)
{
    u8 *d = to;
    const u8 *s = from;

    while (size--)
        *d++ = *s++;
    return to;
}

/* --- Integers, branches, calls --- */

static int less(const u32 *a, const u32 *b)
{
    return *a < *b;
}

static int greater(const u32 *a, const u32 *b)
{
    return *a > *b;
}

static void sort(u32 *a, long from, long to, int (*before)(const u32 *, const u32 *))
{
    while (from < to) {
        long i = from, j = to;
        u32 pivot = a[(from + to) / 2];

        while (i <= j) {
            while (before(&a[i], &pivot))
                i++;
            while (before(&pivot, &a[j]))
                j--;
            if (i <= j) {
                u32 t = a[i];
                a[i++] = a[j];
                a[j--] = t;
            }
        }
        sort(a, from, j, before);
        from = i;
    }
}

static word ackermann(word m, word n)
{
    return !m ? n + 1 : !n ? ackermann(m - 1, 1) : ackermann(m - 1, ackermann(m, n - 1));
}

static u64 crc(const u8 *bytes, word size)
{
    u64 value = ~0ULL;

    for (word i = 0; i < size; i++) {
        value ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            value = value >> 1 ^ (value & 1 ? 0xC96C5795D7870F42 : 0);
    }
    return value;
}

/* The upper half of a product. */
static word high(word a, word b)
{
#ifdef __x86_64__
    return (word)((unsigned __int128)a * b >> 64);
#else
    return (word)((u64)a * b >> 32);
#endif
}

static u64 divide_all(void)
{
    u64 sum = 0;

    for (int i = 0; i < 2000; i++) {
        word a = (word)((u64)random_next() << 32 | random_next());
        word b = random_next() >> random_next() % 31;
        long c = (long)a, d = (int)random_next() >> random_next() % 31;

        sum += b ? a / b ^ a % b : 1;
        sum = sum << 7 | sum >> 57;
        sum -= d && d != -1 ? (word)(c / d ^ c % d) : 3;
        sum += high(a, b);
    }
    return sum;
}

/* By FS, on both sides of its base. */
static word relative(void)
{
    word sum = 0;

    for (long i = -200; i < 200; i++) {
        word value;

        __asm__ volatile("add %%fs:(%2), %1; mov %1, %%fs:-4(%2,%2); mov %%fs:64, %0"
                         : "=&r"(value), "+r"(sum)
                         : "r"(i * (long)sizeof(word))
                         : "memory");
        sum += value;
    }
    return sum;
}

/* A machine of its own, interpreted: indirect jumps. */
static u64 interpret(const u8 *program, u32 steps)
{
    static const void *const op[] = {&&add, &&sub, &&mul, &&shift, &&swap, &&flip, &&jump, &&load};
    u64 a = 1, b = 2;
    u32 at = 0;

#define NEXT                                                                                       \
    do {                                                                                           \
        if (!steps--)                                                                              \
            return a ^ b;                                                                          \
        goto *op[program[at++ & 1023] & 7];                                                        \
    } while (0)
    NEXT;
add:
    a += b;
    NEXT;
sub:
    b -= a;
    NEXT;
mul:
    a *= b | 1;
    NEXT;
shift:
    b = b << (a & 63) | b >> (-a & 63);
    NEXT;
swap:
    a ^= b, b ^= a, a ^= b;
    NEXT;
flip:
    a = __builtin_bswap64(a);
    NEXT;
jump:
    at += (u32)b & 255;
    NEXT;
load:
    b += program[a & 1023];
    NEXT;
}

/* --- Floating point --- */

static double integrate(double (*f)(double), double from, double to, int steps)
{
    double sum = 0, width = (to - from) / steps;

    for (int i = 0; i < steps; i++)
        sum += f(from + (i + 0.5) * width) * width;
    return sum;
}

static double rational(double x)
{
    return 1 / (1 + x * x);
}

static double logarithm(double x)
{
    long double result;

    __asm__("fldln2; fldl %1; fyl2x; fstpt %0" : "=m"(result) : "m"(x));
    return (double)result;
}

static void multiply(float *restrict c, const float *restrict a, const float *restrict b, int n)
{
    for (int i = 0; i < n; i++)
        for (int k = 0; k < n; k++)
            for (int j = 0; j < n; j++)
                c[i * n + j] += a[i * n + k] * b[k * n + j];
}

/* --- Code that is written here --- */

/* mov eax, imm; add of the argument; ret, again and again in the same place. */
static word generated(void)
{
    u8 *code = HEAP + 0x100;
    word sum = 0;

    for (u32 i = 0; i < 300; i++) {
#ifdef __x86_64__
        const u8 bytes[] = {0xB8, (u8)i, (u8)(i >> 8), 0, 0, 0x48, 0x01, 0xF8, 0xC3};
#else
        const u8 bytes[] = {0xB8, (u8)i, (u8)(i >> 8), 0, 0, 0x03, 0x44, 0x24, 0x04, 0xC3};
#endif

        if (i % 3 == 0) {
            code = HEAP + 0x100 + i % 7 * 0x233; /* some lie across two pages */
            memcpy(code, bytes, sizeof(bytes));
        } else {
            code[1] = (u8)(i * 5);
        }
        for (int n = 0; n < 3; n++)
            sum = ((word(*)(word))code)(sum);
    }
    return sum;
}

/* --- Pages that come when they are touched --- */

struct frame {
    word ip, cs, flags, sp, ss; /* the last two in 64-bit mode */
};

static volatile u64 faults;

__attribute__((interrupt, target("general-regs-only"))) static void on_fault(struct frame *frame,
                                                                             word error)
{
    word address;

    __asm__ volatile("mov %%cr2, %0" : "=r"(address));
    TABLE[address / PAGE] |= PTE_P;
    faults += 1 + ((u64)error << 32);
}

/* Interrupts must leave no trace. */
__attribute__((naked)) static void on_interrupt(void)
{
    __asm__(IRET);
}

static void set_handler(unsigned vector, word at)
{
    volatile u64 *gate = (volatile u64 *)(IDT + vector * 2 * sizeof(word));

    gate[0] = (at & 0xFFFF) | CODE << 16 | 0x8E00ULL << 32 | (u64)(at >> 16 & 0xFFFF) << 48;
    if (sizeof(word) == 8)
        gate[1] = (u64)at >> 32;
}

static void hide_heap(void)
{
    for (u8 *page = HEAP; page < HEAP_END; page += PAGE) {
        TABLE[(word)page / PAGE] &= ~(u64)PTE_P;
        __asm__ volatile("invlpg %0" : : "m"(*page) : "memory");
    }
}

static u64 touch(void)
{
    u64 sum = 0;

    for (int i = 0; i < 3000; i++) {
        word at = random_next() % (word)(HEAP_END - HEAP - 16);

        *(u64 *)(HEAP + at) += at; /* across pages at times */
        sum ^= *(u64 *)(HEAP + (at ^ 0x1008)) + (u64)i;
        *(u8 *)(HEAP + at / 2) ^= (u8)sum;
    }
    return sum;
}

__attribute__((section(".start"))) void start(void)
{
    u32 *numbers = (u32 *)HEAP;
    float *matrix = (float *)HEAP;

    set_handler(14, (word)on_fault);
    set_handler(0x20, (word)on_interrupt);
    __asm__ volatile("int $0x20" : : : "memory"); /* so that what it takes has been accessed */
    compare(1);
    for (u32 round = 1; round <= 4; round++) {
        for (int i = 0; i < 4000; i++)
            numbers[i] = random_next();
        sort(numbers, 0, 3999, round & 1 ? less : greater);
        compare(round << 8 | 1);
        numbers[0] = (u32)ackermann(2, 20 + round);
        numbers[1] = (u32)crc(HEAP, 16000);
        compare(round << 8 | 2);
        *(u64 *)HEAP = divide_all();
        compare(round << 8 | 3);
        *(u64 *)HEAP = interpret(HEAP + 4096, 20000);
        compare(round << 8 | 4);
        ((double *)HEAP)[2] = integrate(rational, 0, (double)round, 2000);
        ((double *)HEAP)[3] = integrate(logarithm, 1, 1 + (double)round, 1000);
        compare(round << 8 | 5);
        for (int i = 0; i < 40 * 40 * 2; i++)
            matrix[i] = (float)(int)random_next() / 3;
        multiply(matrix + 40 * 40 * 2, matrix, matrix + 40 * 40, 40);
        compare(round << 8 | 6);
        *(u64 *)(HEAP + 0x2000) = generated();
        compare(round << 8 | 7);
        hide_heap();
        *(u64 *)HEAP += touch() + faults;
        compare(round << 8 | 8);
        *(word *)HEAP += relative();
        compare(round << 8 | 9);
        memset(HEAP, (int)round, 60000);
    }
    compare(0);
}
