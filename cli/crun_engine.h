/* crun_engine.h - a model that is loaded and ready to compute, wherever that is. */
#ifndef CLLM_CRUN_ENGINE_H
#define CLLM_CRUN_ENGINE_H

#include "cllm_progress.h"
#include "forward_gpu.h"
#include "model.h"
#include "options.h"
#include "weights_gpu.h"

struct crun_engine_options {
    enum cllm_device device;
    unsigned device_index;
    unsigned thread_count;
    enum cllm_residency residency;
    uint32_t cache_layers; /* CLLM_CACHE_LAYERS_AUTO: not given */
    uint64_t vram_bytes;   /* 0: what is free, less a margin */
    uint64_t ram_bytes;    /* 0: most of what is available */
    bool timed;            /* measure decoding */
    bool announce;         /* print the plan before loading */
    bool show_progress;
};

/* What the driver says that is free; 0 where it was not asked. */
struct crun_engine_memory {
    uint64_t total_bytes;
    uint64_t free_at_start; /* before anything was allocated, the driver's own context in place */
    uint64_t free_least;    /* since then */
};

struct crun_engine {
    const char *device_name; /* what computes */
    struct cllm_forward *forward;
    bool on_gpu;
    double start_seconds;     /* to find and start the device, and plan */
    double load_seconds;      /* of weights */
    uint64_t parameter_count; /* of the model */
    uint64_t weight_bytes;    /* of the model, decoded */
    uint64_t read_bytes_per_token;
    /* The rest for a GPU alone. */
    struct cllm_gpu_device *device;
    struct cllm_weights_gpu *weights;
    struct cllm_gpu_device_speed speed;
    struct cllm_residency_plan plan;
    uint64_t budget_bytes;
    struct crun_engine_memory memory;
};

/* Loads `model`, which cllm_model_open made of `reader`, and makes a forward pass for `context_size` positions. `auto` takes the
 * GPU where there is one that can do it. The engine is to be closed after a failure too.
 * Fails with DEVICE (a GPU was asked for and there is none), LIMIT (the budget is too small), and as loading does. */
enum cllm_status crun_engine_open(const struct crun_engine_options *options, const struct cllm_reader *reader,
                                  struct cllm_model *model, uint32_t context_size, struct crun_engine *engine,
                                  struct cllm_error *err) CLLM_MUST_USE;

void crun_engine_close(struct crun_engine *engine);

/* Asks the driver how much is free now, to keep the least. */
void crun_engine_note_memory(struct crun_engine *engine);

/* "packed", "raw", "7 of 22 layers streamed", "cpu" */
const char *crun_engine_residency(const struct crun_engine *engine, char out[64]);

/* Bytes of device memory: what this program allocated, and what the driver says is gone beyond that. */
struct crun_engine_vram {
    uint64_t weight_bytes; /* that stay */
    uint64_t stream_bytes; /* ring, scratch layer, descriptors */
    uint64_t cache_bytes;
    uint64_t buffer_bytes;  /* activations, scratch for prompts */
    uint64_t runtime_bytes; /* of the driver: kernels and libraries loaded since the start */
};
struct crun_engine_vram crun_engine_vram(const struct crun_engine *engine);

#endif
