/*
 * Decompression of what kernels and their payloads are packed with: zlib, libbz2, liblzma, liblz4,
 * lzo2 and libzstd behind one call with a bound on what comes out.
 *
 * LZ4's "legacy frame" and lzop's file format are the kernel build's choice and have no decoder in
 * the libraries, which know single blocks: the framing is read here (lz4_Frame_format.md, section
 * "Legacy frame"; lzop's file header as in its conf.h).
 */
#include "vm/boot/decompress.h"

#include "base/util.h"

#include <bzlib.h>
#include <errno.h>
#include <lz4.h>
#include <lzma.h>
#include <lzo/lzo1x.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

/* The largest dictionary that a kernel is packed with is 128 MiB (zstd -22 --ultra). */
#define DECODER_MEMORY (192 * MiB)
#define FIRST_ROOM     (1 * MiB)

#define LZ4_LEGACY_MAGIC 0x184C2102u
#define LZ4_LEGACY_BLOCK (8 * MiB)

static const uint8_t lzop_magic[] = {0x89, 'L', 'Z', 'O', 0, '\r', '\n', 0x1A, '\n'};

enum compression compression_identify(const uint8_t *data, size_t size)
{
    static const struct {
        const char *magic;
        size_t size;
        enum compression compression;
    } known[] = {
        {"\x1F\x8B\x08", 3, COMPRESSION_GZIP},
        {"BZh", 3, COMPRESSION_BZIP2},
        {"\x5D\0\0", 3, COMPRESSION_LZMA},
        {"\xFD\x37zXZ\0", 6, COMPRESSION_XZ},
        {(const char *)lzop_magic, sizeof(lzop_magic), COMPRESSION_LZO},
        {"\x02\x21\x4C\x18", 4, COMPRESSION_LZ4},
        {"\x28\xB5\x2F\xFD", 4, COMPRESSION_ZSTD},
    };

    for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
        if (size >= known[i].size && memcmp(data, known[i].magic, known[i].size) == 0)
            return known[i].compression;
    return COMPRESSION_NONE;
}

const char *compression_name(enum compression compression)
{
    static const char *const name[] = {"none", "gzip", "bzip2", "lzma", "xz", "lzo", "lz4", "zstd"};

    return name[compression];
}

bool compression_has_checksum(enum compression compression)
{
    return compression != COMPRESSION_NONE && compression != COMPRESSION_LZ4 &&
           compression != COMPRESSION_LZMA;
}

/* Input that is consumed and output that grows up to a limit. */
struct job {
    const uint8_t *in;
    size_t in_size;
    uint8_t *out;
    size_t out_size, room, limit;
};

/* Makes room for at least WANT more bytes (as far as the limit allows). 0, -EFBIG when there is
 * none left, -ENOMEM. */
static int make_room(struct job *job, size_t want)
{
    size_t room;
    uint8_t *out;

    if (job->room - job->out_size >= want)
        return 0;
    if (want > job->limit - job->out_size)
        return -EFBIG;
    room = MAX(MAX(2 * job->room, FIRST_ROOM), job->out_size + want);
    room = MIN(room, job->limit);
    out = realloc(job->out, room);
    if (!out)
        return -ENOMEM;
    job->out = out;
    job->room = room;
    return 0;
}

/* Takes SIZE bytes of input; NULL when there are fewer. */
static const uint8_t *take(struct job *job, size_t size)
{
    const uint8_t *at = job->in;

    if (size > job->in_size)
        return NULL;
    job->in += size;
    job->in_size -= size;
    return at;
}

/* The decoders: 0, -EBADMSG, -EFBIG or -ENOMEM. */

static int decode_gzip(struct job *job)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)job->in, .avail_in = (uInt)job->in_size};
    int status = Z_OK, r = 0;

    if (job->in_size > UINT32_MAX)
        return -EFBIG;
    if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK)
        return -ENOMEM;
    while (status == Z_OK && (r = make_room(job, 1)) == 0) {
        size_t room = MIN(job->room - job->out_size, UINT32_MAX);

        z.next_out = job->out + job->out_size;
        z.avail_out = (uInt)room;
        status = inflate(&z, Z_NO_FLUSH);
        job->out_size += room - z.avail_out;
    }
    inflateEnd(&z);
    if (r < 0 || status == Z_STREAM_END)
        return r;
    return status == Z_MEM_ERROR ? -ENOMEM : -EBADMSG;
}

