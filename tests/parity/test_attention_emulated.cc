/* test_attention_emulated.cc - the kernels of infer/kernels_attention.cuh on the CPU, by an emulated device: a token's row of the
 * embedding in every form, and attention near that in double precision, whatever the heads, spans and windows. The order in which
 * threads run is one of many, and tensor cores round otherwise: tests/parity/test_gpu_forward.c is the judge of a real device. */
#include "emulated_device.cuh"
#include "emulated_matrices.cuh"

#include "kernels_attention.cuh"

extern "C" {
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
}

#define NMSE_LIMIT 1e-8 /* queries and weights have 16 bits, sums are float32 */
#define GUARD -99.0f

alignas(128) uint8_t memory[1 << 20]; /* the shared memory of a block */
alignas(128) uint8_t slots[1];        /* that of a product */

static std::vector<float> make_vector(uint32_t count, uint64_t seed)
{
    std::vector<float> x(count);
    random_state = seed;
    for (float &value : x) value = next_gaussian();
    return x;
}

static double bf16(double value)
{
    return __bfloat162float(__float2bfloat16_rn((float)value));
}

/* ------------------------------------------------------------------------------------------------------------- start */

static void check_start(const test_matrix &m, uint32_t id)
{
    const uint32_t head_dim = 10, position = 77;
    const float frequencies[head_dim / 2] = {1, 0.5f, 0.25f, 0.01f, 0.001f};
    std::vector<float> hidden(m.columns, GUARD), cosines(head_dim / 2), sines(head_dim / 2);
    const volatile token_input input = {id, position};
    uint32_t position_out = 0;
    start_args args = {};
    args.input = &input;
    args.embedding = {m.form, {m.rows, m.columns}, m.elements.data(), m.window, m.patches.data()};
    args.frequencies = frequencies;
    args.attention_factor = 1.25f;
    args.head_dim = head_dim;
    args.hidden = hidden.data();
    args.cosines = cosines.data();
    args.sines = sines.data();
    args.position = &position_out;
    emulated::run(1, 8 * WARP, id % 2 != 0, [&] { start_token(args); });
    assert_memory_equal(hidden.data(), &m.values[(size_t)id * m.columns], m.columns * sizeof(float));
    assert_int_equal(position_out, position);
    for (uint32_t i = 0; i < head_dim / 2; i++) {
        assert_true(fabs(cosines[i] - 1.25 * cos((double)(position * frequencies[i]))) < 1e-5);
        assert_true(fabs(sines[i] - 1.25 * sin((double)(position * frequencies[i]))) < 1e-5);
    }
}

static void test_a_token_starts_with_its_row(void **)
{
    for (enum cllm_gpu_form form : {CLLM_GPU_BF16, CLLM_GPU_F16, CLLM_GPU_F32, CLLM_GPU_PACKED12}) {
        const test_matrix m = make_matrix(37, 700, form, 0.05, 21);
        if (form == CLLM_GPU_PACKED12) assert_true(m.patches.size() > 0);
        for (uint32_t id : {0u, 15u, 16u, 36u}) check_start(m, id);
    }
}

/* --------------------------------------------------------------------------------------------------------- attention */

struct attention_case {
    uint32_t heads, kv_heads, head_dim, context, position, window;
};

/* The token's own query, key and value, the cache before it, and what the kernel leaves. */
struct attention_data {
    uint32_t stride, group, chunks;
    std::vector<float> query, key, value, cosines, sines, span_values;
    std::vector<float2> span_scales;
    std::vector<uint4> key_memory, value_memory; /* aligned, zeros behind the dimensions of a row */

    const __nv_bfloat16 *keys() const
    {
        return (const __nv_bfloat16 *)key_memory.data();
    }
    const __nv_bfloat16 *values() const
    {
        return (const __nv_bfloat16 *)value_memory.data();
    }
};

static size_t place_of(const attention_case &c, const attention_data &data, uint32_t kv_head, uint32_t position, uint32_t i)
{
    return ((size_t)kv_head * c.context + position) * data.stride + i;
}

/* Positions from the token's own on hold what must not be seen. */
static void fill_cache(const attention_case &c, attention_data &data)
{
    __nv_bfloat16 *keys = (__nv_bfloat16 *)data.key_memory.data(), *values = (__nv_bfloat16 *)data.value_memory.data();
    for (uint32_t h = 0; h < c.kv_heads; h++) {
        for (uint32_t p = 0; p < c.context; p++) {
            for (uint32_t i = 0; i < c.head_dim; i++) {
                keys[place_of(c, data, h, p, i)] = __float2bfloat16_rn(p >= c.position ? NAN : next_gaussian());
                values[place_of(c, data, h, p, i)] = __float2bfloat16_rn(p >= c.position ? NAN : next_gaussian());
            }
        }
    }
}

