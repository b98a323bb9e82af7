/* test_product_emulated.cc - the kernel of infer/kernels_product.cuh on the CPU, by an emulated device: near the products in
 * double precision, and the same bits for packed weights as for raw ones, whatever the number of slots, blocks and patches. The
 * order in which threads run is one of many, and tensor cores round otherwise: tests/parity/test_gpu_forward.c is the judge of a
 * real device. */
#include "emulated_device.h"

#include "kernels_product.cuh"

extern "C" {
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
}

#define NMSE_LIMIT 1e-9 /* of an input with 16 bits, and sums in float32 */
#define GUARD -99.0f

alignas(128) uint8_t slots[1 << 20]; /* the shared memory of a block */

static uint64_t random_state = 1;

/* Marsaglia, "Xorshift RNGs", 2003. */
static uint64_t next_random()
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

/* Sum of uniform numbers: bell-shaped, mean 0, variance 1. */
static float next_gaussian()
{
    float sum = 0;
    for (int i = 0; i < 12; i++) sum += (float)(next_random() >> 40) * 0x1p-24f;
    return sum - 6;
}

/* ---------------------------------------------------------------------------------------------------------- matrices */

struct test_matrix {
    uint32_t rows, columns;
    enum cllm_gpu_form form;
    std::vector<float> values;
    std::vector<uint8_t> elements;
    std::vector<uint32_t> patch_starts, patches;
    uint64_t window = 0;
};

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* The eight most frequent upper bytes, sign apart. */
static uint64_t choose_window(const std::vector<float> &values)
{
    uint64_t counts[128] = {0}, window = 0;
    for (float value : values) counts[bits_of(value) >> 24 & 127]++;
    for (int i = 0; i < 8; i++) {
        unsigned best = 0;
        for (unsigned v = 1; v < 128; v++) best = counts[v] > counts[best] ? v : best;
        window |= (uint64_t)best << 8 * i;
        counts[best] = 0;
    }
    return window;
}

/* pack12.h, element by element. */
static void pack(test_matrix &m)
{
    const uint64_t row_bytes = pack12_row_bytes(m.columns);
    m.window = choose_window(m.values);
    m.elements.assign(m.rows * row_bytes, 0);
    m.patch_starts = {0};
    for (uint32_t row = 0; row < m.rows; row++) {
        for (uint32_t column = 0; column < m.columns; column++) {
            const uint32_t half = bits_of(m.values[(size_t)row * m.columns + column]) >> 16;
            const struct pack12_place place = pack12_place_unit(m.columns, column / PACK12_UNIT);
            const unsigned i = column % PACK12_UNIT;
            uint8_t *const to = m.elements.data() + row * row_bytes;
            uint32_t codes;
            const int index = pack12_find(m.window, half >> 8);
            to[place.low_offset + i] = (uint8_t)half;
            if (index < 0) {
                m.patches.push_back(column << 8 | half >> 8);
                continue;
            }
            memcpy(&codes, to + place.code_offset, sizeof codes);
            codes |= (uint32_t)index << pack12_index_bit(i) | half >> 15 << pack12_sign_bit(i);
            memcpy(to + place.code_offset, &codes, sizeof codes);
        }
        m.patch_starts.push_back((uint32_t)m.patches.size());
    }
}

/* `tiny_share` of the weights are far smaller than the others. The same seed gives the same numbers in BF16 and packed. */
static test_matrix make_matrix(uint32_t rows, uint32_t columns, enum cllm_gpu_form form, double tiny_share, uint64_t seed)
{
    test_matrix m = {};
    m.rows = rows;
    m.columns = columns;
    m.form = form;
    random_state = seed;
    for (size_t i = 0; i < (size_t)rows * columns; i++) {
        float value = next_gaussian() / 64;
        if ((double)(next_random() % 100000) < tiny_share * 100000) value *= ldexpf(1, -(int)(next_random() % 100));
        uint32_t bits = bits_of(value);
        const __half half = __float2half(value);
        if (form == CLLM_GPU_F16) value = __half2float(half);
        if (form == CLLM_GPU_BF16 || form == CLLM_GPU_PACKED12) bits = (bits + 0x7FFF) & 0xFFFF0000, memcpy(&value, &bits, 4);
        m.values.push_back(value);
        if (form == CLLM_GPU_PACKED12) continue;
        const uint32_t stored = form == CLLM_GPU_F32 ? bits : form == CLLM_GPU_F16 ? *(const uint16_t *)&half : bits >> 16;
        const uint8_t *const first = (const uint8_t *)&stored;
        m.elements.insert(m.elements.end(), first, first + (form == CLLM_GPU_F32 ? 4 : 2));
    }
    if (form == CLLM_GPU_PACKED12) pack(m);
    return m;
}

