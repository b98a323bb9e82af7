/* fuzz_table.c - a stored code table (FORMAT.md 6.2): any bytes are a usable code or rejected; a usable one is stored in one way
 * only, and its look-up tables agree with its code words. */
#include "codec.h"
#include "decode_float.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count);

/* Follows one entry code word by code word. */
static void check_entry(const struct cllm_float_lookup *lookup, const struct cllm_code_entry *single, unsigned window)
{
    unsigned bits = 0, count = lookup->counts[window];
    if (count == 0 || count > CLLM_ENTRY_SYMBOLS_MAX) abort();
    for (unsigned k = 0; k < count; k++) {
        struct cllm_code_entry next = single[window >> bits];
        if (next.symbol != (lookup->entries[window] >> (56 - 8 * k) & 0xFF)) abort();
        bits += next.bits;
    }
    if (bits > CLLM_CODE_BITS_MAX || bits != (lookup->entries[window] & 0xFF)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t byte_count)
{
    static struct cllm_float_lookup lookup;
    static struct cllm_code_entry single[CLLM_CODE_ENTRIES];
    struct cllm_cursor cursor = cllm_cursor_over(bytes, byte_count);
    struct cllm_table table;
    struct cllm_error err;
    uint8_t stored[CLLM_TABLE_STORED_BYTES_MAX];
    uint16_t words[256];
    if (cllm_table_parse(&cursor, &table, &err)) return 0;
    size_t stored_bytes = cllm_table_serialise(&table, stored);
    if (stored_bytes > byte_count || memcmp(stored, bytes, stored_bytes) != 0) abort();
    cllm_table_lookup(&table, single);
    cllm_table_codes(&table, words);
    cllm_float_lookup_build(&lookup, &table);
    for (unsigned window = 0; window < CLLM_CODE_ENTRIES; window++) {
        struct cllm_code_entry entry = single[window];
        if ((window & ((1u << entry.bits) - 1)) != (entry.bits ? words[entry.symbol] : 0u)) abort();
        check_entry(&lookup, single, window);
    }
    return 0;
}