static attention_data make_data(const attention_case &c)
{
    attention_data data = {};
    const uint32_t half = c.head_dim / 2, most = (c.context + CLLM_SPAN_POSITIONS - 1) / CLLM_SPAN_POSITIONS;
    const uint32_t span_count = min(most, (uint32_t)CLLM_SPAN_COUNT_MAX);
    data.stride = (c.head_dim + 7) / 8 * 8;
    data.group = c.heads / c.kv_heads;
    data.chunks = (data.group + ATTENTION_HEADS - 1) / ATTENTION_HEADS;
    data.query = make_vector(c.heads * c.head_dim, 11 + c.position);
    data.key = make_vector(c.kv_heads * c.head_dim, 12);
    data.value = make_vector(c.kv_heads * c.head_dim, 13);
    for (uint32_t i = 0; i < half; i++) {
        const float angle = (float)c.position / powf(100, (float)i / (float)half);
        data.cosines.push_back(cosf(angle));
        data.sines.push_back(sinf(angle));
    }
    const size_t cached = (size_t)c.kv_heads * c.context * data.stride;
    data.key_memory.resize(cached / 8);
    data.value_memory.resize(cached / 8);
    data.span_values.assign((size_t)span_count * c.heads * c.head_dim, GUARD);
    data.span_scales.assign((size_t)span_count * c.heads, make_float2(GUARD, GUARD));
    fill_cache(c, data);
    return data;
}

static std::vector<double> rotate_row(const attention_case &c, const attention_data &data, const float *row)
{
    const uint32_t half = c.head_dim / 2;
    std::vector<double> out(c.head_dim);
    for (uint32_t i = 0; i < half; i++) {
        out[i] = (double)row[i] * data.cosines[i] - (double)row[i + half] * data.sines[i];
        out[i + half] = (double)row[i + half] * data.cosines[i] + (double)row[i] * data.sines[i];
    }
    return out;
}

/* Of one head, by the definition; of the token itself what the cache will have. */
static std::vector<double> attend_slowly(const attention_case &c, const attention_data &data, uint32_t head)
{
    const uint32_t kv_head = head / data.group, begin = c.window && c.position + 1 > c.window ? c.position + 1 - c.window : 0;
    const std::vector<double> query = rotate_row(c, data, &data.query[head * c.head_dim]);
    const std::vector<double> own = rotate_row(c, data, &data.key[kv_head * c.head_dim]);
    std::vector<double> out(c.head_dim, 0);
    double sum = 0;
    for (uint32_t p = begin; p <= c.position; p++) {
        double score = 0;
        for (uint32_t i = 0; i < c.head_dim; i++) {
            const bool is_own = p == c.position;
            score += query[i] * (is_own ? bf16(own[i]) : __bfloat162float(data.keys()[place_of(c, data, kv_head, p, i)]));
        }
        const double weight = exp(score / sqrt(c.head_dim));
        sum += weight;
        for (uint32_t i = 0; i < c.head_dim; i++) {
            const double cached = p == c.position ? bf16(data.value[kv_head * c.head_dim + i])
                                                  : __bfloat162float(data.values()[place_of(c, data, kv_head, p, i)]);
            out[i] += weight * cached;
        }
    }
    for (double &value : out) value /= sum;
    return out;
}

static void run_kernel(const attention_case &c, attention_data &data, bool backwards)
{
    const uint32_t span_count = (uint32_t)(data.span_scales.size() / c.heads), position = c.position;
    attention_args args = {};
    args.query = data.query.data();
    args.key = data.key.data();
    args.value = data.value.data();
    args.cosines = data.cosines.data();
    args.sines = data.sines.data();
    args.keys = (__nv_bfloat16 *)data.key_memory.data();
    args.values = (__nv_bfloat16 *)data.value_memory.data();
    args.span_values = data.span_values.data();
    args.span_scales = data.span_scales.data();
    args.position = &position;
    args.value_stride = c.heads * c.head_dim;
    args.head_count = c.heads;
    args.group = data.group;
    args.chunk_count = data.chunks;
    args.head_dim = c.head_dim;
    args.head_stride = data.stride;
    args.context_size = c.context;
    args.window = c.window;
    args.scale = 1 / sqrtf((float)c.head_dim);
    void (*const kernel)(attention_args) = data.stride <= 32    ? attend<1>
                                           : data.stride <= 64  ? attend<2>
                                           : data.stride <= 128 ? attend<4>
                                                                : attend<8>;
    memset(memory, 0xEE, sizeof memory);
    for (std::vector<float> *left : {&data.query, &data.key, &data.value}) emulated::arrives_late(*left);
    emulated::run(dim3(c.kv_heads * data.chunks, span_count), ATTENTION_WARPS * WARP, backwards, [&] { kernel(args); });
}

