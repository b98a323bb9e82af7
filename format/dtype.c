/* dtype.c - the dtypes that safetensors defines. */
#include "cllm.h"

#include <string.h>

/* In the order of alignment that safetensors writers use. Exponent positions: IEEE 754 for F16, F32 and F64; the OCP
 * specifications of 8-bit and microscaling formats for F8, F6 and F4; BF16 is the upper half of F32; a C64 is two F32. */
static const struct cllm_dtype dtypes[] = {
    {"BOOL", 8, CLLM_KIND_BOOL, 0, 0},
    {"F4", 4, CLLM_KIND_FLOAT, 1, 2},
    {"F6_E2M3", 6, CLLM_KIND_FLOAT, 3, 2},
    {"F6_E3M2", 6, CLLM_KIND_FLOAT, 2, 3},
    {"U8", 8, CLLM_KIND_INT, 0, 0},
    {"I8", 8, CLLM_KIND_INT, 0, 0},
    {"F8_E5M2", 8, CLLM_KIND_FLOAT, 2, 5},
    {"F8_E4M3", 8, CLLM_KIND_FLOAT, 3, 4},
    {"F8_E8M0", 8, CLLM_KIND_FLOAT, 0, 8},
    {"F8_E4M3FNUZ", 8, CLLM_KIND_FLOAT, 3, 4},
    {"F8_E5M2FNUZ", 8, CLLM_KIND_FLOAT, 2, 5},
    {"I16", 16, CLLM_KIND_INT, 0, 0},
    {"U16", 16, CLLM_KIND_INT, 0, 0},
    {"F16", 16, CLLM_KIND_FLOAT, 10, 5},
    {"BF16", 16, CLLM_KIND_FLOAT, 7, 8},
    {"I32", 32, CLLM_KIND_INT, 0, 0},
    {"U32", 32, CLLM_KIND_INT, 0, 0},
    {"F32", 32, CLLM_KIND_FLOAT, 23, 8},
    {"C64", 64, CLLM_KIND_COMPLEX, 23, 8},
    {"F64", 64, CLLM_KIND_FLOAT, 52, 11},
    {"I64", 64, CLLM_KIND_INT, 0, 0},
    {"U64", 64, CLLM_KIND_INT, 0, 0},
};

const struct cllm_dtype *cllm_dtype_find(const char *name, size_t name_bytes)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        if (strlen(dtypes[i].name) == name_bytes && memcmp(dtypes[i].name, name, name_bytes) == 0) return &dtypes[i];
    }
    return NULL;
}

const char *cllm_dtype_names(void)
{
    return "BOOL F4 F6_E2M3 F6_E3M2 U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ I16 U16 F16 BF16 I32 U32 F32 C64 F64 "
           "I64 U64";
}