static double multiply_row(const test_matrix &m, uint32_t row, const std::vector<float> &x)
{
    double sum = 0;
    for (uint32_t i = 0; i < m.columns; i++) sum += (double)m.values[(size_t)row * m.columns + i] * x[i];
    return sum;
}

/* Padded with zeros, as the kernel expects. */
static std::vector<float> make_input(uint32_t columns)
{
    std::vector<float> x(product_groups(columns) * GROUP, 0.0f);
    random_state = columns;
    for (uint32_t i = 0; i < columns; i++) x[i] = next_gaussian();
    return x;
}

/* ---------------------------------------------------------------------------------------------------------- products */

static product_args describe(const test_matrix &m, const std::vector<float> &x, float *output, uint32_t slot_count)
{
    product_args args = {};
    args.column_count = m.columns;
    args.row_bytes =
        m.form == CLLM_GPU_PACKED12 ? pack12_row_bytes(m.columns) : (uint64_t)m.columns * (m.form == CLLM_GPU_F32 ? 4 : 2);
    args.full_groups = args.row_bytes % 16 == 0 ? m.columns / GROUP : 0;
    args.slot_count = slot_count;
    args.input = x.data();
    args.output = output;
    args.epsilon = 1e-5f;
    return args;
}

static void set_part(product_args &args, int part, const test_matrix &m, const float *bias, uint32_t set_end)
{
    args.parts[part] = {m.elements.data(), m.patch_starts.data(), m.patches.data(), bias, m.window, m.rows, set_end};
}

template <int STAGE>
static void run(enum cllm_gpu_form form, unsigned blocks, const product_args &args)
{
    void (*const kernels[])(product_args) = {multiply<bf16_form, STAGE>, multiply<f16_form, STAGE>, multiply<f32_form, STAGE>,
                                             multiply<packed_form, STAGE>};
    memset(slots, 0xEE, sizeof slots);
    emulated::run(blocks, PRODUCT_WARPS * WARP, blocks % 2 != 0, [&] { kernels[form](args); });
}

static void assert_near(const char *what, const float *found, const std::vector<double> &expected)
{
    double error = 0, power = 0;
    for (size_t i = 0; i < expected.size(); i++) {
        error += (found[i] - expected[i]) * (found[i] - expected[i]);
        power += expected[i] * expected[i];
    }
    if (!(error <= NMSE_LIMIT * power)) fail_msg("%s: NMSE %g", what, error / power);
}

struct product_case {
    uint32_t rows, columns;
    unsigned blocks;
    uint32_t slot_count;
    double tiny_share;
};

static std::vector<float> multiply_case(const product_case &c, enum cllm_gpu_form form, uint32_t slot_count)
{
    const std::vector<float> x = make_input(c.columns);
    const test_matrix m = make_matrix(c.rows, c.columns, form, c.tiny_share, 777 + c.columns);
    std::vector<float> bias(c.rows), y(c.rows + TILE, GUARD);
    std::vector<double> expected(c.rows);
    for (uint32_t i = 0; i < c.rows; i++) {
        bias[i] = next_gaussian();
        expected[i] = multiply_row(m, i, x) + bias[i];
    }
    product_args args = describe(m, x, y.data(), slot_count);
    set_part(args, 0, m, bias.data(), (c.rows + 1) / 2);
    run<STAGE_SET>(form, c.blocks, args);
    char what[99];
    snprintf(what, sizeof what, "%u x %u, form %d, %u slots, %zu patches", c.rows, c.columns, form, slot_count, m.patches.size());
    assert_near(what, y.data(), expected);
    for (uint32_t i = 0; i < TILE; i++) assert_true(y[c.rows + i] == GUARD);
    return y;
}

