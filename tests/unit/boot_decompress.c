/*
 * Unpacking: every format, with its damage noticed and its growth bounded.
 */
#include "boot_build.h"

#include <errno.h>

static const enum compression all[] = {
    COMPRESSION_GZIP, COMPRESSION_BZIP2, COMPRESSION_LZMA, COMPRESSION_XZ,
    COMPRESSION_LZO,  COMPRESSION_LZ4,   COMPRESSION_ZSTD,
};

static struct blob sample(void)
{
    struct blob blob = blob_zero(300000);

    for (size_t i = 0; i < blob.size; i++)
        blob.data[i] = i % 1000 < 300 ? (uint8_t)(i * i * 2654435761u >> 24) : (uint8_t)(i >> 12);
    return blob;
}

static void test_round_trip(void **unused)
{
    struct blob in = sample();

    for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
        struct blob packed = pack(all[i], &in);
        struct error err = {0};
        size_t size = 0;
        uint8_t *out;

        assert_int_equal(compression_identify(packed.data, packed.size), all[i]);
        /* The exact size is a sufficient limit, one less is not. */
        out = decompress(all[i], packed.data, packed.size, in.size, &size, &err);
        assert_string_equal(err.text, "");
        assert_non_null(out);
        assert_int_equal(size, in.size);
        assert_memory_equal(out, in.data, in.size);
        free(out);
        assert_null(decompress(all[i], packed.data, packed.size, in.size - 1, &size, &err));
        assert_true(err.code == EFBIG || (all[i] == COMPRESSION_LZ4 && err.code == EBADMSG));
        free(packed.data);
    }
    free(in.data);
}

static void test_truncated(void **unused)
{
    struct blob in = sample();

    for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
        struct blob packed = pack(all[i], &in);
        size_t step = packed.size / 50;

        for (size_t cut = 1; cut < packed.size; cut += step) {
            /* A copy of just that size, so that reading beyond it is noticed. */
            struct blob part = blob_zero(0);
            struct error err = {0};
            size_t size;

            blob_add(&part, packed.data, packed.size - cut);
            assert_null(decompress(all[i], part.data, part.size, in.size, &size, &err));
            assert_int_equal(err.code, EBADMSG);
            free(part.data);
        }
        free(packed.data);
    }
    free(in.data);
}

/* Damage never goes unnoticed where the format has a checksum. */
static void test_damaged(void **unused)
{
    struct blob in = sample();

    for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
        struct blob packed = pack(all[i], &in);
        bool checked = all[i] != COMPRESSION_LZMA && all[i] != COMPRESSION_LZ4;
        unsigned missed = 0;

        for (unsigned n = 0; n < 50; n++) {
            size_t at = 64 + n * ((packed.size - 64) / 50), size = 0;
            uint8_t *out;

            packed.data[at] ^= 0x10;
            out = decompress(all[i], packed.data, packed.size, in.size, &size, NULL);
            missed += checked && out && (size != in.size || memcmp(out, in.data, size) != 0);
            free(out);
            packed.data[at] ^= 0x10;
        }
        assert_int_equal(missed, 0);
        free(packed.data);
    }
    free(in.data);
}

/* A small file that grows without end stops at the limit. */
static void test_bomb(void **unused)
{
    struct blob zeros = blob_zero(64 * MiB);
    struct blob packed = pack(COMPRESSION_ZSTD, &zeros);
    struct error err = {0};
    size_t size;

    assert_true(packed.size < 64 * KiB);
    assert_null(decompress(COMPRESSION_ZSTD, packed.data, packed.size, 1 * MiB, &size, &err));
    assert_int_equal(err.code, EFBIG);
    free(packed.data);
    free(zeros.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_bomb),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
