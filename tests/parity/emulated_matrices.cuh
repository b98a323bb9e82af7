/* emulated_matrices.cuh - matrices of every form for the tests on the emulated device, made element by element. */
#ifndef CLLM_EMULATED_MATRICES_H
#define CLLM_EMULATED_MATRICES_H

#include "gpu_layout.h"
#include "pack12_layout.h"

#include <cuda_fp16.h>

#include <cmath>
#include <cstring>
#include <vector>

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

#endif
