/* tensor_gpu.cu - which kernel a product of a prompt takes, and how it is shared out to clusters. Compiled for sm_90a alone. */
#include "tensor_gpu.cuh"

#include "kernels_tensor.cuh"

#include <cstdlib>

struct tensor_gpu {
    cudaStream_t stream;
    uint32_t cluster_count; /* at a time */
};

typedef void tensor_kernel(struct tensor_args);

/* What fits shared memory: stages of input, slots of weights. */
static const struct tensor_choice {
    tensor_kernel *kernels[2]; /* BF16, packed */
    uint32_t vectors;
    uint32_t shared_bytes;
} choices[] = {
#define CHOICE(vectors, stages, depth)                                                                                           \
    {                                                                                                                            \
        {multiply_tiles<bf16_weights, vectors, stages, depth>, multiply_tiles<packed_weights, vectors, stages, depth>}, vectors, \
            TENSOR_ALIGNMENT + (stages) * (vectors)*TENSOR_CHUNK * 2 + (depth)*TENSOR_SLOT_BYTES + 2 * TENSOR_SUM_BYTES          \
    }
    CHOICE(32, 8, 10),
    CHOICE(64, 6, 10),
    CHOICE(128, 6, 7),
    CHOICE(256, 4, 5),
#undef CHOICE
};
#define CHOICE_COUNT (sizeof choices / sizeof *choices)
#define TENSOR_CUT_VECTORS 128 /* tiles are cut to no fewer: fragments are made again for each */

static const struct tensor_choice *choose(uint32_t vector_count)
{
    const struct tensor_choice *choice = choices;
    while (choice->vectors < vector_count && choice < choices + CHOICE_COUNT - 1) choice++;
    return choice;
}

uint32_t tensor_input_stride(uint32_t vector_count)
{
    const uint32_t vectors = choose(vector_count)->vectors;
    return (vector_count + vectors - 1) / vectors * vectors;
}

bool tensor_takes(const struct tensor_gpu *tensor, const struct cllm_gpu_matrix *matrix)
{
    return tensor && (matrix->form == CLLM_GPU_BF16 || matrix->form == CLLM_GPU_PACKED12) &&
           matrix->shape.row_count % PACK12_ROWS == 0 && matrix->shape.column_count % PACK12_COLUMNS == 0;
}

static cudaLaunchConfig_t configure(const struct tensor_choice *choice, uint32_t cluster_count, cudaStream_t stream)
{
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(cluster_count * TENSOR_CLUSTER);
    config.blockDim = dim3(TENSOR_THREADS);
    config.dynamicSmemBytes = choice->shared_bytes;
    config.stream = stream;
    return config;
}

struct tensor_gpu *tensor_create(int device, cudaStream_t stream)
{
    int major = 0, minor = 0, cluster_count = 0;
    cudaError_t result = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (!result) result = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    if (result || major != 9 || minor != 0) return NULL;
    for (const struct tensor_choice &choice : choices) {
        for (tensor_kernel *kernel : choice.kernels) {
            const cudaLaunchConfig_t config = configure(&choice, 1, stream);
            if (!result) {
                result = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)choice.shared_bytes);
            }
            if (!result) result = cudaOccupancyMaxActiveClusters(&cluster_count, kernel, &config);
        }
    }
    struct tensor_gpu *tensor = (struct tensor_gpu *)calloc(1, sizeof *tensor);
    if (!tensor || result || cluster_count < 1) {
        (void)cudaGetLastError();
        free(tensor);
        return NULL;
    }
    tensor->stream = stream;
    tensor->cluster_count = (uint32_t)cluster_count;
    return tensor;
}

void tensor_destroy(struct tensor_gpu *tensor)
{
    free(tensor);
}

/* Clusters take whole tiles in turn; if what is left for the last turn is for half of them or fewer, each of these tiles is split
 * between two. Returns how many clusters work. */
static uint32_t share_out(const struct tensor_gpu *tensor, struct tensor_args *args)
{
    const uint32_t left = args->tile_count % tensor->cluster_count;
    const bool splits = left && left * 2 <= tensor->cluster_count && args->column_count >= 2 * PACK12_COLUMNS;
    args->whole_count = splits ? args->tile_count - left : args->tile_count;
    if (args->whole_count >= tensor->cluster_count) return tensor->cluster_count;
    return args->whole_count ? args->whole_count : left * 2;
}

/* All but the weights. Returns how many row tiles there are. */
static uint32_t describe(const struct tensor_product *product, struct tensor_args *args)
{
    uint32_t row_tiles = 0;
    for (uint32_t i = 0; i < product->matrix_count; i++) {
        const struct cllm_gpu_matrix *matrix = product->matrices[i];
        const uint32_t rows = TENSOR_CLUSTER * TENSOR_BLOCK_ROWS;
        row_tiles += (matrix->shape.row_count + rows - 1) / rows;
        args->parts[i].patches = matrix->d_patches;
        args->parts[i].window = matrix->form == CLLM_GPU_PACKED12 ? matrix->window : 0;
        args->parts[i].output = product->outputs[i];
        args->parts[i].row_count = matrix->shape.row_count;
        args->parts[i].tile_end = row_tiles;
    }
    args->input = (const uint8_t *)product->input;
    args->column_count = product->matrices[0]->shape.column_count;
    args->token_count = product->vector_count;
    args->token_stride = tensor_input_stride(product->vector_count);
    args->adds = product->adds;
    return row_tiles;
}

/* Smaller tiles where there are so few that even the halves of those leave clusters idle. */
static const struct tensor_choice *cut_tiles(const struct tensor_gpu *tensor, uint32_t row_tiles, struct tensor_args *args)
{
    const struct tensor_choice *choice = choose(args->token_count);
    for (;; choice--) {
        args->token_tiles = (args->token_count + choice->vectors - 1) / choice->vectors;
        args->tile_count = row_tiles * args->token_tiles;
        if (choice->vectors <= TENSOR_CUT_VECTORS || args->tile_count * 4 > tensor->cluster_count) return choice;
    }
}

/* A launch for each form there is; each leaves out the tiles of the other, so that the order of sums does not depend on forms. */
enum cllm_status tensor_multiply(const struct tensor_gpu *tensor, const struct tensor_product *product, struct cllm_error *err)
{
    static const enum cllm_gpu_form forms[] = {CLLM_GPU_BF16, CLLM_GPU_PACKED12};
    struct tensor_args args = {};
    const struct tensor_choice *choice = cut_tiles(tensor, describe(product, &args), &args);
    const cudaLaunchConfig_t config = configure(choice, share_out(tensor, &args), tensor->stream);
    cudaError_t result = cudaSuccess;
    for (int form = 0; !result && form < 2; form++) {
        bool exists = false;
        for (uint32_t i = 0; i < product->matrix_count; i++) {
            const bool fits = product->matrices[i]->form == forms[form];
            args.parts[i].weights = fits ? (const uint8_t *)product->matrices[i]->d_elements : NULL;
            exists = exists || fits;
        }
        if (exists) result = cudaLaunchKernelEx(&config, choice->kernels[form], args);
    }
    return cuda_try(result, "multiply matrices", err);
}
