/* model.h - the weights of a model: which tensors of a container they are, checked against the configuration, and their
 * bytes in memory. What is computed with them is elsewhere (forward_cpu.h), so that every back end shares this table.
 */
#ifndef CLLM_MODEL_H
#define CLLM_MODEL_H

#include "cllm_progress.h"
#include "config.h"

enum cllm_weight_type { CLLM_WEIGHT_BF16, CLLM_WEIGHT_F16, CLLM_WEIGHT_F32, CLLM_WEIGHT_TYPE_COUNT };

/* One tensor in its stored dtype, row-major. All zero where the model has none (a bias, say). */
struct cllm_weight {
    const struct cllm_tensor *tensor; /* in the container's index */
    const void *elements;             /* rows * columns of them, aligned to 64 bytes; null until loaded */
    uint32_t row_count;               /* outputs */
    uint32_t column_count;            /* inputs; 1 for a vector */
    enum cllm_weight_type type;
};

/* y = W x + b */
struct cllm_linear {
    struct cllm_weight weight;
    struct cllm_weight bias; /* row_count vector, or absent */
};

struct cllm_layer {
    struct cllm_weight attention_norm;
    struct cllm_linear query;  /* head_count * head_dim rows; heads in order */
    struct cllm_linear key;    /* kv_head_count * head_dim rows */
    struct cllm_linear value;  /* kv_head_count * head_dim rows */
    struct cllm_linear output; /* hidden_size rows */
    struct cllm_weight mlp_norm;
    struct cllm_linear gate; /* intermediate_size rows */
    struct cllm_linear up;   /* intermediate_size rows */
    struct cllm_linear down; /* hidden_size rows */
};

/* Thread rule: immutable once loaded. */
struct cllm_model {
    struct cllm_config config;
    struct cllm_weight embedding; /* vocab_size rows of hidden_size */
    struct cllm_layer *layers;    /* config.layer_count of them */
    struct cllm_weight final_norm;
    struct cllm_weight head;  /* vocab_size rows of hidden_size; may be the embedding */
    uint64_t parameter_count; /* elements of all tensors in use, each counted once */
    uint64_t weight_bytes;    /* of memory that the weights take when loaded */
    void *memory;             /* holds them; null until loaded */
};

/* Finds every weight of the model that config.json (a file of the container) describes, and checks dtype and shape; nothing
 * is decoded but the JSON files. `reader` must outlive the model, which the caller owns (cllm_model_destroy) on success; on
 * failure `*model_out` is null.
 * Fails with ABSENT (no config.json, a tensor is missing), CORRUPT (a shape differs from the configuration, or the
 * configuration is wrong), UNSUPPORTED (a dtype other than BF16, F16, F32, or see cllm_config_parse), LIMIT, NOMEM, and as
 * cllm_load_file does. Any container that cllm_reader_open accepts is safe. */
enum cllm_status cllm_model_open(const struct cllm_reader *reader, struct cllm_model **model_out,
                                 struct cllm_error *err) CLLM_MUST_USE;

/* Decodes all weights into memory, each data object once, with `thread_count` threads (0: as many as the process may use).
 * `progress` may be null. Fails with NOMEM and as cllm_load_data does; the model may then only be destroyed. */
enum cllm_status cllm_model_load(struct cllm_model *model, const struct cllm_reader *reader, unsigned thread_count,
                                 const struct cllm_progress *progress, struct cllm_error *err) CLLM_MUST_USE;

/* Accepts null. */
void cllm_model_destroy(struct cllm_model *model);

#endif
