/* codec.c - how fast the float codec alone is on one core, by kind of element and by instruction set, beside memcpy of the same
 * bytes: GB/s of original bytes, medians of repeated runs by the processor time of the thread. "cache" is one chunk again and
 * again, "memory" goes through more bytes than any cache holds.
 *
 *   build/release/bench/codec [-r RUNS] [-m MIB] [-k KIND]
 */
#include "codec.h"
#include "decode_float.h"
#include "encode_float.h"
#include "reader.h"
#include "table.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RUNS_MAX 99
#define CHUNK_ELEMENTS 32768u
#define GROUP_BYTES (4u << 20) /* that share a code table, as cpack has it */

static const char *const tier_names[CLLM_CPU_TIERS] = {"portable", "avx2", "avx512"};

static const struct kind {
    const char *name;
    struct cllm_layout layout;
} kinds[] = {
    {"BF16", {2, 7, 8, 0, 8}}, {"F16", {2, 8, 8, 0, 8}},      {"F32", {4, 23, 8, 0, 8}},
    {"F64", {8, 52, 8, 0, 8}}, {"F8_E4M3", {1, 3, 4, 0, 10}}, {"I8", {1, 0, 8, 0, 10}},
};

struct subject {
    const struct kind *kind;
    uint32_t chunk_count;
    uint32_t chunk_bytes; /* decoded */
    size_t stride;        /* of stored chunks */
    uint8_t *original;
    uint8_t *stored;
    uint8_t *decoded;
    uint8_t *symbols;       /* of one group; scratch of the decoder */
    uint32_t *stored_bytes; /* of each chunk */
    struct cllm_table *tables;
    struct cllm_float_lookup *lookup;
    enum cllm_cpu_tier tier;
    unsigned passes; /* over everything, for one measurement */
};

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void *allocate(size_t byte_count)
{
    void *bytes = malloc(byte_count);
    if (!bytes) {
        fprintf(stderr, "codec: out of memory\n");
        exit(1);
    }
    memset(bytes, 1, byte_count);
    return bytes;
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15));
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

/* Normal deviates, whose exponents have the entropy of trained weights; below the exponent, noise. */
static uint64_t make_element(const struct cllm_layout *layout, uint64_t *state)
{
    uint64_t random = next_random(state), noise = next_random(state);
    double radius = sqrt(-2 * log(((double)(random >> 32) + 1) / 4294967297.0));
    double value = radius * cos(6.283185307179586 * (double)(random & 0xFFFFFFFF) / 4294967296.0);
    int exponent;
    frexp(value, &exponent);
    unsigned mask = (1u << layout->symbol_bits) - 1;
    int symbol = (int)(mask / 2) + 1 + exponent;
    if (layout->symbol_shift == 0) symbol = (int)(value * 24) & 0xFF;
    if (symbol < 0) symbol = 0;
    uint64_t field = (uint64_t)mask << layout->symbol_shift;
    return (noise & ~field) | ((uint64_t)symbol << layout->symbol_shift & field);
}

static void run_copy(struct subject *s)
{
    memcpy(s->decoded, s->original, (size_t)s->chunk_count * s->chunk_bytes);
}

static void run_encode(struct subject *s)
{
    const struct cllm_float_encode_ops *ops = cllm_float_encode_ops(s->tier);
    const struct cllm_layout *layout = &s->kind->layout;
    uint32_t per_group = GROUP_BYTES / s->chunk_bytes;
    for (uint32_t first = 0; first < s->chunk_count; first += per_group) {
        uint32_t end = first + per_group < s->chunk_count ? first + per_group : s->chunk_count;
        uint64_t counts[256] = {0};
        struct cllm_float_code code;
        for (uint32_t k = first; k < end; k++) {
            uint8_t *symbols = s->symbols + (size_t)(k - first) * CHUNK_ELEMENTS;
            ops->split(layout, s->original + (size_t)k * s->chunk_bytes, CHUNK_ELEMENTS, symbols, s->stored + k * s->stride);
            ops->count(symbols, CHUNK_ELEMENTS, counts);
        }
        cllm_table_build(counts, &s->tables[first]);
        cllm_float_code_init(&code, &s->tables[first]);
        for (uint32_t k = first; k < end; k++) {
            s->tables[k] = s->tables[first];
            s->stored_bytes[k] = (uint32_t)ops->encode(layout, &code, s->symbols + (size_t)(k - first) * CHUNK_ELEMENTS,
                                                       CHUNK_ELEMENTS, s->stored + k * s->stride);
        }
    }
}