static int decode_bzip2(struct job *job)
{
    bz_stream bz = {.next_in = (char *)(uintptr_t)job->in, .avail_in = (unsigned)job->in_size};
    int status = BZ_OK, r = 0;

    if (job->in_size > UINT32_MAX)
        return -EFBIG;
    if (BZ2_bzDecompressInit(&bz, 0, 0) != BZ_OK)
        return -ENOMEM;
    while (status == BZ_OK && (r = make_room(job, 1)) == 0) {
        size_t room = MIN(job->room - job->out_size, UINT32_MAX);

        bz.next_out = (char *)job->out + job->out_size;
        bz.avail_out = (unsigned)room;
        status = BZ2_bzDecompress(&bz);
        job->out_size += room - bz.avail_out;
        /* Truncated input shows as a call that neither fails nor does anything. */
        if (status == BZ_OK && bz.avail_in == 0 && bz.avail_out > 0)
            status = BZ_DATA_ERROR;
    }
    BZ2_bzDecompressEnd(&bz);
    if (r < 0 || status == BZ_STREAM_END)
        return r;
    return status == BZ_MEM_ERROR ? -ENOMEM : -EBADMSG;
}

/* .lzma and .xz: the library tells them apart. */
static int decode_lzma(struct job *job)
{
    lzma_stream lz = LZMA_STREAM_INIT;
    lzma_ret status = lzma_auto_decoder(&lz, DECODER_MEMORY, 0);
    int r = 0;

    lz.next_in = job->in;
    lz.avail_in = job->in_size;
    while (status == LZMA_OK && (r = make_room(job, 1)) == 0) {
        size_t room = job->room - job->out_size;

        lz.next_out = job->out + job->out_size;
        lz.avail_out = room;
        status = lzma_code(&lz, LZMA_FINISH);
        job->out_size += room - lz.avail_out;
    }
    lzma_end(&lz);
    if (r < 0 || status == LZMA_STREAM_END)
        return r;
    return status == LZMA_MEM_ERROR || status == LZMA_MEMLIMIT_ERROR ? -ENOMEM : -EBADMSG;
}

static int decode_zstd(struct job *job)
{
    ZSTD_DStream *stream = ZSTD_createDStream();
    ZSTD_inBuffer in = {job->in, job->in_size, 0};
    size_t more = 1;
    int r = stream ? 0 : -ENOMEM;

    /* 0: the frame is complete and its checksum right. */
    while (r == 0 && more != 0 && (r = make_room(job, 1)) == 0) {
        ZSTD_outBuffer out = {job->out, job->room, job->out_size};

        more = ZSTD_decompressStream(stream, &out, &in);
        job->out_size = out.pos;
        if (ZSTD_isError(more) || (more != 0 && in.pos == in.size && out.pos < out.size))
            r = -EBADMSG;
    }
    ZSTD_freeDStream(stream);
    return r;
}

static int decode_lz4(struct job *job)
{
    take(job, sizeof(uint32_t)); /* the magic */
    while (job->in_size > 0) {
        const uint8_t *word = take(job, sizeof(uint32_t)), *block;
        uint32_t size;
        int n, r;

        if (!word)
            return -EBADMSG;
        memcpy(&size, word, sizeof(size));
        if (size == LZ4_LEGACY_MAGIC)
            continue;
        block = take(job, size);
        if (!block || size == 0 || size > LZ4_COMPRESSBOUND(LZ4_LEGACY_BLOCK))
            return -EBADMSG;
        r = make_room(job, MIN(LZ4_LEGACY_BLOCK, job->limit - job->out_size));
        if (r < 0)
            return r;
        n = LZ4_decompress_safe((const char *)block, (char *)job->out + job->out_size, (int)size,
                                (int)MIN(job->room - job->out_size, LZ4_LEGACY_BLOCK));
        if (n < 0)
            return -EBADMSG;
        job->out_size += (size_t)n;
    }
    return 0;
}

