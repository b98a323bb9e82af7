/* tokenizer_unicode.c - character classes, normalization and lower case, with the Unicode versions of the reference.
 *
 * The tokenizers library takes its Unicode data from five places of different age, utf8proc 2.8 has Unicode 15.0 and PCRE2
 * 10.42 has 14.0. Ids must be equal for every character, so each table below lists where ours and theirs differ; they were
 * made by asking the library about every code point. With newer libraries here the tables stay right where they say more.
 */
#include "tokenizer_internal.h"

#include <stdlib.h>
#include <utf8proc.h>

struct char_range {
    uint32_t first, last;
};

struct stand_in {
    uint32_t first, last;
    uint32_t target; /* one character for the whole range; in extra_lowercase that of `first`, the others follow */
};

/* Digits asks Rust's char::is_numeric (Unicode 17). */
static const struct char_range extra_numeric[] = {
    {0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9}, {0x11DE0, 0x11DE9}, {0x16130, 0x16139},
    {0x16D70, 0x16D79}, {0x16FF4, 0x16FF6}, {0x1CCF0, 0x1CCF9}, {0x1E5F1, 0x1E5FA},
};

/* Punctuation asks the unicode_categories crate (Unicode 8), and also takes all ASCII punctuation. */
static const struct char_range extra_punctuation[] = {
    {0x24, 0x24}, {0x2B, 0x2B}, {0x3C, 0x3E},     {0x5E, 0x5E},       {0x60, 0x60},
    {0x7C, 0x7C}, {0x7E, 0x7E}, {0x166D, 0x166D}, {0x111C9, 0x111C9},
};
static const struct char_range not_punctuation[] = {
    {0x61D, 0x61D},     {0x9FD, 0x9FD},     {0xA76, 0xA76},     {0xC77, 0xC77},     {0xC84, 0xC84},     {0x1B7D, 0x1B7E},
    {0x2E43, 0x2E4F},   {0x2E52, 0x2E5D},   {0x10EAD, 0x10EAD}, {0x10F55, 0x10F59}, {0x10F86, 0x10F89}, {0x1144B, 0x1144F},
    {0x1145A, 0x1145B}, {0x1145D, 0x1145D}, {0x11660, 0x1166C}, {0x116B9, 0x116B9}, {0x1183B, 0x1183B}, {0x11944, 0x11946},
    {0x119E2, 0x119E2}, {0x11A3F, 0x11A46}, {0x11A9A, 0x11A9C}, {0x11A9E, 0x11AA2}, {0x11B00, 0x11B09}, {0x11C41, 0x11C45},
    {0x11C70, 0x11C71}, {0x11EF7, 0x11EF8}, {0x11F43, 0x11F4F}, {0x11FFF, 0x11FFF}, {0x12FF1, 0x12FF2}, {0x16E97, 0x16E9A},
    {0x16FE2, 0x16FE2}, {0x1E95E, 0x1E95F},
};

/* \w of Rust's regex crate (Unicode 16): word characters beyond L, M, Nd, Nl and Pc. */
static const struct char_range extra_word[] = {
    {0x897, 0x897},     {0x1C89, 0x1C8A},   {0x200C, 0x200D},   {0x24B6, 0x24E9},   {0xA7CB, 0xA7CD},   {0xA7DA, 0xA7DC},
    {0x105C0, 0x105F3}, {0x10D40, 0x10D65}, {0x10D69, 0x10D6D}, {0x10D6F, 0x10D85}, {0x10EC2, 0x10EC4}, {0x10EFC, 0x10EFC},
    {0x11380, 0x11389}, {0x1138B, 0x1138B}, {0x1138E, 0x1138E}, {0x11390, 0x113B5}, {0x113B7, 0x113C0}, {0x113C2, 0x113C2},
    {0x113C5, 0x113C5}, {0x113C7, 0x113CA}, {0x113CC, 0x113D3}, {0x113E1, 0x113E2}, {0x116D0, 0x116E3}, {0x11BC0, 0x11BE0},
    {0x11BF0, 0x11BF9}, {0x11F5A, 0x11F5A}, {0x13460, 0x143FA}, {0x16100, 0x16139}, {0x16D40, 0x16D6C}, {0x16D70, 0x16D79},
    {0x18CFF, 0x18CFF}, {0x1CCF0, 0x1CCF9}, {0x1E5D0, 0x1E5FA}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189},
    {0x2EBF0, 0x2EE5D},
};