static void run_decode(struct subject *s)
{
    cllm_float_decode_fn *decode = cllm_float_decoder(s->tier);
    const struct cllm_layout *layout = &s->kind->layout;
    for (uint32_t k = 0; k < s->chunk_count; k++) {
        struct cllm_float_view view;
        struct cllm_error err;
        cllm_float_lookup_build(s->lookup, &s->tables[k]);
        if (cllm_float_view_parse(layout, s->chunk_bytes, s->stored + k * s->stride, s->stored_bytes[k], &view, &err) ||
            decode(s->lookup, layout, &view, s->symbols, s->decoded + (size_t)k * s->chunk_bytes, &err)) {
            fprintf(stderr, "codec: %s\n", err.message);
            exit(1);
        }
    }
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double measure(struct subject *s, unsigned runs, void (*run)(struct subject *))
{
    double speeds[RUNS_MAX];
    run(s);
    for (unsigned i = 0; i < runs; i++) {
        double start = cpu_seconds();
        for (unsigned k = 0; k < s->passes; k++) run(s);
        speeds[i] = (double)s->passes * s->chunk_count * s->chunk_bytes / (cpu_seconds() - start) / 1e9;
    }
    qsort(speeds, runs, sizeof *speeds, compare_doubles);
    return speeds[runs / 2];
}

/* One row of the table; its numbers again for the line of JSON. */
static void measure_kind(const struct kind *kind, size_t byte_count, bool in_cache, unsigned runs, char *json, size_t json_bytes)
{
    struct subject s = {.kind = kind, .chunk_bytes = CHUNK_ELEMENTS * kind->layout.element_bytes};
    s.chunk_count = in_cache ? 1 : (uint32_t)(byte_count / s.chunk_bytes);
    s.passes = in_cache ? (GROUP_BYTES * 4) / s.chunk_bytes : 1;
    s.stride = (cllm_float_encoded_bytes_max(&kind->layout, CHUNK_ELEMENTS) + CLLM_READ_SLACK_BYTES + 63) & ~(size_t)63;
    size_t bytes = (size_t)s.chunk_count * s.chunk_bytes;
    s.original = allocate(bytes);
    s.decoded = allocate(bytes);
    s.stored = allocate(s.chunk_count * s.stride);
    s.symbols = allocate(GROUP_BYTES);
    s.stored_bytes = allocate(s.chunk_count * sizeof *s.stored_bytes);
    s.tables = allocate(s.chunk_count * sizeof *s.tables);
    s.lookup = allocate(sizeof *s.lookup);
    s.lookup->valid = false;
    uint64_t state = 1;
    for (size_t i = 0; i < bytes; i += kind->layout.element_bytes) {
        uint64_t element = make_element(&kind->layout, &state);
        memcpy(s.original + i, &element, kind->layout.element_bytes);
    }
    const char *place = in_cache ? "cache" : "memory";
    double copy = measure(&s, runs, run_copy);
    printf("| %-8s | %-6s | %6.2f |", kind->name, place, copy);
    size_t used =
        (size_t)snprintf(json, json_bytes, "{\"kind\":\"%s\",\"place\":\"%s\",\"memcpy\":%.3f", kind->name, place, copy);
    for (enum cllm_cpu_tier tier = CLLM_CPU_PORTABLE; tier <= cllm_cpu_tier(); tier++) {
        s.tier = tier;
        double encode = measure(&s, runs, run_encode), decode = measure(&s, runs, run_decode);
        if (memcmp(s.original, s.decoded, bytes) != 0) {
            fprintf(stderr, "codec: decoded to other bytes\n");
            exit(1);
        }
        printf(" %6.2f %6.2f |", encode, decode);
        used += (size_t)snprintf(json + used, json_bytes - used, ",\"%s\":{\"encode\":%.3f,\"decode\":%.3f}", tier_names[tier],
                                 encode, decode);
    }
    uint64_t stored = 0;
    for (uint32_t k = 0; k < s.chunk_count; k++) stored += s.stored_bytes[k];
    printf(" %6.2f %% |\n", 100.0 * (double)stored / (double)bytes);
    snprintf(json + used, json_bytes - used, "}");
    fflush(stdout);
    void *const all[] = {s.original, s.decoded, s.stored, s.symbols, s.stored_bytes, s.tables, s.lookup};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) free(all[i]);
}

int main(int argc, char **argv)
{
    unsigned runs = 9, mebibytes = 128;
    const char *only = NULL;
    int option;
    while ((option = getopt(argc, argv, "r:m:k:")) != -1) {
        if (option == 'k') {
            only = optarg;
            continue;
        }
        int value = option == '?' ? 0 : atoi(optarg);
        if (value < 1 || (option == 'r' && value > RUNS_MAX) || value > 4096) {
            fprintf(stderr, "usage: codec [-r RUNS] [-m MIB] [-k KIND]\n");
            return 2;
        }
        *(option == 'r' ? &runs : &mebibytes) = (unsigned)value;
    }
    char json[16][512];
    unsigned rows = 0;
    printf("GB/s of original bytes on one core, median of %u runs; encode and decode each\n\n| elements | from   | memcpy |",
           runs);
    for (enum cllm_cpu_tier tier = CLLM_CPU_PORTABLE; tier <= cllm_cpu_tier(); tier++) printf(" %-13s |", tier_names[tier]);
    printf(" stored   |\n|----------|--------|-------:|");
    for (enum cllm_cpu_tier tier = CLLM_CPU_PORTABLE; tier <= cllm_cpu_tier(); tier++) printf("--------------:|");
    printf("---------:|\n");
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (only && strcmp(only, kinds[i].name) != 0) continue;
        for (unsigned in_cache = 2; in_cache-- > 0;) {
            measure_kind(&kinds[i], (size_t)mebibytes << 20, in_cache, runs, json[rows], sizeof json[rows]);
            rows++;
        }
    }
    printf("\n{\"bench\":\"codec\",\"runs\":%u,\"rows\":[", runs);
    for (unsigned i = 0; i < rows; i++) printf("%s%s", i ? "," : "", json[i]);
    printf("]}\n");
    return 0;
}