static bool take_be32(struct job *job, uint32_t *value)
{
    const uint8_t *at = take(job, sizeof(*value));

    if (at)
        *value = (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
    return at;
}

/* lzop's flags that matter: which checksums each block carries, and more in the header. */
#define LZOP_ADLER32_OUT 0x1u
#define LZOP_ADLER32_IN  0x2u
#define LZOP_EXTRA       0x40u
#define LZOP_CRC32_OUT   0x100u
#define LZOP_CRC32_IN    0x200u
#define LZOP_FILTER      0x800u
#define LZOP_BLOCK       (64 * MiB)

/* lzop's file header: versions, method, level, flags, mode, times, name, checksum. */
static bool take_lzop_header(struct job *job, uint32_t *flags)
{
    const uint8_t *at;
    bool level;

    take(job, sizeof(lzop_magic));
    at = take(job, 2);
    if (!at)
        return false;
    level = at[0] > 0x09 || (at[0] == 0x09 && at[1] >= 0x40); /* since version 0.940 */
    if (!take(job, level ? 6 : 5) || !take_be32(job, flags))
        return false;
    if (*flags & LZOP_EXTRA)
        return false;
    if (!take(job, (*flags & LZOP_FILTER ? 4 : 0) + 8 + (level ? 4 : 0)))
        return false;
    at = take(job, 1);
    return at && take(job, (size_t)*at + 4);
}

/* Compares the checksums that follow a block's sizes with DATA; ADLER and CRC say which follow. */
static bool take_checksums(struct job *job, bool adler, bool crc, uint32_t expected[2])
{
    return (!adler || take_be32(job, &expected[0])) && (!crc || take_be32(job, &expected[1]));
}

static bool checksums_match(const uint8_t *data, size_t size, bool adler, bool crc,
                            const uint32_t expected[2])
{
    return (!adler || adler32(1, data, (uInt)size) == expected[0]) &&
           (!crc || crc32(0, data, (uInt)size) == expected[1]);
}

/* One block. Returns 1, 0 at the end, or an error. */
static int decode_lzop_block(struct job *job, uint32_t flags)
{
    const bool adler_out = flags & LZOP_ADLER32_OUT, crc_out = flags & LZOP_CRC32_OUT;
    const bool adler_in = flags & LZOP_ADLER32_IN, crc_in = flags & LZOP_CRC32_IN;
    uint32_t out_size, in_size, sum_out[2] = {0}, sum_in[2] = {0};
    const uint8_t *block;
    lzo_uint n;
    int r;

    if (!take_be32(job, &out_size))
        return -EBADMSG;
    if (out_size == 0)
        return 0;
    if (!take_be32(job, &in_size) || in_size == 0 || in_size > out_size || out_size > LZOP_BLOCK)
        return -EBADMSG;
    if (!take_checksums(job, adler_out, crc_out, sum_out))
        return -EBADMSG;
    /* A block that did not shrink is stored, and its checksum not repeated. */
    if (in_size < out_size && !take_checksums(job, adler_in, crc_in, sum_in))
        return -EBADMSG;
    block = take(job, in_size);
    if (!block ||
        (in_size < out_size && !checksums_match(block, in_size, adler_in, crc_in, sum_in)))
        return -EBADMSG;
    r = make_room(job, out_size);
    if (r < 0)
        return r;
    n = out_size;
    if (in_size == out_size)
        memcpy(job->out + job->out_size, block, out_size);
    else if (lzo1x_decompress_safe(block, in_size, job->out + job->out_size, &n, NULL) != LZO_E_OK)
        return -EBADMSG;
    if (n != out_size ||
        !checksums_match(job->out + job->out_size, out_size, adler_out, crc_out, sum_out))
        return -EBADMSG;
    job->out_size += n;
    return 1;
}

static int decode_lzo(struct job *job)
{
    uint32_t flags;
    int r;

    if (lzo_init() != LZO_E_OK)
        return -ENOMEM;
    if (!take_lzop_header(job, &flags))
        return -EBADMSG;
    while ((r = decode_lzop_block(job, flags)) > 0)
        ;
    return r;
}

uint8_t *decompress(enum compression compression, const uint8_t *data, size_t size, size_t limit,
                    size_t *out_size, struct error *err)
{
    static int (*const decode[])(struct job *) = {
        [COMPRESSION_GZIP] = decode_gzip, [COMPRESSION_BZIP2] = decode_bzip2,
        [COMPRESSION_LZMA] = decode_lzma, [COMPRESSION_XZ] = decode_lzma,
        [COMPRESSION_LZO] = decode_lzo,   [COMPRESSION_LZ4] = decode_lz4,
        [COMPRESSION_ZSTD] = decode_zstd,
    };
    /* A byte to spare lets a decoder see the end of a stream that fills LIMIT exactly. */
    struct job job = {.in = data, .in_size = size, .limit = limit + 1};
    int r = decode[compression] ? decode[compression](&job) : -EBADMSG;

    if (r == 0 && job.out_size == 0)
        r = -EBADMSG;
    if (r == 0 && job.out_size > limit)
        r = -EFBIG;
    if (r == 0) {
        *out_size = job.out_size;
        return job.out;
    }
    free(job.out);
    if (r == -ENOMEM)
        error_set(err, ENOMEM, "not enough memory on the host to unpack %s data",
                  compression_name(compression));
    else if (r == -EFBIG)
        error_set(err, EFBIG,
                  "the %s data grows beyond the %zu bytes it may have: not a kernel, "
                  "or corrupted",
                  compression_name(compression), limit);
    else
        error_set(err, EBADMSG, "the %s data is corrupted or truncated: get the file again",
                  compression_name(compression));
    return NULL;
}
