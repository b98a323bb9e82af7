/* mkmodel_tokenizer.c - a tokenizer.json for any size of vocabulary, without training: the 256 bytes, then all syllables of the
 * alphabet below by length, each the join of the one before its last letter and that letter. */
#include "mkmodel.h"

#define LETTERS 27 /* the space as byte-level BPE writes it, then a to z */
#define SYLLABLE_MAX 8

/* The character that byte-level BPE shows for a byte: printable ones as they are, the others moved up, as GPT-2 does. */
static unsigned shown_byte(unsigned byte)
{
    unsigned moved = 0;
    for (unsigned b = 0; b < 256; b++) {
        const bool as_is = (b >= '!' && b <= '~') || (b >= 0xA1 && b != 0xAD);
        if (b == byte) return as_is ? b : 256 + moved;
        moved += !as_is;
    }
    return 0;
}

static void print_letter(FILE *file, unsigned letter)
{
    if (letter == 0) fputs("\\u0120", file);
    else fputc((int)('a' + letter - 1), file);
}

/* Letters of syllable number `index`, the last one last: those of two letters come first, then those of three. */
static unsigned spell(uint32_t index, unsigned letters[SYLLABLE_MAX])
{
    unsigned length = 2;
    uint64_t of_length = LETTERS * LETTERS, rest = index;
    while (rest >= of_length) {
        rest -= of_length;
        of_length *= LETTERS;
        length++;
    }
    for (unsigned i = length; i-- > 0; rest /= LETTERS) letters[i] = (unsigned)(rest % LETTERS);
    return length;
}

static void print_syllable(FILE *file, const char *before, uint32_t index, bool as_merge)
{
    unsigned letters[SYLLABLE_MAX];
    const unsigned length = spell(index, letters);
    fputs(before, file);
    for (unsigned i = 0; i < length; i++) {
        if (as_merge && i == length - 1) fputc(' ', file);
        print_letter(file, letters[i]);
    }
}

bool write_tokenizer(FILE *file, uint32_t vocab_size)
{
    const uint32_t syllable_count = vocab_size - TOKENIZER_VOCAB_MIN;
    fputs("{\"version\":\"1.0\",\"added_tokens\":["
          "{\"id\":0,\"content\":\"<s>\",\"special\":true,\"lstrip\":false,\"rstrip\":false,\"single_word\":false,"
          "\"normalized\":false},"
          "{\"id\":1,\"content\":\"</s>\",\"special\":true,\"lstrip\":false,\"rstrip\":false,\"single_word\":false,"
          "\"normalized\":false}],\n"
          "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
          "\"use_regex\":true},\n"
          "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\",\"type_id\":0}},"
          "{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},"
          "{\"Sequence\":{\"id\":\"B\",\"type_id\":1}}],"
          "\"special_tokens\":{\"<s>\":{\"id\":\"<s>\",\"ids\":[0],\"tokens\":[\"<s>\"]}}},\n"
          "\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true},\n"
          "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":null,"
          "\"end_of_word_suffix\":null,\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":false,\n"
          "\"vocab\":{\"<s>\":0,\"</s>\":1",
          file);
    for (unsigned byte = 0; byte < 256; byte++) fprintf(file, ",\"\\u%04x\":%u", shown_byte(byte), byte + 2);
    for (uint32_t i = 0; i < syllable_count; i++) {
        print_syllable(file, ",\"", i, false);
        fprintf(file, "\":%u", i + TOKENIZER_VOCAB_MIN);
    }
    fputs("},\n\"merges\":[", file);
    for (uint32_t i = 0; i < syllable_count; i++) {
        print_syllable(file, i ? ",\"" : "\"", i, true);
        fputc('"', file);
    }
    fputs("]}}\n", file);
    return !ferror(file);
}
