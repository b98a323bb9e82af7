/* cllm.h - public types of the .cllm container: status, error, index, reader.
 *
 * A container holds *data objects* (chunked, compressed bytes), *tensors* (a name, dtype and shape given to one data
 * object) and *files* (a recipe: data objects in order whose decoded bytes, joined, are the file). spec/FORMAT.md is the
 * normative description.
 *
 * Thread rule, unless a function says otherwise: an object may be used by one thread at a time; a reader that is open is
 * immutable and may be used by any number of threads at once.
 */
#ifndef CLLM_H
#define CLLM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define CLLM_MUST_USE __attribute__((warn_unused_result))
#define CLLM_PRINTF(format_index, first_argument) __attribute__((format(printf, format_index, first_argument)))
#else
#define CLLM_MUST_USE
#define CLLM_PRINTF(format_index, first_argument)
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define CLLM_VERSION "0.1.0"

/* What went wrong, by class. cli/message.c maps each to its exit code. */
enum cllm_status {
    CLLM_OK = 0,
    CLLM_E_USAGE,       /* the caller asked for something that makes no sense */
    CLLM_E_IO,          /* the operating system refused or failed an operation on a file */
    CLLM_E_NOMEM,       /* an allocation failed */
    CLLM_E_FORMAT,      /* the input is not of the expected kind at all */
    CLLM_E_UNSUPPORTED, /* well-formed, but newer than this build or not built in */
    CLLM_E_CORRUPT,     /* the input contradicts itself or the rules of its format */
    CLLM_E_DIGEST,      /* bytes differ from their recorded checksum or digest */
    CLLM_E_LIMIT,       /* a stated limit (memory, count, size) would be exceeded */
    CLLM_E_DEVICE,      /* no usable GPU or driver, or the device failed */
    CLLM_E_SIGNATURE,   /* a signature is invalid or by another key */
    CLLM_E_ABSENT,      /* something required (a sidecar, a manifest entry) is not there */
    CLLM_E_EXISTS,      /* the output exists and replacing it was not asked for */
    CLLM_E_INTERRUPTED, /* the user asked to stop */
    CLLM_E_INTERNAL,    /* self-check failed: a bug in this program */
};

/* A failure, filled by the function that found it. Owned by the caller, no clean-up needed; a null pointer is accepted
 * wherever one is passed. */
struct cllm_error {
    enum cllm_status status;
    uint64_t offset;   /* byte offset in the offending file, or UINT64_MAX where there is none */
    char message[512]; /* one line, says found and expected; control characters of names are escaped */
};

#define CLLM_NO_OFFSET UINT64_MAX

/* Fills `err` (if not null) and returns `status`, so that a failure is one statement:
 * return cllm_fail(err, CLLM_E_CORRUPT, offset, "tensor %u ends at %llu, data ends at %llu", ...). */
enum cllm_status cllm_fail(struct cllm_error *err, enum cllm_status status, uint64_t offset, const char *format, ...)
    CLLM_PRINTF(4, 5);

#ifdef __clang_analyzer__ /* which does not look into another file and would follow a failure that returned OK */
#define cllm_fail(err, status, ...) (cllm_fail(err, status, __VA_ARGS__), (status))
#endif

/* Prepends "context: " to the message of `err`, whose status becomes this one and whose offset stays. Returns the status. */
enum cllm_status cllm_fail_context(struct cllm_error *err, enum cllm_status status, const char *format, ...) CLLM_PRINTF(3, 4);

/* Writes a printable copy of `bytes` to `out` (always terminated; truncated with "..." where it does not fit): control
 * characters, backslash and bytes that are not valid UTF-8 become \xNN. For error messages and listings. Returns `out`. */
const char *cllm_escape(const void *bytes, size_t byte_count, char *out, size_t out_bytes);

/* ------------------------------------------------------------------------------------------------------- dtypes */

enum cllm_dtype_kind { CLLM_KIND_UNKNOWN = 0, CLLM_KIND_BOOL, CLLM_KIND_INT, CLLM_KIND_FLOAT, CLLM_KIND_COMPLEX };