static void test_products_are_near_and_alike(void **)
{
    static const product_case cases[] = {
        {33, 70, 2, 1, 0.01},     {97, 192, 3, 2, 0.01},     {41, 520, 2, 5, 0.02},   {20, 1037, 1, 4, 0.02},
        {64, 512, 3, 3, 0.002},   {60, 2048, 4, 8, 0.001},   {24, 4096, 1, 17, 0.3},  {16, 5632, 1, 20, 0.0005},
        {8, 14336, 1, 9, 0.0001}, {150, 512, 2, 10, 0.0005}, {8, 1536, 1, 2, 0.0001},
    };
    for (const product_case &c : cases) {
        const std::vector<float> raw = multiply_case(c, CLLM_GPU_BF16, c.slot_count);
        for (uint32_t more = 0; more < 2; more++) {
            const std::vector<float> packed = multiply_case(c, CLLM_GPU_PACKED12, c.slot_count + more);
            assert_memory_equal(raw.data(), packed.data(), raw.size() * sizeof(float));
        }
        multiply_case(c, CLLM_GPU_F16, c.slot_count);
        multiply_case(c, CLLM_GPU_F32, c.slot_count);
    }
}

/* ------------------------------------------------------------------------------------------------------------- steps */

struct step_case {
    uint32_t columns;
    enum cllm_gpu_form form;
    std::vector<float> x, norm, normed; /* the input, and what the steps with a norm multiply */
    double scale;
};

static step_case make_step(uint32_t columns, enum cllm_gpu_form form)
{
    step_case c = {columns, form, make_input(columns), std::vector<float>(columns), {}, 0};
    double squares = 0;
    c.normed = c.x;
    for (uint32_t i = 0; i < columns; i++) {
        c.norm[i] = 1 + 0.2f * next_gaussian();
        c.normed[i] = c.x[i] * c.norm[i];
        squares += (double)c.x[i] * c.x[i];
    }
    c.scale = 1 / sqrt(squares / columns + 1e-5);
    return c;
}

static std::vector<float> run_gate(const step_case &c)
{
    const uint32_t rows = 101;
    const test_matrix gate = make_matrix(rows, c.columns, c.form, 0.003, 5), up = make_matrix(rows, c.columns, c.form, 0.003, 6);
    const std::vector<float> bias(rows, 0.1f);
    std::vector<float> y(rows);
    std::vector<double> expected(rows);
    product_args args = describe(gate, c.x, y.data(), 9);
    set_part(args, 0, gate, bias.data(), rows);
    set_part(args, 1, up, NULL, 0);
    args.norm = c.norm.data();
    run<STAGE_GATE>(c.form, 4, args);
    for (uint32_t i = 0; i < rows; i++) {
        const double g = multiply_row(gate, i, c.normed) * c.scale + 0.1f, u = multiply_row(up, i, c.normed) * c.scale;
        expected[i] = g / (1 + exp(-g)) * u;
    }
    assert_near("gate", y.data(), expected);
    return y;
}

static std::vector<float> run_add(const step_case &c)
{
    const uint32_t rows = 75;
    const test_matrix m = make_matrix(rows, c.columns, c.form, 0.003, 7);
    std::vector<float> y(rows, 0.5f);
    std::vector<double> expected(rows);
    product_args args = describe(m, c.x, y.data(), 7);
    set_part(args, 0, m, NULL, (rows + 1) / 2);
    run<STAGE_ADD>(c.form, 3, args);
    for (uint32_t i = 0; i < rows; i++) expected[i] = multiply_row(m, i, c.x) + 0.5;
    assert_near("add", y.data(), expected);
    return y;
}

