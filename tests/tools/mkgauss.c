/* mkgauss.c - writes a safetensors file of Gaussian weights, fast: the test material whose compressed size is known from
 * theory. Same arguments, same bytes.
 *
 *     mkgauss [-d BF16|F16|F32] [-n TENSORS] [-s SEED] [-g SIGMA] BYTES FILE
 *
 * BYTES counts tensor data and takes the suffixes K, M and G (powers of 1024); it is rounded down to whole elements of equal
 * tensors.
 */
#include "bytes.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ------------------------------------------------------------------------------------------------- normal numbers */

/* xoshiro256** (Blackman, Vigna 2018). */
struct random {
    uint64_t word[4];
};

static uint64_t rotate(uint64_t value, int count)
{
    return value << count | value >> (64 - count);
}

static uint64_t next_random(struct random *random)
{
    uint64_t *w = random->word, result = rotate(w[1] * 5, 7) * 9, shifted = w[1] << 17;
    w[2] ^= w[0];
    w[3] ^= w[1];
    w[1] ^= w[2];
    w[0] ^= w[3];
    w[2] ^= shifted;
    w[3] = rotate(w[3], 45);
    return result;
}

/* splitmix64 (Steele, Lea, Flood 2014) spreads a seed over the state. */
static struct random seed_random(uint64_t seed)
{
    struct random random;
    for (int i = 0; i < 4; i++) {
        uint64_t z = seed += UINT64_C(0x9E3779B97F4A7C15);
        z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
        z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
        random.word[i] = z ^ z >> 31;
    }
    return random;
}

static double uniform(struct random *random) /* in (0, 1] */
{
    return ((double)(next_random(random) >> 11) + 1) * 0x1p-53;
}

/* Ziggurat (Marsaglia, Tsang 2000): layers of equal area under exp(-x*x/2); edge[i] is the right end of layer i. */
#define LAYERS 256
#define TAIL_START 3.6541528853610088
#define LAYER_AREA 0.00492867323399

struct ziggurat {
    double edge[LAYERS + 1];
    double density[LAYERS + 1];
    double step[LAYERS];     /* edge[i] in units of 2^-53 */
    uint64_t inside[LAYERS]; /* below this many steps, the layer is wholly under the curve */
};

static double density_at(double x)
{
    return exp(-0.5 * x * x);
}

static void fill_ziggurat(struct ziggurat *z)
{
    z->edge[0] = LAYER_AREA / density_at(TAIL_START); /* the bottom layer with its tail, as a rectangle */
    z->edge[1] = TAIL_START;
    for (int i = 2; i < LAYERS; i++) {
        z->edge[i] = sqrt(-2 * log(LAYER_AREA / z->edge[i - 1] + density_at(z->edge[i - 1])));
    }
    z->edge[LAYERS] = 0;
    for (int i = 0; i <= LAYERS; i++) z->density[i] = density_at(z->edge[i]);
    for (int i = 0; i < LAYERS; i++) {
        z->step[i] = z->edge[i] * 0x1p-53;
        z->inside[i] = (uint64_t)(z->edge[i + 1] / z->edge[i] * 0x1p53);
    }
}

static double tail_normal(struct random *random)
{
    double x, y;
    do {
        x = -log(uniform(random)) / TAIL_START;
        y = -log(uniform(random));
    } while (y + y < x * x);
    return TAIL_START + x;
}

/* Rare: outside the part of a layer that needs no look at the curve. Zero where the point is to be thrown away. */
static double edge_normal(struct random *random, const struct ziggurat *z, unsigned layer, double x)
{
    if (layer == 0) return tail_normal(random);
    double height = z->density[layer] + uniform(random) * (z->density[layer + 1] - z->density[layer]);
    return height < density_at(x) ? x : 0;
}

static inline float next_normal(struct random *random, const struct ziggurat *z)
{
    for (;;) {
        uint64_t bits = next_random(random), steps = bits >> 11;
        unsigned layer = bits & (LAYERS - 1);
        double x = (double)(int64_t)steps * z->step[layer];
        if (__builtin_expect(steps >= z->inside[layer], 0)) {
            x = edge_normal(random, z, layer, x);
            if (x == 0) continue;
        }
        uint32_t magnitude;
        float value = (float)x; /* the sign is a coin toss: no branch */
        memcpy(&magnitude, &value, sizeof magnitude);
        magnitude |= (uint32_t)(bits >> 8 & 1) << 31;
        memcpy(&value, &magnitude, sizeof value);
        return value;
    }
}

