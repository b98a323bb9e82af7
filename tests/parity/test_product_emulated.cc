/* test_product_emulated.cc - the kernel of infer/kernels_token.cuh on the CPU, by an emulated device: near products and attention
 * in double precision, and the same bits for packed weights as for raw ones, whatever the number of slots, blocks and patches. The
 * order in which threads run is one of many, and tensor cores round otherwise: tests/parity/test_gpu_forward.c is the judge of a
 * real device. */
#include "emulated_device.cuh"

#include "kernels_token.cuh"

extern "C" {
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
}

#define NMSE_LIMIT 1e-9 /* of an input with 16 bits, and sums in float32 */
#define GUARD -99.0f

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
    std::vector<uint32_t> patches;
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

static uint8_t *tile_of(test_matrix &m, uint32_t row, uint32_t column)
{
    const struct pack12_place place = pack12_find_place(m.columns, row % PACK12_ROWS, column);
    return m.elements.data() + row / PACK12_ROWS * pack12_band_bytes(m.columns) + place.tile;
}

static void pack_element(test_matrix &m, uint32_t row, uint32_t column, std::vector<uint32_t> &patches)
{
    const uint32_t half = bits_of(m.values[(size_t)row * m.columns + column]) >> 16;
    const struct pack12_place place = pack12_find_place(m.columns, row % PACK12_ROWS, column);
    const unsigned i = column % PACK12_UNIT;
    const int index = pack12_find(m.window, half >> 8);
    uint8_t *const tile = tile_of(m, row, column);
    uint32_t codes;
    tile[place.low_byte] = (uint8_t)half;
    if (index < 0) {
        patches.push_back(pack12_patch(row % PACK12_ROWS, column % PACK12_COLUMNS, half >> 8));
        return;
    }
    memcpy(&codes, tile + place.code_word, sizeof codes);
    codes |= (uint32_t)index << pack12_index_bit(i) | half >> 15 << pack12_sign_bit(i);
    memcpy(tile + place.code_word, &codes, sizeof codes);
}

