/* test_product_emulated.cc - the kernel of infer/kernels_product.cuh on the CPU, by an emulated device: near the products in
 * double precision, and the same bits for packed weights as for raw ones, whatever the number of slots, blocks and patches. The
 * order in which threads run is one of many, and tensor cores round otherwise: tests/parity/test_gpu_forward.c is the judge of a
 * real device. */
#include "emulated_device.cuh"
#include "emulated_matrices.cuh"

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

static double multiply_row(const test_matrix &m, uint32_t row, const std::vector<float> &x)
{
    double sum = 0;
    for (uint32_t i = 0; i < m.columns; i++) sum += (double)m.values[(size_t)row * m.columns + i] * x[i];
    return sum;
}

/* Padded with zeros, as the kernel expects. */
static std::vector<float> make_input(uint32_t columns)
{
    std::vector<float> x(input_steps(columns) * PACK12_STEP, 0.0f);
    random_state = columns;
    for (uint32_t i = 0; i < columns; i++) x[i] = next_gaussian();
    return x;
}

/* ---------------------------------------------------------------------------------------------------------- products */

/* How a launch shares out work and memory. */
struct launch_case {
    unsigned blocks;
    uint32_t slot_warps, slot_count, round_sets;
};

static product_args describe(const test_matrix &m, std::vector<float> &x, const launch_case &launch)
{
    const uint32_t element_bytes = m.form == CLLM_GPU_F32 ? 4 : 2;
    product_args args = {};
    args.column_count = m.columns;
    args.row_bytes = m.form == CLLM_GPU_PACKED12 ? pack12_band_bytes(m.columns) : (uint64_t)m.columns * element_bytes;
    args.is_aligned = m.columns * element_bytes % 16 == 0;
    args.slot_warps = launch.slot_warps;
    args.slot_count = launch.slot_count;
    args.round_sets = launch.round_sets;
    args.input = x.data();
    emulated::arrives_late(x);
    args.epsilon = 1e-5f;
    return args;
}

static void add_part(product_args &args, int part, const test_matrix &m, const float *bias, float *output)
{
    args.set_count += pack12_band_count(m.rows);
    args.parts[part] = {m.elements.data(), m.patches.data(), bias, output, m.window, m.rows, args.set_count};
    args.maps[part] = {m.elements.data(), m.rows, m.columns, m.form == CLLM_GPU_F32 ? 4u : 2u};
}

static void run(enum cllm_gpu_form form, enum product_stage stage, unsigned blocks, product_args args)
{
    void (*const kernels[])(product_args) = {multiply<bf16_form>, multiply<f16_form>, multiply<f32_form>, multiply<packed_form>};
    args.stage = stage;
    share_sets(&args, blocks);
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
    launch_case launch;
    double tiny_share;
};

static std::vector<float> multiply_case(const product_case &c, enum cllm_gpu_form form, const launch_case &launch)
{
    std::vector<float> x = make_input(c.columns);
    const test_matrix m = make_matrix(c.rows, c.columns, form, c.tiny_share, 777 + c.columns);
    std::vector<float> bias(c.rows), y(c.rows + PACK12_ROWS, GUARD);
    std::vector<double> expected(c.rows);
    for (uint32_t i = 0; i < c.rows; i++) {
        bias[i] = next_gaussian();
        expected[i] = multiply_row(m, i, x) + bias[i];
    }
    product_args args = describe(m, x, launch);
    add_part(args, 0, m, bias.data(), y.data());
    run(form, STAGE_SET, launch.blocks, args);
    char what[99];
    snprintf(what, sizeof what, "%u x %u, form %d, %u slots, %zu listed patches", c.rows, c.columns, form, launch.slot_count,
             m.patches.size());
    assert_near(what, y.data(), expected);
    for (uint32_t i = 0; i < PACK12_ROWS; i++) assert_true(y[c.rows + i] == GUARD);
    return y;
}