/* Regexes run in Oniguruma 6.9.10 (Unicode 16): characters that PCRE2 does not know, or knows as something else. */
static const struct stand_in stand_ins[] = {
    {0x897, 0x897, 0xE31},       {0xCF3, 0xCF3, 0x903},       {0xECE, 0xECE, 0xE31},       {0x1B4E, 0x1B4F, 0xE4F},
    {0x1B7F, 0x1B7F, 0xE4F},     {0x1C89, 0x1C89, 0x1E00},    {0x1C8A, 0x1C8A, 0x1E01},    {0x2427, 0x2429, 0x2400},
    {0x2FFC, 0x2FFF, 0x2400},    {0x31E4, 0x31E5, 0x2400},    {0x31EF, 0x31EF, 0x2400},    {0xA7CB, 0xA7CC, 0x1E00},
    {0xA7CD, 0xA7CD, 0x1E01},    {0xA7DA, 0xA7DA, 0x1E00},    {0xA7DB, 0xA7DB, 0x1E01},    {0xA7DC, 0xA7DC, 0x1E00},
    {0x105C0, 0x105F3, 0x10000}, {0x10D40, 0x10D49, 0x104A0}, {0x10D4A, 0x10D4D, 0x10000}, {0x10D4E, 0x10D4E, 0x16B40},
    {0x10D4F, 0x10D4F, 0x10000}, {0x10D50, 0x10D65, 0x10400}, {0x10D69, 0x10D6D, 0x101FD}, {0x10D6E, 0x10D6E, 0x10EAD},
    {0x10D6F, 0x10D6F, 0x16B40}, {0x10D70, 0x10D85, 0x10428}, {0x10D8E, 0x10D8F, 0x1D6C1}, {0x10EC2, 0x10EC4, 0x10000},
    {0x10EFC, 0x10EFF, 0x101FD}, {0x1123F, 0x11240, 0x10000}, {0x11241, 0x11241, 0x101FD}, {0x11380, 0x11389, 0x10000},
    {0x1138B, 0x1138B, 0x10000}, {0x1138E, 0x1138E, 0x10000}, {0x11390, 0x113B5, 0x10000}, {0x113B7, 0x113B7, 0x10000},
    {0x113B8, 0x113BA, 0x11000}, {0x113BB, 0x113C0, 0x101FD}, {0x113C2, 0x113C2, 0x11000}, {0x113C5, 0x113C5, 0x11000},
    {0x113C7, 0x113CA, 0x11000}, {0x113CC, 0x113CD, 0x11000}, {0x113CE, 0x113CE, 0x101FD}, {0x113CF, 0x113CF, 0x11000},
    {0x113D0, 0x113D0, 0x101FD}, {0x113D1, 0x113D1, 0x10000}, {0x113D2, 0x113D2, 0x101FD}, {0x113D3, 0x113D3, 0x10000},
    {0x113D4, 0x113D5, 0x10100}, {0x113D7, 0x113D8, 0x10100}, {0x113E1, 0x113E2, 0x101FD}, {0x116D0, 0x116E3, 0x104A0},
    {0x1171E, 0x1171E, 0x11000}, {0x11B00, 0x11B09, 0x10100}, {0x11BC0, 0x11BE0, 0x10000}, {0x11BE1, 0x11BE1, 0x10100},
    {0x11BF0, 0x11BF9, 0x104A0}, {0x11F00, 0x11F01, 0x101FD}, {0x11F02, 0x11F02, 0x10000}, {0x11F03, 0x11F03, 0x11000},
    {0x11F04, 0x11F10, 0x10000}, {0x11F12, 0x11F33, 0x10000}, {0x11F34, 0x11F35, 0x11000}, {0x11F36, 0x11F3A, 0x101FD},
    {0x11F3E, 0x11F3F, 0x11000}, {0x11F40, 0x11F40, 0x101FD}, {0x11F41, 0x11F41, 0x11000}, {0x11F42, 0x11F42, 0x101FD},
    {0x11F43, 0x11F4F, 0x10100}, {0x11F50, 0x11F59, 0x104A0}, {0x11F5A, 0x11F5A, 0x101FD}, {0x1342F, 0x1342F, 0x10000},
    {0x13439, 0x1343F, 0x110BD}, {0x13440, 0x13440, 0x101FD}, {0x13441, 0x13446, 0x10000}, {0x13447, 0x13455, 0x101FD},
    {0x13460, 0x143FA, 0x10000}, {0x16100, 0x1611D, 0x10000}, {0x1611E, 0x16129, 0x101FD}, {0x1612A, 0x1612C, 0x11000},
    {0x1612D, 0x1612F, 0x101FD}, {0x16130, 0x16139, 0x104A0}, {0x16D40, 0x16D42, 0x16B40}, {0x16D43, 0x16D6A, 0x10000},
    {0x16D6B, 0x16D6C, 0x16B40}, {0x16D6D, 0x16D6F, 0x10100}, {0x16D70, 0x16D79, 0x104A0}, {0x18CFF, 0x18CFF, 0x10000},
    {0x1B132, 0x1B132, 0x10000}, {0x1B155, 0x1B155, 0x10000}, {0x1CC00, 0x1CCEF, 0x10137}, {0x1CCF0, 0x1CCF9, 0x104A0},
    {0x1CD00, 0x1CEB3, 0x10137}, {0x1D2C0, 0x1D2D3, 0x10107}, {0x1DF25, 0x1DF2A, 0x10428}, {0x1E030, 0x1E06D, 0x16B40},
    {0x1E08F, 0x1E08F, 0x101FD}, {0x1E4D0, 0x1E4EA, 0x10000}, {0x1E4EB, 0x1E4EB, 0x16B40}, {0x1E4EC, 0x1E4EF, 0x101FD},
    {0x1E4F0, 0x1E4F9, 0x104A0}, {0x1E5D0, 0x1E5ED, 0x10000}, {0x1E5EE, 0x1E5EF, 0x101FD}, {0x1E5F0, 0x1E5F0, 0x10000},
    {0x1E5F1, 0x1E5FA, 0x104A0}, {0x1E5FF, 0x1E5FF, 0x10100}, {0x1F6DC, 0x1F6DC, 0x10137}, {0x1F774, 0x1F776, 0x10137},
    {0x1F77B, 0x1F77F, 0x10137}, {0x1F7D9, 0x1F7D9, 0x10137}, {0x1F8B2, 0x1F8BB, 0x10137}, {0x1F8C0, 0x1F8C1, 0x10137},
    {0x1FA75, 0x1FA77, 0x10137}, {0x1FA87, 0x1FA89, 0x10137}, {0x1FA8F, 0x1FA8F, 0x10137}, {0x1FAAD, 0x1FAAF, 0x10137},
    {0x1FABB, 0x1FABF, 0x10137}, {0x1FAC6, 0x1FAC6, 0x10137}, {0x1FACE, 0x1FACF, 0x10137}, {0x1FADA, 0x1FADC, 0x10137},
    {0x1FADF, 0x1FADF, 0x10137}, {0x1FAE8, 0x1FAE9, 0x10137}, {0x1FAF7, 0x1FAF8, 0x10137}, {0x1FBCB, 0x1FBEF, 0x10137},
    {0x2B739, 0x2B739, 0x20000}, {0x2EBF0, 0x2EE5D, 0x20000}, {0x31350, 0x323AF, 0x20000},
};

