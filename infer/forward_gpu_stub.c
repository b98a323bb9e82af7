/* forward_gpu_stub.c - the functions of forward_gpu.h and pack12.h that need a GPU, in a build without CUDA. */
#include "forward_gpu.h"
#include "pack12.h"

static enum cllm_status fail_not_built(struct cllm_error *err)
{
    return cllm_fail(err, CLLM_E_UNSUPPORTED, CLLM_NO_OFFSET,
                     "this build has no GPU support: it was built without the CUDA toolkit");
}

enum cllm_status cllm_forward_gpu_create(const struct cllm_config *config, struct cllm_gpu_source *source,
                                         const struct cllm_forward_gpu_options *options, struct cllm_forward **forward_out,
                                         struct cllm_error *err)
{
    (void)config, (void)source, (void)options;
    *forward_out = NULL;
    return fail_not_built(err);
}

enum cllm_status cllm_pack12_survey(const void *d_bf16, uint64_t element_count, uint64_t *d_histogram, void *stream,
                                    struct cllm_error *err)
{
    (void)d_bf16, (void)element_count, (void)d_histogram, (void)stream;
    return fail_not_built(err);
}

enum cllm_status cllm_pack12_write(const void *d_bf16, struct cllm_gpu_shape shape, const struct cllm_pack12_choice *choice,
                                   void *d_memory, struct cllm_gpu_matrix *matrix_out, void *stream, struct cllm_error *err)
{
    (void)d_bf16, (void)shape, (void)choice, (void)d_memory, (void)matrix_out, (void)stream;
    return fail_not_built(err);
}

enum cllm_status cllm_pack12_unpack(const struct cllm_gpu_matrix *matrix, void *d_bf16, void *stream, struct cllm_error *err)
{
    (void)matrix, (void)d_bf16, (void)stream;
    return fail_not_built(err);
}