/* ------------------------------------------------------------------------------------------------------- elements */

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Both round to nearest, ties to even. */
static uint16_t to_bf16(float value)
{
    uint32_t bits = bits_of(value);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static uint16_t to_f16(float value)
{
    uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
    if (magnitude < 0x38800000) return (uint16_t)(sign | (uint32_t)lrintf(fabsf(value) * 0x1p24f)); /* denormal */
    uint32_t rounded = (magnitude + 0xFFF + (magnitude >> 13 & 1)) >> 13;
    rounded -= 112 << 10; /* the difference of the biases */
    return (uint16_t)(sign | (rounded < 0x7C00 ? rounded : 0x7C00));
}

enum element { ELEMENT_BF16, ELEMENT_F16, ELEMENT_F32, ELEMENT_COUNT };
static const char *const element_names[ELEMENT_COUNT] = {"BF16", "F16", "F32"};
static const size_t element_sizes[ELEMENT_COUNT] = {2, 2, 4};

struct options {
    enum element element;
    uint64_t tensor_count, seed, byte_count;
    double sigma;
    const char *path;
};

static void fill(const struct options *options, struct random *random, const struct ziggurat *z, uint8_t *out, size_t count)
{
    float sigma = (float)options->sigma;
    for (size_t i = 0; i < count; i++) {
        float value = sigma * next_normal(random, z);
        switch (options->element) {
        case ELEMENT_BF16: cllm_store_le16(out + 2 * i, to_bf16(value)); break;
        case ELEMENT_F16: cllm_store_le16(out + 2 * i, to_f16(value)); break;
        default: cllm_store_le32(out + 4 * i, bits_of(value)); break;
        }
    }
}

/* ----------------------------------------------------------------------------------------------------------- file */

static bool write_header(const struct options *options, uint64_t elements, FILE *file)
{
    char *text = NULL;
    size_t text_bytes = 0;
    FILE *memory = open_memstream(&text, &text_bytes);
    if (!memory) return false;
    uint64_t each = elements * element_sizes[options->element];
    fprintf(memory, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (uint64_t i = 0; i < options->tensor_count; i++) {
        fprintf(memory, ",\"gauss.%llu.weight\":{\"dtype\":\"%s\",\"shape\":[%llu],\"data_offsets\":[%llu,%llu]}",
                (unsigned long long)i, element_names[options->element], (unsigned long long)elements,
                (unsigned long long)(i * each), (unsigned long long)((i + 1) * each));
    }
    fprintf(memory, "}");
    while (ftell(memory) % 8 != 0) fputc(' ', memory);
    if (fclose(memory) != 0) return false;
    uint8_t length[8];
    cllm_store_le64(length, text_bytes);
    bool written = fwrite(length, 1, 8, file) == 8 && fwrite(text, 1, text_bytes, file) == text_bytes;
    free(text);
    return written;
}

static bool write_data(const struct options *options, uint64_t elements, FILE *file)
{
    static uint8_t buffer[1 << 18];
    static struct ziggurat ziggurat;
    struct random random = seed_random(options->seed);
    size_t element_bytes = element_sizes[options->element], capacity = sizeof buffer / element_bytes;
    fill_ziggurat(&ziggurat);
    for (uint64_t left = elements * options->tensor_count; left > 0;) {
        size_t count = left < capacity ? (size_t)left : capacity;
        fill(options, &random, &ziggurat, buffer, count);
        if (fwrite(buffer, element_bytes, count, file) != count) return false;
        left -= count;
    }
    return true;
}

static int write_file(const struct options *options)
{
    uint64_t elements = options->byte_count / element_sizes[options->element] / options->tensor_count;
    FILE *file = fopen(options->path, "wb");
    bool written = file && write_header(options, elements, file) && write_data(options, elements, file);
    if (file && fclose(file) != 0) written = false;
    if (!written) perror(options->path);
    return written ? 0 : 1;
}

/* ------------------------------------------------------------------------------------------------------- arguments */

static int usage(void)
{
    fprintf(stderr, "usage: mkgauss [-d BF16|F16|F32] [-n TENSORS] [-s SEED] [-g SIGMA] BYTES[K|M|G] FILE\n");
    return 2;
}

static uint64_t parse_size(const char *text)
{
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    const char *suffixes = "KMG", *suffix = *end ? strchr(suffixes, *end) : NULL;
    if (suffix) value <<= 10 * (suffix - suffixes + 1);
    return end == text || (*end && (!suffix || end[1])) ? 0 : value;
}

int main(int argc, char **argv)
{
    struct options options = {.tensor_count = 1, .seed = 1, .sigma = 0.02};
    for (int option; (option = getopt(argc, argv, "d:n:s:g:")) != -1;) {
        switch (option) {
        case 'd':
            for (options.element = 0; options.element < ELEMENT_COUNT; options.element++) {
                if (strcmp(optarg, element_names[options.element]) == 0) break;
            }
            break;
        case 'n': options.tensor_count = strtoull(optarg, NULL, 10); break;
        case 's': options.seed = strtoull(optarg, NULL, 10); break;
        case 'g': options.sigma = strtod(optarg, NULL); break;
        default: return usage();
        }
    }
    if (argc - optind != 2 || options.element == ELEMENT_COUNT || options.tensor_count == 0) return usage();
    options.byte_count = parse_size(argv[optind]);
    options.path = argv[optind + 1];
    if (options.byte_count == 0) return usage();
    return write_file(&options);
}