/* The unicode-normalization-alignments crate (Unicode 9) leaves these alone, as it does not know them. */
static const struct char_range not_normalized[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},     {0xC3C, 0xC3C},     {0xD3B, 0xD3C},
    {0xEBA, 0xEBA},     {0x1715, 0x1715},   {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0x32FF, 0x32FF},   {0xA7F2, 0xA7F4},
    {0xA82C, 0xA82C},   {0xAB69, 0xAB69},   {0x10781, 0x10785}, {0x10787, 0x107B0}, {0x107B2, 0x107BA}, {0x10D24, 0x10D27},
    {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85}, {0x11070, 0x11070}, {0x1133B, 0x1133B},
    {0x1145E, 0x1145E}, {0x11839, 0x1183A}, {0x11930, 0x11930}, {0x11938, 0x11938}, {0x1193D, 0x1193E}, {0x11943, 0x11943},
    {0x119E0, 0x119E0}, {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42}, {0x11D44, 0x11D45},
    {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1}, {0x1E030, 0x1E06D}, {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136},
    {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF}, {0x1E4EC, 0x1E4EF}, {0x1F16C, 0x1F16C}, {0x1FBF0, 0x1FBF9},
};

/* Rust's char::to_lowercase (Unicode 17). */
static const struct stand_in extra_lowercase[] = {
    {0x1C89, 0x1C89, 0x1C8A},    {0xA7CB, 0xA7CB, 0x264},     {0xA7CC, 0xA7CC, 0xA7CD}, {0xA7CE, 0xA7CE, 0xA7CF},
    {0xA7D2, 0xA7D2, 0xA7D3},    {0xA7D4, 0xA7D4, 0xA7D5},    {0xA7DA, 0xA7DA, 0xA7DB}, {0xA7DC, 0xA7DC, 0x19B},
    {0x10D50, 0x10D65, 0x10D70}, {0x16EA0, 0x16EB8, 0x16EBB},
};