/* Puts spans together as the product that follows does; those that are not seen must be left alone. */
static std::vector<double> merge_slowly(const attention_case &c, const attention_data &data, uint32_t head)
{
    const struct span_cut cut = cut_spans(c.position, c.window);
    std::vector<double> out(c.head_dim, 0);
    double highest = -INFINITY, sum = 0;
    for (uint32_t s = 0; s < cut.count; s++) highest = fmax(highest, data.span_scales[s * c.heads + head].x);
    for (uint32_t s = 0; s < cut.count; s++) {
        const float2 scale = data.span_scales[s * c.heads + head];
        const double factor = exp(scale.x - highest);
        sum += factor * scale.y;
        for (uint32_t i = 0; i < c.head_dim; i++) out[i] += factor * data.span_values[(s * c.heads + head) * c.head_dim + i];
    }
    for (size_t s = cut.count; s < data.span_scales.size() / c.heads; s++) {
        assert_true(data.span_scales[s * c.heads + head].x == GUARD);
        assert_true(data.span_values[(s * c.heads + head) * c.head_dim] == GUARD);
    }
    for (double &value : out) value /= sum;
    return out;
}

/* The cache has the token's own key and value afterwards, rounded, and nothing else has changed. */
static void check_cache(const attention_case &c, const attention_data &before, const attention_data &after)
{
    for (uint32_t h = 0; h < c.kv_heads; h++) {
        const std::vector<double> own = rotate_row(c, after, &after.key[h * c.head_dim]);
        for (uint32_t i = 0; i < c.head_dim; i++) {
            const size_t at = place_of(c, after, h, c.position, i);
            assert_true(fabs(__bfloat162float(after.keys()[at]) - own[i]) <= fabs(own[i]) / 128 + 1e-6);
            assert_true(__bfloat162float(after.values()[at]) == bf16(after.value[h * c.head_dim + i]));
        }
    }
    for (uint32_t h = 0; h < c.kv_heads; h++) {
        const size_t row = place_of(c, after, h, 0, 0), own = place_of(c, after, h, c.position, 0);
        assert_memory_equal(before.keys() + row, after.keys() + row, (own - row) * sizeof(__nv_bfloat16));
        assert_memory_equal(before.values() + row, after.values() + row, (own - row) * sizeof(__nv_bfloat16));
    }
}

static void test_attention_is_near(void **)
{
    static const attention_case cases[] = {
        {4, 2, 32, 40, 0, 0},    /* nothing before the token */
        {4, 2, 16, 300, 299, 0}, /* three spans, the last one whole but for its end */
        {9, 1, 6, 150, 128, 0},  /* more query heads than a block takes, dimensions that align with nothing; one position alone */
        {3, 3, 20, 500, 450, 300}, /* a window */
        {8, 2, 64, 140, 127, 0},      {4, 4, 128, 70, 65, 0},   {2, 1, 100, 129, 128, 1},
        {3, 1, 10, 6000, 5500, 0}, /* more positions than spans of the least size have room for */
        {4, 2, 12, 6000, 5999, 5000}, {2, 1, 256, 300, 260, 0}, {2, 1, 160, 200, 150, 0},
        {21, 1, 36, 4300, 4200, 0},   {2, 2, 2, 20, 15, 0},
    };
    for (const attention_case &c : cases) {
        const attention_data before = make_data(c);
        attention_data data = before;
        run_kernel(c, data, c.heads % 2 != 0);
        double error = 0, power = 0;
        for (uint32_t head = 0; head < c.heads; head++) {
            const std::vector<double> expected = attend_slowly(c, data, head), found = merge_slowly(c, data, head);
            for (uint32_t i = 0; i < c.head_dim; i++) {
                error += (found[i] - expected[i]) * (found[i] - expected[i]);
                power += expected[i] * expected[i];
            }
        }
        if (!(error <= NMSE_LIMIT * power)) fail_msg("%u heads of %u: NMSE %g", c.heads, c.head_dim, error / power);
        check_cache(c, before, data);
    }
}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_token_starts_with_its_row),
        cmocka_unit_test(test_attention_is_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