/* Rows i and i + head_dim / 2 of each head, turned. */
static std::vector<double> turn_heads(const step_case &c, const test_matrix &m, uint32_t head_dim,
                                      const std::vector<float> &cosines, const std::vector<float> &sines)
{
    std::vector<double> out(m.rows);
    for (uint32_t row = 0; row < m.rows; row++) {
        const uint32_t i = row % head_dim, half = head_dim / 2;
        if (i >= half) continue;
        const double low = multiply_row(m, row, c.normed) * c.scale, high = multiply_row(m, row + half, c.normed) * c.scale;
        out[row] = low * cosines[i] - high * sines[i];
        out[row + half] = high * cosines[i] + low * sines[i];
    }
    return out;
}

/* What lies in the cache at a position, as float32: [head][dimension]. */
static std::vector<float> read_cache(const std::vector<__nv_bfloat16> &cache, const product_args &args, uint32_t heads)
{
    std::vector<float> out;
    for (uint32_t head = 0; head < heads; head++) {
        for (uint32_t i = 0; i < args.head_dim; i++) {
            out.push_back(__bfloat162float(cache[((size_t)head * args.context_size + *args.position) * args.head_stride + i]));
        }
    }
    return out;
}

static std::vector<float> run_qkv(const step_case &c, uint32_t head_dim)
{
    const uint32_t heads = 5, kv_heads = 2, half = head_dim / 2, position = 2, context = 4, stride = (head_dim + 7) / 8 * 8;
    const test_matrix query = make_matrix(heads * head_dim, c.columns, c.form, 0.003, 8),
                      key = make_matrix(kv_heads * head_dim, c.columns, c.form, 0.003, 9),
                      value = make_matrix(kv_heads * head_dim, c.columns, c.form, 0.003, 10);
    std::vector<float> y(query.rows), cosines(half), sines(half);
    std::vector<__nv_bfloat16> keys(kv_heads * context * stride), values(keys.size());
    for (uint32_t i = 0; i < half; i++) cosines[i] = cosf((float)i + 1), sines[i] = sinf((float)i + 1);
    product_args args = describe(query, c.x, y.data(), 11);
    set_part(args, PART_QUERY, query, NULL, heads * half);
    set_part(args, PART_KEY, key, NULL, (heads + kv_heads) * half);
    set_part(args, PART_VALUE, value, NULL, (heads + 2 * kv_heads) * half);
    args.norm = c.norm.data();
    args.position = &position;
    args.cosines = cosines.data();
    args.sines = sines.data();
    args.keys = keys.data();
    args.values = values.data();
    args.head_dim = head_dim;
    args.head_stride = stride;
    args.context_size = context;
    run<STAGE_QKV>(c.form, 3, args);
    assert_near("queries", y.data(), turn_heads(c, query, head_dim, cosines, sines));
    const std::vector<float> cached_keys = read_cache(keys, args, kv_heads), cached_values = read_cache(values, args, kv_heads);
    const std::vector<double> turned = turn_heads(c, key, head_dim, cosines, sines);
    for (uint32_t i = 0; i < key.rows; i++) {
        const double plain = multiply_row(value, i, c.normed) * c.scale;
        assert_true(fabs(cached_keys[i] - turned[i]) <= 0.005 * fabs(turned[i]) + 1e-6);
        assert_true(fabs(cached_values[i] - plain) <= 0.005 * fabs(plain) + 1e-6);
    }
    y.insert(y.end(), cached_keys.begin(), cached_keys.end());
    y.insert(y.end(), cached_values.begin(), cached_values.end());
    return y;
}

static void test_steps_are_near_and_alike(void **)
{
    for (uint32_t columns : {192u, 1024u}) {
        const step_case raw = make_step(columns, CLLM_GPU_BF16), packed = make_step(columns, CLLM_GPU_PACKED12);
        assert_true(run_gate(raw) == run_gate(packed));
        assert_true(run_add(raw) == run_add(packed));
        for (uint32_t head_dim : {6u, 20u, 64u}) assert_true(run_qkv(raw, head_dim) == run_qkv(packed, head_dim));
    }
}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_are_near_and_alike),
        cmocka_unit_test(test_steps_are_near_and_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