#define COUNT(table) (sizeof(table) / sizeof(table)[0])

static int compare_range(const void *key, const void *element)
{
    uint32_t codepoint = *(const uint32_t *)key;
    const struct char_range *range = element;
    return codepoint < range->first ? -1 : codepoint > range->last;
}

static bool is_listed(uint32_t codepoint, const struct char_range *table, size_t count)
{
    return bsearch(&codepoint, table, count, sizeof *table, compare_range) != NULL;
}

static int compare_stand_in(const void *key, const void *element)
{
    uint32_t codepoint = *(const uint32_t *)key;
    const struct stand_in *range = element;
    return codepoint < range->first ? -1 : codepoint > range->last;
}

uint32_t cllm_char_regex_stand_in(uint32_t codepoint)
{
    if (codepoint < stand_ins[0].first) return codepoint;
    const struct stand_in *found = bsearch(&codepoint, stand_ins, COUNT(stand_ins), sizeof *stand_ins, compare_stand_in);
    return found ? found->target : codepoint;
}

/* White_Space of the Unicode Character Database; unchanged since Unicode 6.3. */
bool cllm_char_is_space(uint32_t codepoint)
{
    return (codepoint >= 0x09 && codepoint <= 0x0D) || codepoint == 0x20 || codepoint == 0x85 || codepoint == 0xA0 ||
           codepoint == 0x1680 || (codepoint >= 0x2000 && codepoint <= 0x200A) || codepoint == 0x2028 || codepoint == 0x2029 ||
           codepoint == 0x202F || codepoint == 0x205F || codepoint == 0x3000;
}

static utf8proc_category_t find_category(uint32_t codepoint)
{
    return utf8proc_category((utf8proc_int32_t)codepoint);
}

bool cllm_char_is_numeric(uint32_t codepoint)
{
    utf8proc_category_t category = find_category(codepoint);
    return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_NO ||
           is_listed(codepoint, extra_numeric, COUNT(extra_numeric));
}

bool cllm_char_is_punctuation(uint32_t codepoint)
{
    utf8proc_category_t category = find_category(codepoint);
    if (category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO) {
        return !is_listed(codepoint, not_punctuation, COUNT(not_punctuation));
    }
    return is_listed(codepoint, extra_punctuation, COUNT(extra_punctuation));
}

bool cllm_char_is_word(uint32_t codepoint)
{
    utf8proc_category_t category = find_category(codepoint);
    return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL) || category == UTF8PROC_CATEGORY_PC ||
           is_listed(codepoint, extra_word, COUNT(extra_word));
}

enum cllm_status cllm_text_lowercase(struct cllm_span text, struct cllm_strbuf *out, struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    for (size_t length; text.byte_count && !status; text = cllm_span_from(text, length)) {
        uint32_t codepoint = cllm_utf8_first(text, &length);
        const struct stand_in *extra =
            bsearch(&codepoint, extra_lowercase, COUNT(extra_lowercase), sizeof *extra_lowercase, compare_stand_in);
        if (codepoint == 0x130) {
            status = cllm_strbuf_append_text(out, "i\xCC\x87", err); /* the only one that becomes two */
        } else if (extra) {
            status = cllm_strbuf_append_codepoint(out, extra->target + (codepoint - extra->first), err);
        } else {
            status = cllm_strbuf_append_codepoint(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)codepoint), err);
        }
    }
    return status;
}

