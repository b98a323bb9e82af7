/* bytes.h - the only code that loads integers from bytes: little-endian loads and stores, checked arithmetic, and a bounded
 * cursor for untrusted input. Portable to hosts of either byte order; compilers turn each load into one instruction. */
#ifndef CLLM_BYTES_H
#define CLLM_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t cllm_load_le16(const void *bytes)
{
    const uint8_t *p = (const uint8_t *)bytes;
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t cllm_load_le32(const void *bytes)
{
    const uint8_t *p = (const uint8_t *)bytes;
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t cllm_load_le64(const void *bytes)
{
    const uint8_t *p = (const uint8_t *)bytes;
    return (uint64_t)cllm_load_le32(p) | (uint64_t)cllm_load_le32(p + 4) << 32;
}

static inline void cllm_store_le16(void *bytes, uint16_t value)
{
    uint8_t *p = (uint8_t *)bytes;
    p[0] = (uint8_t)value;
    p[1] = (uint8_t)(value >> 8);
}

static inline void cllm_store_le32(void *bytes, uint32_t value)
{
    uint8_t *p = (uint8_t *)bytes;
    cllm_store_le16(p, (uint16_t)value);
    cllm_store_le16(p + 2, (uint16_t)(value >> 16));
}

static inline void cllm_store_le64(void *bytes, uint64_t value)
{
    uint8_t *p = (uint8_t *)bytes;
    cllm_store_le32(p, (uint32_t)value);
    cllm_store_le32(p + 4, (uint32_t)(value >> 32));
}

/* Each returns false, and leaves *out alone, where the true result does not fit. */
static inline bool cllm_add(uint64_t a, uint64_t b, uint64_t *out)
{
    uint64_t sum;
    if (__builtin_add_overflow(a, b, &sum)) return false;
    *out = sum;
    return true;
}

static inline bool cllm_mul(uint64_t a, uint64_t b, uint64_t *out)
{
    uint64_t product;
    if (__builtin_mul_overflow(a, b, &product)) return false;
    *out = product;
    return true;
}

/* Rounds up to a multiple of `alignment`, a power of two. */
static inline bool cllm_align(uint64_t value, uint64_t alignment, uint64_t *out)
{
    uint64_t sum;
    if (!cllm_add(value, alignment - 1, &sum)) return false;
    *out = sum & ~(alignment - 1);
    return true;
}

/* Reads forward through bytes that nobody has vouched for. A read past the end returns zeros and sets `overrun`, which
 * stays set: parse a whole structure, then check once. */
struct cllm_cursor {
    const uint8_t *bytes;
    size_t byte_count;
    size_t offset; /* of the next byte; at most byte_count */
    bool overrun;
};

static inline struct cllm_cursor cllm_cursor_over(const void *bytes, size_t byte_count)
{
    struct cllm_cursor cursor = {(const uint8_t *)bytes, byte_count, 0, false};
    return cursor;
}

static inline size_t cllm_cursor_left(const struct cllm_cursor *cursor)
{
    return cursor->byte_count - cursor->offset;
}

/* `byte_count` bytes at the cursor, which moves past them; null (and overrun) where fewer are left. */
static inline const uint8_t *cllm_cursor_take(struct cllm_cursor *cursor, size_t byte_count)
{
    if (cursor->overrun || byte_count > cllm_cursor_left(cursor)) {
        cursor->overrun = true;
        return NULL;
    }
    const uint8_t *at = cursor->bytes + cursor->offset;
    cursor->offset += byte_count;
    return at;
}

static inline uint8_t cllm_cursor_u8(struct cllm_cursor *cursor)
{
    const uint8_t *at = cllm_cursor_take(cursor, 1);
    return at ? at[0] : 0;
}

static inline uint16_t cllm_cursor_u16(struct cllm_cursor *cursor)
{
    const uint8_t *at = cllm_cursor_take(cursor, 2);
    return at ? cllm_load_le16(at) : 0;
}

static inline uint32_t cllm_cursor_u32(struct cllm_cursor *cursor)
{
    const uint8_t *at = cllm_cursor_take(cursor, 4);
    return at ? cllm_load_le32(at) : 0;
}

static inline uint64_t cllm_cursor_u64(struct cllm_cursor *cursor)
{
    const uint8_t *at = cllm_cursor_take(cursor, 8);
    return at ? cllm_load_le64(at) : 0;
}

#endif