/* A dtype that safetensors defines. */
struct cllm_dtype {
    const char *name;      /* as safetensors spells it: "BF16" */
    uint32_t element_bits; /* 4, 6, 8, 16, 32 or 64 */
    enum cllm_dtype_kind kind;
    uint8_t exponent_shift; /* bit position of the exponent field within an element; floats only */
    uint8_t exponent_bits;  /* width of the exponent field; 0 where there is none */
};

/* The dtype called `name`, or null where this build does not know it. The result is static. */
const struct cllm_dtype *cllm_dtype_find(const char *name, size_t name_bytes);

/* Space-separated names of all known dtypes, for messages. The result is static. */
const char *cllm_dtype_names(void);

/* -------------------------------------------------------------------------------------------------------- index */

#define CLLM_DIGEST_BYTES 32 /* SHA-256 */

enum cllm_form {
    CLLM_FORM_RAW = 0,    /* the bytes themselves */
    CLLM_FORM_ZSTD = 1,   /* one zstd frame */
    CLLM_FORM_FLOAT = 2,  /* one entropy-coded field of each element, the rest in raw planes; or elements of a palette, coded */
    CLLM_FORM_PLANES = 3, /* one zstd frame of the elements' byte planes */
    CLLM_FORM_SPARSE = 4, /* elements that are not zero as in the float form, and masks, coded, that say where they are */
    CLLM_FORM_SCALED = 5, /* levels, a palette as in the float form, and scales that groups of them are multiplied by */
};

/* How one element splits into a coded symbol and raw remainder; FORMAT.md "Float form". */
struct cllm_layout {
    uint8_t element_bytes; /* 1, 2, 4 or 8; 0: all chunks are of the raw and zstd forms (which they may be otherwise, too) */
    uint8_t symbol_shift;  /* bit position of the coded field, from the least significant bit */
    uint8_t symbol_bits;   /* its width, 1 to 8 */
    uint8_t zero_bits;     /* low bits that are zero in every element and not stored; at most symbol_shift */
    uint8_t segment_log2;  /* symbols per segment of the coded stream, as a power of two */
};

/* Code lengths of one canonical prefix code: symbol s has length[s] bits, 0 where it does not occur. Validated. With values it
 * is a palette: symbol s stands for a whole element, the s-th value, and all symbols from 0 to the last have a code word. */
struct cllm_table {
    uint8_t length[256];
    uint8_t value_bytes;   /* of one value: element_bytes; 0 where symbols are fields of elements */
    const uint8_t *values; /* elements as they are in the tensor, ascending; null where there are none */
};

/* One independently decodable piece of a data object. */
struct cllm_chunk {
    uint64_t stored_offset; /* bytes from the start of the container; a multiple of 16 */
    uint64_t checksum;      /* XXH3-64 of the stored bytes and the zero padding up to a multiple of 16 */
    uint32_t stored_bytes;  /* without padding */
    uint32_t decoded_bytes;
    uint16_t table_index;      /* into the data object's tables; meaningful for the forms float, sparse and scaled */
    uint16_t mask_table_index; /* the same for the masks of CLLM_FORM_SPARSE; above table_index, by 255 at most */
    uint8_t form;              /* enum cllm_form */
};

/* Decoded bytes kept as a sequence of chunks. */
struct cllm_data {
    uint64_t decoded_bytes;
    uint64_t stored_offset; /* of the first chunk */
    uint64_t stored_bytes;  /* from the first chunk's start to the last one's end, padding to 16 included */
    uint32_t chunk_bytes;   /* decoded size of every chunk but the last */
    uint32_t chunk_count;
    const struct cllm_chunk *chunks; /* chunk_count of them */
    struct cllm_layout layout;
    uint32_t table_count;
    const struct cllm_table *tables;   /* table_count of them */
    uint8_t digest[CLLM_DIGEST_BYTES]; /* root over the SHA-256 of each decoded chunk; FORMAT.md "Digests" */
};