static void test_products_are_near_and_alike(void **)
{
    static const product_case cases[] = {
        {33, 70, {2, 8, 1, 1}, 0.01},     {97, 192, {3, 8, 2, 2}, 0.01},    {41, 520, {2, 8, 2, 1}, 0.02},
        {20, 1037, {1, 5, 1, 2}, 0.02},   {64, 512, {3, 8, 1, 2}, 0.002},   {60, 2048, {4, 8, 2, 1}, 0.001},
        {24, 4096, {1, 8, 3, 2}, 0.3},    {16, 5632, {1, 8, 2, 1}, 0.0005}, {8, 14336, {1, 8, 3, 1}, 0.0001},
        {150, 512, {2, 8, 2, 3}, 0.0005}, {8, 1536, {1, 3, 1, 1}, 0.0001},  {130, 896, {2, 7, 2, 2}, 0.001},
        {160, 1100, {1, 16, 1, 10}, 0.2}, {20, 448, {1, 16, 2, 2}, 0.3},    {8, 16500, {1, 16, 1, 1}, 0.0001},
    };
    for (const product_case &c : cases) {
        const std::vector<float> raw = multiply_case(c, CLLM_GPU_BF16, c.launch);
        launch_case launch = c.launch;
        for (uint32_t more = 0; more < 2; more++) {
            launch.slot_count += more;
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
    std::vector<float> x, norm, normed; /* the input, and what the steps with a norm multiply */
    double scale;
};

static step_case make_step(uint32_t columns, enum cllm_gpu_form form)
{
    step_case c = {columns, form, make_input(columns), std::vector<float>((columns + 3) / 4 * 4), {}, 0};
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

/* Rows so many that threads finish more than one each. */
static std::vector<float> run_gate(step_case &c)
{
    const uint32_t rows = c.columns > 4096 ? 21 : 151;
    const test_matrix gate = make_matrix(rows, c.columns, c.form, 0.003, 5), up = make_matrix(rows, c.columns, c.form, 0.003, 6);
    const std::vector<float> bias(rows, 0.1f), up_bias(rows, -0.2f);
    std::vector<float> y(rows);
    std::vector<double> expected(rows);
    product_args args = describe(gate, c.x, c.columns == 192 ? launch_case{1, 16, 1, 10} : launch_case{4, 8, 2, 1});
    add_part(args, 1, up, up_bias.data(), y.data());
    args.set_count = 0;
    add_part(args, 0, gate, bias.data(), y.data());
    args.norm = c.norm.data();
    run(c.form, STAGE_GATE, c.columns == 192 ? 1 : 4, args);
    for (uint32_t i = 0; i < rows; i++) {
        const double g = multiply_row(gate, i, c.normed) * c.scale + 0.1f, u = multiply_row(up, i, c.normed) * c.scale - 0.2f;
        expected[i] = g / (1 + exp(-g)) * u;
    }
    assert_near("gate", y.data(), expected);
    return y;
}

static std::vector<float> run_add(step_case &c)
{
    const uint32_t rows = c.columns > 4096 ? 21 : 151;
    const launch_case launch = c.columns == 192 ? launch_case{1, 16, 1, 10} : launch_case{3, 8, 1, 2};
    const test_matrix m = make_matrix(rows, c.columns, c.form, 0.003, 7);
    std::vector<float> y(rows);
    std::vector<double> expected(rows);
    for (uint32_t i = 0; i < rows; i++) y[i] = (float)(i % 7);
    product_args args = describe(m, c.x, launch);
    add_part(args, 0, m, NULL, y.data());
    emulated::arrives_late(y);
    run(c.form, STAGE_ADD, launch.blocks, args);
    for (uint32_t i = 0; i < rows; i++) expected[i] = multiply_row(m, i, c.x) + i % 7;
    assert_near("add", y.data(), expected);
    return y;
}

/* Queries, keys and values: three matrices behind each other. */
static std::vector<float> run_parts(step_case &c)
{
    const uint32_t rows[] = {100, 24, 30}, most = 100;
    std::vector<float> all;
    std::vector<test_matrix> matrices;
    std::vector<std::vector<float>> outputs(3, std::vector<float>(most, GUARD));
    for (uint32_t i = 0; i < 3; i++) matrices.push_back(make_matrix(rows[i], c.columns, c.form, 0.003, 8 + i));
    product_args args = describe(matrices[0], c.x, {2, 8, 2, 2});
    for (int i = 0; i < 3; i++) add_part(args, i, matrices[i], NULL, outputs[i].data());
    args.norm = c.norm.data();
    run(c.form, STAGE_SET, 2, args);
    for (uint32_t i = 0; i < 3; i++) {
        std::vector<double> expected(rows[i]);
        for (uint32_t row = 0; row < rows[i]; row++) expected[row] = multiply_row(matrices[i], row, c.normed) * c.scale;
        assert_near("parts", outputs[i].data(), expected);
        for (uint32_t row = rows[i]; row < most; row++) assert_true(outputs[i][row] == GUARD);
        all.insert(all.end(), outputs[i].begin(), outputs[i].end());
    }
    return all;
}

/* What attention left in spans. */
struct spans_case {
    uint32_t heads, head_dim, position, window;
};

static std::vector<float> run_spans(const spans_case &c, enum cllm_gpu_form form)
{
    const uint32_t rows = 40, columns = c.heads * c.head_dim, spans = cut_spans(c.position, c.window).count;
    const test_matrix m = make_matrix(rows, columns, form, 0.003, 11);
    const uint32_t stride = input_steps(columns) * PACK12_STEP;
    std::vector<float> values((size_t)spans * stride), y(rows, 0.25f), x(columns);
    std::vector<float2> scales(spans * c.heads);
    std::vector<double> expected(rows);
    for (uint32_t head = 0; head < c.heads; head++) {
        std::vector<double> factors(spans);
        double sum = 0;
        for (uint32_t s = 0; s < spans; s++) {
            scales[s * c.heads + head] = {next_gaussian() * 3, 1 + fabsf(next_gaussian())};
            factors[s] = exp((double)scales[s * c.heads + head].x);
            sum += factors[s] * scales[s * c.heads + head].y;
        }
        for (uint32_t i = head * c.head_dim; i < (head + 1) * c.head_dim; i++) {
            double value = 0;
            for (uint32_t s = 0; s < spans; s++) value += (values[s * stride + i] = next_gaussian()) * factors[s] / sum;
            x[i] = (float)value;
        }
    }
    product_args args = describe(m, x, {3, 8, 1, 1});
    args.input = NULL;
    add_part(args, 0, m, NULL, y.data());
    args.spans = {values.data(), scales.data(), &c.position, stride, c.heads, c.head_dim, c.window};
    emulated::arrives_late(values);
    emulated::arrives_late(scales);
    run(form, STAGE_ADD, 3, args);
    for (uint32_t i = 0; i < rows; i++) expected[i] = multiply_row(m, i, x) + 0.25;
    assert_near("spans", y.data(), expected);
    return y;
}

/* One span to the most that there are, in batches that are full or not; heads that align with nothing. */
static void test_spans_are_put_together(void **)
{
    static const spans_case cases[] = {
        {32, 6, 2 * CLLM_SPAN_POSITIONS + 5, 0},   {170, 6, 0, 0},
        {13, 20, 7 * CLLM_SPAN_POSITIONS - 1, 0},  {4, 64, 40 * CLLM_SPAN_POSITIONS, 6 * CLLM_SPAN_POSITIONS},
        {5, 10, 32 * CLLM_SPAN_POSITIONS - 1, 0},  {3, 128, 32 * CLLM_SPAN_POSITIONS - 1, 0},
        {16, 36, 32 * CLLM_SPAN_POSITIONS + 9, 0}, {9, 14, 100, 1},
    };
    for (const spans_case &c : cases) {
        assert_true(run_spans(c, CLLM_GPU_BF16) == run_spans(c, CLLM_GPU_PACKED12));
    }
}

static void test_steps_are_near_and_alike(void **)
{
    /* part of a tile, of a step and of 16 bytes; more columns than are staged at once */
    for (uint32_t columns : {192u, 1024u, 70u, 1002u, 8333u}) {
        step_case raw = make_step(columns, CLLM_GPU_BF16), packed = make_step(columns, CLLM_GPU_PACKED12);
        assert_true(run_gate(raw) == run_gate(packed));
        assert_true(run_add(raw) == run_add(packed));
        assert_true(run_parts(raw) == run_parts(packed));
    }
}

int main()
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_products_are_near_and_alike),
        cmocka_unit_test(test_steps_are_near_and_alike),
        cmocka_unit_test(test_spans_are_put_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