/* pack12.h, element by element. */
static void pack(test_matrix &m)
{
    m.window = choose_window(m.values);
    m.elements.assign(pack12_band_count(m.rows) * pack12_band_bytes(m.columns), 0);
    for (uint32_t band = 0; band < m.rows; band += PACK12_ROWS) {
        for (uint32_t first = 0; first < m.columns; first += PACK12_COLUMNS) {
            std::vector<uint32_t> patches;
            for (uint32_t column = first; column < m.columns && column < first + PACK12_COLUMNS; column++) {
                for (uint32_t row = band; row < m.rows && row < band + PACK12_ROWS; row++) {
                    pack_element(m, row, column, patches);
                }
            }
            uint32_t head[PACK12_HEAD_BYTES / 4] = {(uint32_t)patches.size()};
            if (patches.size() > PACK12_PATCHES) {
                head[1] = (uint32_t)m.patches.size();
                m.patches.insert(m.patches.end(), patches.begin(), patches.end());
            } else {
                std::copy(patches.begin(), patches.end(), head + 1);
            }
            memcpy(tile_of(m, band, first), head, sizeof head);
        }
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

/* ------------------------------------------------------------------------------------------------------------ stages */

/* Numbers that blocks hand on, 16-byte aligned. */
struct vector_memory {
    std::vector<float4> fours;

    explicit vector_memory(size_t count) : fours((count + 3) / 4)
    {
        memset(fours.data(), 0xFF, fours.size() * sizeof(float4));
    }
    explicit vector_memory(const std::vector<float> &values) : vector_memory(values.size())
    {
        std::copy(values.begin(), values.end(), data());
    }
    float *data()
    {
        return (float *)fours.data();
    }
};

static std::vector<float> make_input(uint32_t columns)
{
    std::vector<float> x(columns);
    random_state = columns;
    for (float &value : x) value = next_gaussian();
    return x;
}

/* How a launch shares out work and memory. */
struct launch_case {
    unsigned blocks;
    uint32_t slot_count, round_sets;
};

#define AREA_BYTES (400u << 10)
#define SLOT_BYTES 16384u

static token_args make_args(const std::vector<token_stage> &stages, const launch_case &launch)
{
    static const float frequencies[64] = {0};
    token_args args = {};
    args.stages = stages.data();
    args.end = (uint32_t)stages.size();
    args.frequencies = frequencies;
    args.memory.slot_count = launch.slot_count;
    args.memory.slot_bytes = SLOT_BYTES;
    args.memory.more_slots = launch.slot_count > 1;
    args.memory.tile_warps = launch.slot_count / (args.memory.more_slots + 1);
    args.memory.area_offset = launch.slot_count * SLOT_BYTES;
    args.memory.fixed_offset = args.memory.area_offset + AREA_BYTES;
    return args;
}

static void run(const token_args &args, unsigned blocks)
{
    emulated::run(blocks, TOKEN_THREADS + WARP, blocks % 2 != 0, [&] { run_token<1>(args); });
}

static token_stage describe(enum token_step step, const test_matrix &m, const float *input)
{
    const uint32_t element_bytes = m.form == CLLM_GPU_F32 ? 4 : 2;
    token_stage stage = {};
    stage.step = step;
    stage.form = m.form;
    stage.column_count = m.columns;
    stage.tile_count = pack12_tile_count(m.columns);
    stage.row_bytes = m.form == CLLM_GPU_PACKED12 ? pack12_band_bytes(m.columns) : (uint64_t)m.columns * element_bytes;
    stage.is_aligned = m.columns * element_bytes % 16 == 0;
    stage.input = input;
    stage.epsilon = 1e-5f;
    return stage;
}

static void add_part(token_stage &stage, int part, const test_matrix &m, const float *bias, float *output)
{
    stage.set_count += pack12_band_count(m.rows);
    stage.parts[part] = {m.elements.data(), m.patches.data(), bias, output, m.window, m.rows, stage.set_count};
    stage.maps[part] = {m.elements.data(), m.rows, m.columns, m.form == CLLM_GPU_F32 ? 4u : 2u};
}

static void share_out(token_stage &stage, const launch_case &launch, uint32_t first_block)
{
    stage.first_block = first_block % launch.blocks;
    stage.whole_rounds = stage.set_count / launch.blocks;
    stage.more_blocks = stage.set_count % launch.blocks;
    stage.round_sets = launch.round_sets;
}

static void run_alone(token_stage &stage, const launch_case &launch)
{
    share_out(stage, launch, 1);
    const std::vector<token_stage> stages = {stage};
    run(make_args(stages, launch), launch.blocks);
}

static void assert_near(const char *what, const float *found, const std::vector<double> &expected, double limit)
{
    double error = 0, power = 0;
    for (size_t i = 0; i < expected.size(); i++) {
        error += (found[i] - expected[i]) * (found[i] - expected[i]);
        power += expected[i] * expected[i];
    }
    if (!(error <= limit * power)) fail_msg("%s: NMSE %g", what, error / power);
}

/* ---------------------------------------------------------------------------------------------------------- products */

struct product_case {
    uint32_t rows, columns;
    launch_case launch;
    double tiny_share;
};

static std::vector<float> multiply_case(const product_case &c, enum cllm_gpu_form form, const launch_case &launch)
{
    const std::vector<float> x = make_input(c.columns);
    const test_matrix m = make_matrix(c.rows, c.columns, form, c.tiny_share, 777 + c.columns);
    std::vector<float> bias(c.rows);
    std::vector<double> expected(c.rows);
    for (uint32_t i = 0; i < c.rows; i++) {
        bias[i] = next_gaussian();
        expected[i] = multiply_row(m, i, x) + bias[i];
    }
    vector_memory input(x), y(c.rows + PACK12_ROWS);
    token_stage stage = describe(STEP_SET, m, input.data());
    add_part(stage, 0, m, bias.data(), y.data());
    run_alone(stage, launch);
    char what[99];
    snprintf(what, sizeof what, "%u x %u, form %d, %u slots, %zu listed patches", c.rows, c.columns, form, launch.slot_count,
             m.patches.size());
    assert_near(what, y.data(), expected, NMSE_LIMIT);
    for (uint32_t i = 0; i < PACK12_ROWS; i++) assert_false(is_written(y.data()[c.rows + i]));
    return std::vector<float>(y.data(), y.data() + c.rows);
}

static void test_products_are_near_and_alike(void **)
{
    static const product_case cases[] = {
        {33, 70, {2, 8, 1}, 0.01},     {97, 192, {3, 8, 2}, 0.01},    {41, 520, {2, 16, 1}, 0.02},
        {20, 1037, {1, 1, 2}, 0.02},   {64, 512, {3, 1, 2}, 0.002},   {60, 2048, {4, 18, 1}, 0.001},
        {24, 4096, {1, 24, 2}, 0.3},   {16, 5632, {1, 24, 1}, 0.0005}, {8, 14336, {1, 32, 1}, 0.0001},
        {150, 512, {2, 8, 3}, 0.0005}, {8, 1536, {1, 2, 1}, 0.0001},  {130, 896, {2, 30, 2}, 0.001},
    };
    for (const product_case &c : cases) {
        const std::vector<float> raw = multiply_case(c, CLLM_GPU_BF16, c.launch);
        launch_case launch = c.launch;
        for (uint32_t more = 0; more < 2; more++) {
            launch.slot_count -= more && launch.slot_count > 2 ? 2 : 0;
            launch.blocks += more;
            const std::vector<float> packed = multiply_case(c, CLLM_GPU_PACKED12, launch);
            assert_memory_equal(raw.data(), packed.data(), raw.size() * sizeof(float));
        }
        multiply_case(c, CLLM_GPU_F16, c.launch);
        multiply_case(c, CLLM_GPU_F32, c.launch);
    }
}

/* ------------------------------------------------------------------------------------------------------------- steps */

struct step_case {
    uint32_t columns;
    enum cllm_gpu_form form;
    std::vector<float> x, normed; /* the input, and what the steps with a norm multiply */
    vector_memory norm;
    double scale;
};

static step_case make_step(uint32_t columns, enum cllm_gpu_form form)
{
    step_case c = {columns, form, make_input(columns), {}, vector_memory(columns), 0};
    double squares = 0;
    c.normed = c.x;
    for (uint32_t i = 0; i < columns; i++) {
        c.norm.data()[i] = 1 + 0.2f * next_gaussian();
        c.normed[i] = c.x[i] * c.norm.data()[i];
        squares += (double)c.x[i] * c.x[i];
    }
    c.scale = 1 / sqrt(squares / columns + 1e-5);
    return c;
}

static std::vector<float> floats_of(vector_memory &memory, size_t count)
{
    return std::vector<float>(memory.data(), memory.data() + count);
}

static std::vector<float> run_gate(step_case &c)
{
    const uint32_t rows = 101;
    const test_matrix gate = make_matrix(rows, c.columns, c.form, 0.003, 5), up = make_matrix(rows, c.columns, c.form, 0.003, 6);
    const std::vector<float> bias(rows, 0.1f);
    vector_memory x(c.x), y(rows);
    std::vector<double> expected(rows);
    token_stage stage = describe(STEP_GATE, gate, x.data());
    add_part(stage, 1, up, NULL, y.data());
    stage.set_count = 0;
    add_part(stage, 0, gate, bias.data(), y.data());
    stage.norm = c.norm.data();
    run_alone(stage, {4, 18, 1});
    for (uint32_t i = 0; i < rows; i++) {
        const double g = multiply_row(gate, i, c.normed) * c.scale + 0.1f, u = multiply_row(up, i, c.normed) * c.scale;
        expected[i] = g / (1 + exp(-g)) * u;
    }
    assert_near("gate", y.data(), expected, NMSE_LIMIT);
    return floats_of(y, rows);
}

static std::vector<float> run_add(step_case &c)
{
    const uint32_t rows = 75;
    const test_matrix m = make_matrix(rows, c.columns, c.form, 0.003, 7);
    vector_memory x(c.x), prior(std::vector<float>(rows, 0.5f)), y(rows);
    std::vector<double> expected(rows);
    token_stage stage = describe(STEP_ADD, m, x.data());
    add_part(stage, 0, m, NULL, y.data());
    stage.prior = prior.data();
    run_alone(stage, {3, 8, 2});
    for (uint32_t i = 0; i < rows; i++) expected[i] = multiply_row(m, i, c.x) + 0.5;
    assert_near("add", y.data(), expected, NMSE_LIMIT);
    return floats_of(y, rows);
}

/* Queries, keys and values: three matrices behind each other. */
static std::vector<float> run_parts(step_case &c)
{
    const uint32_t rows[] = {100, 24, 30}, most = 100;
    std::vector<float> all;
    std::vector<test_matrix> matrices;
    std::vector<vector_memory> outputs(3, vector_memory(most));
    vector_memory x(c.x);
    for (uint32_t i = 0; i < 3; i++) matrices.push_back(make_matrix(rows[i], c.columns, c.form, 0.003, 8 + i));
    token_stage stage = describe(STEP_SET, matrices[0], x.data());
    for (int i = 0; i < 3; i++) add_part(stage, i, matrices[i], NULL, outputs[i].data());
    stage.norm = c.norm.data();
    run_alone(stage, {2, 8, 2});
    for (uint32_t i = 0; i < 3; i++) {
        std::vector<double> expected(rows[i]);
        for (uint32_t row = 0; row < rows[i]; row++) expected[row] = multiply_row(matrices[i], row, c.normed) * c.scale;
        assert_near("parts", outputs[i].data(), expected, NMSE_LIMIT);
        for (uint32_t row = rows[i]; row < most; row++) assert_false(is_written(outputs[i].data()[row]));
        for (uint32_t row = 0; row < rows[i]; row++) all.push_back(outputs[i].data()[row]);
    }
    return all;
}

static void test_steps_are_near_and_alike(void **)
{
    for (uint32_t columns : {192u, 1024u}) {
        step_case raw = make_step(columns, CLLM_GPU_BF16), packed = make_step(columns, CLLM_GPU_PACKED12);
        assert_true(run_gate(raw) == run_gate(packed));
        assert_true(run_add(raw) == run_add(packed));
        assert_true(run_parts(raw) == run_parts(packed));
    }
}

/* ------------------------------------------------------------------------------------------------------------ chains */

/* Products of products: more stages than are described in shared memory at a time, some without work for some blocks. */
static std::vector<float> run_chain(enum cllm_gpu_form form, const launch_case &launch)
{
    enum { STAGES = 3 * STAGE_RING };
    std::vector<test_matrix> matrices;
    std::vector<vector_memory> vectors = {vector_memory(make_input(300))};
    std::vector<token_stage> stages;
    std::vector<double> expected(vectors[0].data(), vectors[0].data() + 300);
    for (uint32_t i = 0; i < STAGES; i++) {
        const uint32_t rows = i % 2 ? 300 : 40;
        matrices.push_back(make_matrix(rows, (uint32_t)expected.size(), form, 0.003, 90 + i));
        vectors.push_back(vector_memory(rows));
        std::vector<double> next(rows, 0);
        for (uint32_t row = 0; row < rows; row++) {
            for (size_t k = 0; k < expected.size(); k++) next[row] += matrices[i].values[row * expected.size() + k] * expected[k];
        }
        expected = next;
    }
    for (uint32_t i = 0, first_block = 0; i < STAGES; i++) {
        stages.push_back(describe(STEP_SET, matrices[i], vectors[i].data()));
        add_part(stages[i], 0, matrices[i], NULL, vectors[i + 1].data());
        share_out(stages[i], launch, first_block);
        first_block += stages[i].set_count;
    }
    run(make_args(stages, launch), launch.blocks);
    assert_near("a chain", vectors.back().data(), expected, NMSE_LIMIT * STAGES);
    return floats_of(vectors.back(), expected.size());
}

static void test_chains_are_near_and_alike(void **)
{
    const std::vector<float> raw = run_chain(CLLM_GPU_BF16, {5, 24, 1});
    assert_true(raw == run_chain(CLLM_GPU_PACKED12, {4, 4, 1}));
    assert_true(raw == run_chain(CLLM_GPU_PACKED12, {7, 30, 2}));
}

/* --------------------------------------------------------------------------------------------------------- attention */

/* A token's own row of everything that attention reads, and the cache before it. */
struct attention_case {
    uint32_t heads, kv_heads, head_dim, context, position, window;
};

static float bf16(float value)
{
    return __bfloat162float(__float2bfloat16_rn(value));
}

/* Rotates in double precision. */
static std::vector<double> rotate(const float *head, uint32_t dims, uint32_t position, const float *frequencies)
{
    std::vector<double> out(dims);
    for (uint32_t i = 0; i < dims / 2; i++) {
        const double angle = (double)((float)position * frequencies[i]), low = head[i], high = head[i + dims / 2];
        out[i] = low * cos(angle) - high * sin(angle);
        out[i + dims / 2] = high * cos(angle) + low * sin(angle);
    }
    return out;
}

static void run_attention_case(const attention_case &c, const launch_case &launch)
{
    const uint32_t stride = (c.head_dim + 7) / 8 * 8, group = c.heads / c.kv_heads, query = c.heads * c.head_dim;
    const uint32_t key = c.kv_heads * c.head_dim, rows = 40, begin = c.window && c.position + 1 > c.window ? c.position + 1 - c.window : 0;
    float frequencies[64];
    for (uint32_t i = 0; i < c.head_dim / 2; i++) frequencies[i] = 1 / powf(100, (float)i / (float)c.head_dim);
    vector_memory q(make_input(query)), k(make_input(key)), v(make_input(key + 1)), spans(32 * (query + 2 * c.heads + 64));
    vector_memory prior(std::vector<float>(rows, 0.25f)), y(rows);
    const size_t cached = (size_t)c.kv_heads * c.context * stride;
    std::vector<uint4> key_memory(cached / 8), value_memory(cached / 8); /* zeros */
    __nv_bfloat16 *keys = (__nv_bfloat16 *)key_memory.data(), *values = (__nv_bfloat16 *)value_memory.data();
    random_state = 4711;
    for (uint32_t h = 0; h < c.kv_heads; h++) {
        for (uint32_t p = 0; p < c.context; p++) { /* what lies behind the position must not matter */
            for (uint32_t i = 0; i < c.head_dim; i++) {
                const size_t at = ((size_t)h * c.context + p) * stride + i;
                keys[at] = __float2bfloat16_rn(p > c.position ? NAN : next_gaussian());
                values[at] = __float2bfloat16_rn(p > c.position ? NAN : next_gaussian());
            }
        }
    }
    std::vector<double> attended(query), expected(rows);
    for (uint32_t h = 0; h < c.heads; h++) {
        const uint32_t kv = h / group;
        const std::vector<double> turned = rotate(q.data() + h * c.head_dim, c.head_dim, c.position, frequencies);
        const std::vector<double> own = rotate(k.data() + kv * c.head_dim, c.head_dim, c.position, frequencies);
        std::vector<double> weights;
        double sum = 0;
        for (uint32_t p = begin; p <= c.position; p++) {
            double score = 0;
            for (uint32_t i = 0; i < c.head_dim; i++) {
                const float cache = __bfloat162float(keys[((size_t)kv * c.context + p) * stride + i]);
                score += turned[i] * (p == c.position ? bf16((float)own[i]) : cache);
            }
            weights.push_back(exp(score / sqrt(c.head_dim)));
            sum += weights.back();
        }
        for (uint32_t i = 0; i < c.head_dim; i++) {
            double value = 0;
            for (uint32_t p = begin; p <= c.position; p++) {
                const float cache = __bfloat162float(values[((size_t)kv * c.context + p) * stride + i]);
                value += weights[p - begin] * (p == c.position ? bf16(v.data()[kv * c.head_dim + i]) : cache);
            }
            attended[h * c.head_dim + i] = value / sum;
        }
    }
    const test_matrix m = make_matrix(rows, query, CLLM_GPU_PACKED12, 0.003, 11);
    for (uint32_t row = 0; row < rows; row++) {
        expected[row] = 0.25;
        for (uint32_t i = 0; i < query; i++) expected[row] += m.values[row * query + i] * attended[i];
    }
    std::vector<token_stage> stages(2);
    stages[0] = {};
    stages[0].step = STEP_ATTEND;
    stages[0].first_block = 1 % launch.blocks;
    stages[0].query = q.data(), stages[0].key = k.data(), stages[0].value = v.data();
    stages[0].keys = keys, stages[0].values = values, stages[0].spans = spans.data();
    stages[1] = describe(STEP_ADD, m, NULL);
    add_part(stages[1], 0, m, NULL, y.data());
    stages[1].spans = spans.data(), stages[1].prior = prior.data();
    share_out(stages[1], launch, 0);
    token_args args = make_args(stages, launch);
    args.position = c.position;
    args.frequencies = frequencies;
    args.attention_factor = 1;
    const uint32_t span_floats = (query + 2 * c.heads + 31) / 32 * 32;
    const uint32_t chunks = (group + CLLM_ATTENTION_HEADS_MAX - 1) / CLLM_ATTENTION_HEADS_MAX;
    args.attention = {c.heads,  group,       chunks, c.kv_heads, c.head_dim, stride, c.context, c.window,
                      span_floats, query, 1 / sqrtf((float)c.head_dim)};
    run(args, launch.blocks);
    assert_near("attention", y.data(), expected, 1e-8);
    for (uint32_t h = 0; h < c.kv_heads; h++) {
        const std::vector<double> own = rotate(k.data() + h * c.head_dim, c.head_dim, c.position, frequencies);
        for (uint32_t i = 0; i < c.head_dim; i++) {
            const size_t at = ((size_t)h * c.context + c.position) * stride + i;
            assert_true(fabs(__bfloat162float(keys[at]) - own[i]) <= fabs(own[i]) / 128 + 1e-6);
            assert_true(__bfloat162float(values[at]) == bf16(v.data()[h * c.head_dim + i]));
        }
    }
}

static void test_attention_is_near(void **)
{
    run_attention_case({4, 2, 32, 40, 0, 0}, {3, 18, 1});
    run_attention_case({4, 2, 16, 700, 2 * CLLM_SPAN_POSITIONS + 5, 0}, {2, 18, 1});
    run_attention_case({9, 1, 6, 300, 299, 0}, {3, 6, 1});
    run_attention_case({3, 3, 20, 500, 450, 300}, {4, 20, 2});
}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_are_near_and_alike),
        cmocka_unit_test(test_steps_are_near_and_alike),
        cmocka_unit_test(test_chains_are_near_and_alike),
        cmocka_unit_test(test_attention_is_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