/* A named view of a whole data object. */
struct cllm_tensor {
    const char *name;      /* name_bytes bytes of UTF-8, then a zero byte; may be empty, may hold any character */
    const char *dtype;     /* as safetensors spells it, zero-terminated; may be unknown to this build */
    const uint64_t *shape; /* rank extents, row-major; null where rank is 0 */
    uint32_t name_bytes;
    uint32_t element_bits;
    uint32_t rank;
    uint32_t data_index;
    uint32_t file_index; /* the file that holds it; a name is unique within one file */
};

/* A restorable file: the decoded bytes of its parts, joined. */
struct cllm_file {
    const char *name;      /* relative path with '/', zero-terminated, validated (no "..", no empty component) */
    const uint32_t *parts; /* part_count indices into data[] */
    uint64_t bytes;
    uint32_t name_bytes;
    uint32_t part_count;
    uint8_t sha256[CLLM_DIGEST_BYTES]; /* of the whole file */
};

/* Everything a container says about itself; owned by the reader, validated in full. */
struct cllm_index {
    const struct cllm_data *data;
    const struct cllm_tensor *tensors;
    const struct cllm_file *files;
    uint32_t data_count;
    uint32_t tensor_count;
    uint32_t file_count;
    uint64_t container_bytes; /* length of the whole container */
    uint64_t payload_end;     /* where the last data object's stored bytes end */
    uint64_t index_offset;
    uint64_t index_stored_bytes;
    uint8_t root[CLLM_DIGEST_BYTES]; /* SHA-256 of the manifest: binds names, dtypes, shapes, recipes and digests */
};

/* ------------------------------------------------------------------------------------------------------- reader */

struct cllm_reader;

/* Opens the container at `path` and validates header, footer and index; chunk payloads are not read. On success
 * `*reader_out` is owned by the caller (cllm_reader_close); on failure it is null.
 * Fails with IO, NOMEM, FORMAT (not a .cllm file), UNSUPPORTED (unknown version or feature), DIGEST (a checksum of header,
 * footer or index differs), CORRUPT, LIMIT. Safe for any bytes: nothing is allocated from a length that was not checked
 * against the file's size and the limits of FORMAT.md. */
enum cllm_status cllm_reader_open(const char *path, struct cllm_reader **reader_out, struct cllm_error *err) CLLM_MUST_USE;

/* Accepts null. */
void cllm_reader_close(struct cllm_reader *reader);

/* The validated index; lives as long as the reader. */
const struct cllm_index *cllm_reader_index(const struct cllm_reader *reader);

/* Bytes that a buffer for cllm_reader_read_chunk needs for this chunk: stored bytes, padding, and slack that decoders may
 * read (never use) beyond the end. */
size_t cllm_chunk_buffer_bytes(const struct cllm_chunk *chunk);

/* Reads the stored bytes of chunk `chunk_index` of data object `data_index` into `buffer` and checks their checksum; slack
 * is zeroed. Fails with IO, CORRUPT (the file ends early), DIGEST (named as tensor or file, chunk, and byte range), LIMIT
 * (buffer too small), USAGE (no such data object or chunk). Any thread. */
enum cllm_status cllm_reader_read_chunk(const struct cllm_reader *reader, uint32_t data_index, uint32_t chunk_index, void *buffer,
                                        size_t buffer_bytes, struct cllm_error *err) CLLM_MUST_USE;

/* Writes to `out` what a data object is for the user, for messages: `tensor "name"`, or `file "name"` for a literal;
 * `data object N` for one that there is not. Returns `out`. */
const char *cllm_reader_describe_data(const struct cllm_reader *reader, uint32_t data_index, char *out, size_t out_bytes);

/* The first tensor called `name`, or null. */
const struct cllm_tensor *cllm_reader_find_tensor(const struct cllm_reader *reader, const char *name);

/* The file called `name`, or null. */
const struct cllm_file *cllm_reader_find_file(const struct cllm_reader *reader, const char *name);

#ifdef __cplusplus
}
#endif

#endif