/* ---------------------------------------------------------------------------------------------------- normalization */

/* Decomposed characters that are not yet in the output; all zero is empty. */
struct decomposition {
    utf8proc_int32_t *items;
    size_t count;
    size_t capacity;
};

static unsigned find_combining_class(utf8proc_int32_t codepoint)
{
    return (unsigned)utf8proc_get_property(codepoint)->combining_class;
}

/* Puts a run of combining marks in canonical order: stable, by class. Counting sort, because a run may be as long as the
 * text and utf8proc's own ordering takes quadratic time. */
static void order_marks(utf8proc_int32_t *marks, utf8proc_int32_t *scratch, size_t count)
{
    size_t place[257] = {0};
    for (size_t i = 0; i < count; i++) place[find_combining_class(marks[i]) + 1]++;
    for (size_t i = 1; i < 257; i++) place[i] += place[i - 1];
    for (size_t i = 0; i < count; i++) scratch[place[find_combining_class(marks[i])]++] = marks[i];
    for (size_t i = 0; i < count; i++) marks[i] = scratch[i];
}

static enum cllm_status order_all_marks(struct decomposition *text, struct cllm_error *err)
{
    utf8proc_int32_t *scratch = NULL;
    for (size_t start = 0, end; start < text->count; start = end + 1) {
        for (end = start; end < text->count && find_combining_class(text->items[end]); end++) {}
        if (end - start < 2) continue;
        if (!scratch) scratch = malloc(text->count * sizeof *scratch);
        if (!scratch) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "no memory to normalize %zu characters", text->count);
        order_marks(text->items + start, scratch, end - start);
    }
    free(scratch);
    return CLLM_OK;
}

/* Orders, composes if asked, and appends what was gathered. */
static enum cllm_status flush_decomposition(struct decomposition *text, bool compose, struct cllm_strbuf *out,
                                            struct cllm_error *err)
{
    if (text->count == 0) return CLLM_OK;
    enum cllm_status status = order_all_marks(text, err);
    if (status) return status;
    utf8proc_ssize_t count = (utf8proc_ssize_t)text->count;
    if (compose) count = utf8proc_normalize_utf32(text->items, count, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    for (utf8proc_ssize_t i = 0; i < count && !status; i++) {
        status = cllm_strbuf_append_codepoint(out, (uint32_t)text->items[i], err);
    }
    text->count = 0;
    return status;
}

static enum cllm_status add_decomposed(struct decomposition *text, uint32_t codepoint, bool compatible, struct cllm_error *err)
{
    utf8proc_int32_t parts[32]; /* the longest decomposition has 18 */
    int options = UTF8PROC_DECOMPOSE | UTF8PROC_STABLE | (compatible ? UTF8PROC_COMPAT : 0), boundary = 0;
    utf8proc_ssize_t count =
        utf8proc_decompose_char((utf8proc_int32_t)codepoint, parts, COUNT(parts), (utf8proc_option_t)options, &boundary);
    enum cllm_status status = CLLM_OK;
    for (utf8proc_ssize_t i = 0; i < count && !status; i++) {
        status = cllm_array_grow(&text->items, text->count, &text->capacity, sizeof *text->items, err);
        if (!status) text->items[text->count++] = parts[i];
    }
    return status;
}

enum cllm_status cllm_text_normalize(struct cllm_span text, enum cllm_normal_form form, struct cllm_strbuf *out,
                                     struct cllm_error *err)
{
    bool compose = form == CLLM_NFC || form == CLLM_NFKC;
    bool compatible = form == CLLM_NFKC || form == CLLM_NFKD;
    struct decomposition pending = {0};
    enum cllm_status status = CLLM_OK;
    for (size_t length; text.byte_count && !status; text = cllm_span_from(text, length)) {
        uint32_t codepoint = cllm_utf8_first(text, &length);
        if (!is_listed(codepoint, not_normalized, COUNT(not_normalized))) {
            status = add_decomposed(&pending, codepoint, compatible, err);
            continue;
        }
        /* To the reference this is a plain starter: nothing moves or composes across it. */
        status = flush_decomposition(&pending, compose, out, err);
        if (!status) status = cllm_strbuf_append_codepoint(out, codepoint, err);
    }
    if (!status) status = flush_decomposition(&pending, compose, out, err);
    free(pending.items);
    return status;
}
