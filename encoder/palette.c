/* palette.c - see palette.h. */
#include "palette.h"

#include "bytes.h"

static unsigned slot_of(uint64_t value)
{
    return (unsigned)(value * UINT64_C(0x9E3779B97F4A7C15) >> 54);
}

/* Where `value` is in the hash table, or the empty slot where it would be. */
static unsigned find_slot(const struct cllm_palette *palette, uint64_t value)
{
    unsigned s = slot_of(value);
    while (palette->slot[s] && palette->value[palette->slot[s] - 1] != value) s = (s + 1) % CLLM_PALETTE_SLOTS;
    return s;
}

unsigned cllm_palette_find(const struct cllm_palette *palette, uint64_t value)
{
    unsigned found = palette->slot[find_slot(palette, value)];
    return found ? found - 1 : palette->count;
}

unsigned cllm_palette_add(struct cllm_palette *palette, uint64_t value)
{
    unsigned s = find_slot(palette, value);
    if (palette->slot[s]) return palette->slot[s] - 1u;
    if (palette->count == 256) return 256;
    palette->value[palette->count] = value;
    palette->slot[s] = (uint16_t)++palette->count;
    return palette->count - 1;
}

static uint64_t element_at(const uint8_t *elements, unsigned element_bytes, uint32_t index)
{
    const uint8_t *at = elements + (size_t)index * element_bytes;
    switch (element_bytes) {
    case 1: return *at;
    case 2: return cllm_load_le16(at);
    case 4: return cllm_load_le32(at);
    default: return cllm_load_le64(at);
    }
}

bool cllm_palette_collect(struct cllm_palette *palette, const uint8_t *elements, unsigned element_bytes, uint32_t element_count,
                          uint8_t *indices_out, uint64_t counts[256])
{
    for (uint32_t i = 0; i < element_count; i++) {
        unsigned index = cllm_palette_add(palette, element_at(elements, element_bytes, i));
        if (index == 256) return false;
        indices_out[i] = (uint8_t)index;
        counts[index]++;
    }
    return true;
}
