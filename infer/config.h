/* config.h - what config.json and generation_config.json say about a model, in one spelling and range-checked.
 *
 * Llama-like decoders: token embedding; per layer RMSNorm, grouped-query attention with rotary positions, RMSNorm, SwiGLU;
 * final RMSNorm and head. The field names of the files have changed over the years; every spelling is accepted.
 * `torch_dtype` and `dtype` are not read: each tensor says its own dtype.
 */
#ifndef CLLM_CONFIG_H
#define CLLM_CONFIG_H

#include "cllm.h"

/* How the frequencies of the rotary embedding depend on the dimension and on the length of the text; rope.h has the formulas. */
enum cllm_rope_type { CLLM_ROPE_DEFAULT, CLLM_ROPE_LINEAR, CLLM_ROPE_DYNAMIC, CLLM_ROPE_LLAMA3, CLLM_ROPE_YARN };

struct cllm_rope_config {
    enum cllm_rope_type type;
    double theta;
    double factor;            /* all but default */
    double low_freq_factor;   /* llama3 */
    double high_freq_factor;  /* llama3 */
    double beta_fast;         /* yarn */
    double beta_slow;         /* yarn */
    double attention_factor;  /* multiplies cosine and sine; 1 but for yarn */
    uint32_t original_length; /* positions that the unscaled frequencies are for; position_limit but for llama3, yarn */
    bool truncate;            /* yarn: round the ends of the ramp to whole dimensions */
};

#define CLLM_END_ID_MAX 64 /* end tokens that a checkpoint may name */

struct cllm_config {
    const char *architecture; /* static */
    uint32_t hidden_size;
    uint32_t layer_count;
    uint32_t intermediate_size;
    uint32_t vocab_size;
    uint32_t head_count;
    uint32_t kv_head_count;  /* divides head_count */
    uint32_t head_dim;       /* even; head_count * head_dim need not be hidden_size */
    uint32_t position_limit; /* longest text that the model was made for, in tokens */
    uint32_t sliding_window; /* a position sees itself and the sliding_window - 1 before it; 0: all before it */
    float norm_epsilon;
    bool qkv_bias;
    bool attention_output_bias;
    bool mlp_bias;
    bool tied_head; /* the head may be missing and is then the embedding */
    struct cllm_rope_config rope;
    uint32_t end_ids[CLLM_END_ID_MAX]; /* generation stops after any of these; each once */
    uint32_t end_id_count;
};

/* Bytes of JSON text; null where the checkpoint lacks the file. */
struct cllm_json_text {
    const void *bytes;
    size_t byte_count;
};

/* Reads the description. `model` is config.json (required), `generation` is generation_config.json (only its end tokens are
 * used). The result owns nothing. Fails with CORRUPT (not JSON, a key twice, a field missing, of the wrong type, out of range,
 * or in contradiction to another), UNSUPPORTED (an architecture, activation, rotary type or quantisation that this build
 * does not run; named, with what it does run), LIMIT (too many end tokens), NOMEM. Any bytes are safe: every number is in
 * such a range afterwards that products of any three of the sizes fit 64 bits. Any thread. */
enum cllm_status cllm_config_parse(struct cllm_json_text model, struct cllm_json_text generation, struct cllm_config *config_out,
                                   struct cllm_error *err) CLLM_MUST_USE;

bool cllm_config_is_end(const struct cllm_config *config, uint32_t id);

#endif
