/* gemm_gpu.cu - cuBLAS, loaded at run time. */
#include "gemm_gpu.cuh"

#include <cstdlib>

#if defined(__has_include) && __has_include(<cublas_api.h>)
#include <cublas_api.h>
#include <dlfcn.h>

/* cublasGemmStridedBatchedEx, of which the header has several in C++ */
typedef cublasStatus_t multiply_function(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int, int, const void *,
                                         const void *, cudaDataType, int, long long, const void *, cudaDataType, int, long long,
                                         const void *, void *, cudaDataType, int, long long, int, cublasComputeType_t,
                                         cublasGemmAlgo_t);

struct gemm {
    void *library;
    cublasHandle_t handle;
    decltype(&cublasCreate_v2) create;
    decltype(&cublasDestroy_v2) destroy;
    decltype(&cublasSetStream_v2) set_stream;
    decltype(&cublasSetWorkspace_v2) set_workspace;
    multiply_function *multiply;
};

static void *open_library(void)
{
    static const char *const names[] = {"libcublas.so.13", "libcublas.so.12"};
    void *library = NULL;
    /* the major version of the headers that this was compiled with comes first: they are the ones that are known to fit */
    for (int i = CUBLAS_VER_MAJOR == 12; !library && i < 2; i++) library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    return library;
}

template <class FUNCTION>
static bool find(void *library, const char *name, FUNCTION *function_out)
{
    *function_out = (FUNCTION)dlsym(library, name);
    return *function_out != NULL;
}

static bool find_all(struct gemm *gemm)
{
    return find(gemm->library, "cublasCreate_v2", &gemm->create) && find(gemm->library, "cublasDestroy_v2", &gemm->destroy) &&
           find(gemm->library, "cublasSetStream_v2", &gemm->set_stream) &&
           find(gemm->library, "cublasSetWorkspace_v2", &gemm->set_workspace) &&
           find(gemm->library, "cublasGemmStridedBatchedEx", &gemm->multiply);
}

struct gemm *gemm_create(cudaStream_t stream, void *d_workspace, size_t workspace_bytes)
{
    struct gemm *gemm = (struct gemm *)calloc(1, sizeof *gemm);
    if (!gemm) return NULL;
    gemm->library = open_library();
    if (gemm->library && find_all(gemm) && gemm->create(&gemm->handle) == CUBLAS_STATUS_SUCCESS &&
        gemm->set_stream(gemm->handle, stream) == CUBLAS_STATUS_SUCCESS &&
        gemm->set_workspace(gemm->handle, d_workspace, workspace_bytes) == CUBLAS_STATUS_SUCCESS)
        return gemm;
    gemm_destroy(gemm);
    return NULL;
}

void gemm_destroy(struct gemm *gemm)
{
    if (!gemm) return;
    if (gemm->handle) gemm->destroy(gemm->handle);
    if (gemm->library) dlclose(gemm->library);
    free(gemm);
}

/* cuBLAS counts columns first: its matrices are the transposes of these. */
enum cllm_status gemm_multiply(const struct gemm *gemm, const struct gemm_product *product, struct cllm_error *err)
{
    const float one = 1, kept = product->adds ? 1 : 0;
    const cudaDataType_t type = product->type == GEMM_F32 ? CUDA_R_32F : CUDA_R_16BF;
    const cublasComputeType_t compute = product->type == GEMM_F32 ? CUBLAS_COMPUTE_32F_PEDANTIC : CUBLAS_COMPUTE_32F;
    const cublasStatus_t result = gemm->multiply(
        gemm->handle, product->transposed ? CUBLAS_OP_N : CUBLAS_OP_T, CUBLAS_OP_N, (int)product->row_count,
        (int)product->vector_count, (int)product->column_count, &one, product->weights, type, (int)product->weight_stride,
        product->weight_step, product->input, type, (int)product->input_stride, product->input_step, &kept, product->output,
        CUDA_R_32F, (int)product->output_stride, product->output_step, (int)product->count, compute, CUBLAS_GEMM_DEFAULT);
    if (result == CUBLAS_STATUS_SUCCESS) return CLLM_OK;
    return cllm_fail(err, CLLM_E_DEVICE, CLLM_NO_OFFSET, "GPU: cannot multiply matrices: cuBLAS says %d", (int)result);
}

#else

struct gemm *gemm_create(cudaStream_t, void *, size_t)
{
    return NULL;
}

void gemm_destroy(struct gemm *)
{
}

enum cllm_status gemm_multiply(const struct gemm *, const struct gemm_product *, struct cllm_error *err)
{
    return cllm_fail(err, CLLM_E_DEVICE, CLLM_NO_OFFSET, "GPU: built without cuBLAS");
}

#endif
