/*
 * Checksums and segments: against sums that are added up the plain way, for all sizes and offsets,
 * and frames whose headers lie.
 */
#include "test.h"

#include "base/util.h"
#include "net/bytes.h"
#include "net/offload.h"

#include <stdlib.h>
#include <string.h>

static uint8_t frame[NET_FRAME_MOST], piece[NET_FRAME_MOST];

/* RFC 1071 to the letter. */
static uint16_t plain(const uint8_t *data, size_t size, uint32_t sum)
{
    for (size_t i = 0; i < size; i++)
        sum += i & 1 ? data[i] : (uint32_t)data[i] << 8;
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

static void test_sum(void **unused)
{
    static uint8_t data[4096 + 8];

    srand(1);
    for (unsigned i = 0; i < sizeof(data); i++)
        data[i] = i % 3 ? (uint8_t)rand() : 255;
    for (size_t size = 0; size <= 300; size++)
        for (size_t at = 0; at < 8; at++)
            assert_int_equal(offload_fold(offload_sum(data + at, size, 0x1234)),
                             plain(data + at, size, 0x1234));
    assert_int_equal(offload_fold(offload_sum(data, 4096, 0)), plain(data, 4096, 0));
    memset(data, 255, sizeof(data));
    assert_int_equal(offload_fold(offload_sum(data, 4096, 0)), plain(data, 4096, 0));
}

/* Writes a frame of TCP with SIZE bytes of data, as a card is given it: the checksum's field holds
 * the sum of the pseudo header. Returns its size. */
static size_t make_frame(bool ip6, bool tagged, size_t options, size_t size,
                         struct net_offload *offload)
{
    size_t ip = tagged ? 18 : 14, tcp = ip + (ip6 ? 40 : 20), data = tcp + 20 + options;
    size_t length = data - tcp + size;
    uint8_t *at = frame + ip;

    memset(frame, 0, data);
    if (tagged)
        memcpy(frame + 12, (uint8_t[]){0x81, 0, 0, 5}, 4);
    put16(frame + ip - 2, ip6 ? 0x86dd : 0x0800);
    for (unsigned i = 0; i < 32; i++)
        (ip6 ? at + 8 : at + 12)[i % (ip6 ? 32 : 8)] = (uint8_t)(0x40 + i);
    if (ip6) {
        at[0] = 0x60;
        put16(at + 4, (unsigned)length);
        at[6] = 6;
    } else {
        at[0] = 0x45;
        put16(at + 2, (unsigned)(length + 20));
        put16(at + 4, 0xfffe);
        at[9] = 6;
        put16(at + 10, plain(at, 20, 0));
    }
    put16(frame + tcp, 1000);
    put16(frame + tcp + 2, 2000);
    memcpy(frame + tcp + 4, (uint8_t[]){0xff, 0xff, 0xff, 0xf0}, 4);
    frame[tcp + 12] = (uint8_t)((20 + options) / 4 << 4);
    frame[tcp + 13] = 0x80 | 0x10 | 0x08 | 0x01; /* CWR, ACK, PSH, FIN */
    put16(frame + tcp + 16,
          (uint16_t)~plain(at + (ip6 ? 8 : 12), ip6 ? 32 : 8, 6 + (uint32_t)length));
    for (size_t i = 0; i < size; i++)
        frame[data + i] = (uint8_t)(i * 7 + i / 256);
    *offload = (struct net_offload){.flags = NET_NEEDS_CHECKSUM,
                                    .gso = ip6 ? NET_GSO_TCP6 : NET_GSO_TCP4,
                                    .header_size = (uint16_t)data,
                                    .segment_size = 1000,
                                    .checksum_start = (uint16_t)tcp,
                                    .checksum_offset = 16};
    return data + size;
}

static void test_checksum(void **unused)
{
    for (unsigned i = 0; i < 8; i++) {
        struct net_offload offload;
        size_t size = make_frame(i & 1, i & 2, 12, 500 + i / 4, &offload);

        offload.gso = NET_GSO_NONE;
        assert_false(offload_verify(frame, size));
        assert_int_equal(offload_needs(&offload), NET_CHECKSUM);
        assert_true(offload_check(frame, size, size, &offload));
        offload_checksum(frame, size, &offload);
        assert_int_equal(offload_needs(&offload), 0);
        assert_true(offload_verify(frame, size));
        frame[size - 1] ^= 1;
        assert_false(offload_verify(frame, size));
    }
}

/* Frames are padded to 60 bytes on an Ethernet; what stands behind the packet does not count. */
static void test_padding(void **unused)
{
    struct net_offload offload;
    size_t size = make_frame(false, false, 0, 1, &offload);

    offload.gso = NET_GSO_NONE;
    offload_checksum(frame, size, &offload);
    memset(frame + size, 0xab, 5);
    assert_true(offload_verify(frame, size + 5));
    assert_false(offload_verify(frame, size - 1));
}

/* The Nth segment, of SIZE bytes, of a frame with LENGTH bytes of data. */
static void check_segment(bool ip6, bool tagged, unsigned n, size_t size, size_t length)
{
    size_t ip = tagged ? 18 : 14, tcp = ip + (ip6 ? 40 : 20), data = tcp + 20 + 12;
    size_t before = n * 1000, part = MIN(length - before, (size_t)1000);
    bool last = before + part == length;

    assert_int_equal(size, data + part);
    assert_true(offload_verify(piece, size));
    if (ip6) {
        assert_int_equal(get16(piece + ip + 4), size - tcp);
    } else {
        assert_int_equal(get16(piece + ip + 2), size - ip);
        assert_int_equal(get16(piece + ip + 4), (uint16_t)(0xfffe + n));
        assert_int_equal(plain(piece + ip, 20, 0), 0);
    }
    assert_int_equal(get32(piece + tcp + 4), (uint32_t)(0xfffffff0u + before));
    assert_int_equal(piece[tcp + 13], 0x10 | (last ? 0x09 : 0) | (n == 0 ? 0x80 : 0));
    assert_memory_equal(piece + data, frame + data + before, part);
}

static void test_segments(void **unused)
{
    static const size_t lengths[] = {1, 999, 1000, 1001, 5000, 64000};

    for (unsigned i = 0; i < 4; i++) {
        for (unsigned j = 0; j < ARRAY_SIZE(lengths); j++) {
            struct net_offload offload;
            struct offload_split split;
            size_t size = make_frame(i & 1, i & 2, 12, lengths[j], &offload), got;
            unsigned n = 0;

            assert_int_equal(offload_needs(&offload), NET_CHECKSUM | (i & 1 ? NET_TSO6 : NET_TSO4));
            assert_true(offload_check(frame, MIN(size, (size_t)256), size, &offload));
            assert_true(offload_split_begin(&split, frame, size, &offload));
            for (; (got = offload_split_next(&split, piece)) > 0; n++)
                check_segment(i & 1, i & 2, n, got, lengths[j]);
            assert_int_equal(n, (lengths[j] + 999) / 1000);
            offload_join(frame, size, &offload);
            assert_true(offload_verify(frame, size));
            assert_int_equal(offload.gso, NET_GSO_NONE);
        }
    }
}

/* Frames that say what is not so. */
static void test_lies(void **unused)
{
    struct net_offload good, bad;
    size_t size = make_frame(false, false, 0, 3000, &good);

    assert_true(offload_check(frame, 256, size, &good));
    bad = good;
    bad.flags = 0;
    assert_false(offload_check(frame, 256, size, &bad));
    bad = good;
    bad.segment_size = 7;
    assert_false(offload_check(frame, 256, size, &bad));
    bad = good;
    bad.gso = NET_GSO_TCP6;
    assert_false(offload_check(frame, 256, size, &bad));
    bad = good;
    bad.gso = 3; /* UDP */
    assert_false(offload_check(frame, 256, size, &bad));
    bad = good;
    bad.checksum_start = UINT16_MAX;
    bad.checksum_offset = UINT16_MAX;
    assert_false(offload_check(frame, 256, size, &bad));
    bad.gso = NET_GSO_NONE;
    assert_false(offload_check(frame, 256, size, &bad));
    bad.checksum_start = (uint16_t)(size - 2);
    bad.checksum_offset = 0;
    assert_true(offload_check(frame, 256, size, &bad));
    bad.checksum_offset = 1;
    assert_false(offload_check(frame, 256, size, &bad));
    assert_false(offload_check(frame, 53, size, &good)); /* not all of the headers */
    assert_false(offload_check(frame, 54, 54, &good));   /* and no data */
    frame[14] = 0x44;
    assert_false(offload_check(frame, 256, size, &good));
    frame[14] = 0x4f;
    assert_false(offload_check(frame, 60, size, &good));
    frame[14] = 0x45;
    frame[20] = 0x20; /* more fragments */
    assert_false(offload_check(frame, 256, size, &good));
    frame[20] = 0;
    frame[23] = 17;
    assert_false(offload_check(frame, 256, size, &good));
    frame[23] = 6;
    frame[46] = 0x40; /* a TCP header of 16 bytes */
    assert_false(offload_check(frame, 256, size, &good));
    frame[46] = 0xf0;
    assert_false(offload_check(frame, 90, size, &good));
    assert_true(offload_check(frame, 94, size, &good));
}

/* UDP's checksum is never stored as 0, which would mean that there is none. */
static void test_udp_zero(void **unused)
{
    struct net_offload offload = {
        .flags = NET_NEEDS_CHECKSUM, .checksum_start = 34, .checksum_offset = 6};

    memset(frame, 0, 100);
    put16(frame + 34, 0xffff);
    offload_checksum(frame, 60, &offload);
    assert_int_equal(get16(frame + 40), 0xffff);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum),     cmocka_unit_test(test_checksum),
        cmocka_unit_test(test_padding), cmocka_unit_test(test_segments),
        cmocka_unit_test(test_lies),    cmocka_unit_test(test_udp_zero),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
