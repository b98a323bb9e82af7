/* batch.cu - from spans of validated chunks to what kernels work on, and launching them. */
#include "batch.h"

#include "kernels_sparse.cuh"

#include <cstdlib>
#include <cstring>

#define COPY_PIECE_BYTES 65536u /* of a chunk that is copied: a block's work */
#define CHUNKS_MAX (1u << 30)   /* a status word holds an index and a reason */
#define TIGHT_BYTES 12288u      /* of code words: four blocks share a multiprocessor well */
#define STAGE_BYTES_MAX 49152u  /* of code words that go to shared memory */
#define LARGE_HALF_LOG2 7       /* of tensors that fill a GPU: 32,768 elements for 256 threads */
#define PALETTE_BYTES 2048u     /* 256 values of 8 bytes */
#define FETCH_BLOCKS_MAX 1024u  /* of the kernel that fetches descriptions */
#define SMALL_THREADS 64        /* long segments: few of them in a chunk */

typedef void kernel_function(const struct gpu_chunk *, struct gpu_bases, const struct gpu_table *, uint32_t *);

/* The fast ones by element; of each, chunks of large tensors, the same with more code words than usual, and other segments. */
enum {
    KERNEL_COPY,
    KERNEL_ANY, /* by enum gpu_join */
    KERNEL_ANY_PALETTE,
    KERNEL_ANY_SCALES,
    KERNEL_SPARSE, /* by element, those that are no palettes; then of any */
    KERNEL_SPARSE_ANY = KERNEL_SPARSE + GPU_ELEMENT_PALETTE16,
    KERNEL_SPARSE_PALETTE,
    KERNEL_FAST,
    KERNEL_CLASSES = 3
};
enum { CLASS_LARGE, CLASS_WIDE, CLASS_SMALL };

template <gpu_element ELEMENT, unsigned ROUND, unsigned THREADS>
static constexpr size_t shared_bytes_of()
{
    return sizeof(gpu_shared<THREADS, ROUND, gpu_shape<ELEMENT, ROUND>::VALUES>);
}

static const struct {
    kernel_function *function;
    unsigned threads;
    size_t shared_bytes; /* without code words or masks */
} kernels[GPU_KERNELS] = {{kernel_copy, FLOAT_THREADS, 0},
#define ANY(join) {kernel_decode_any<join>, FLOAT_THREADS, sizeof(gpu_shared_any)},
                          ANY(GPU_JOIN_LAYOUT) ANY(GPU_JOIN_PALETTE) ANY(GPU_JOIN_SCALES)
#define SPARSE(element, join) {kernel_decode_sparse<element, join>, FLOAT_THREADS, sizeof(gpu_shared_any)},
#define SPARSE_LAYOUT(element) SPARSE(element, GPU_JOIN_LAYOUT)
                              SPARSE_LAYOUT(GPU_ELEMENT_BF16) SPARSE_LAYOUT(GPU_ELEMENT_F16) SPARSE_LAYOUT(GPU_ELEMENT_F32)
                                  SPARSE_LAYOUT(GPU_ELEMENT_F32_OF_BF16) SPARSE_LAYOUT(-1) SPARSE(-1, GPU_JOIN_PALETTE)
#define LARGE(element, round)                                                                                                    \
    kernel_decode_fast<element, round, LARGE_HALF_LOG2, FLOAT_THREADS>, FLOAT_THREADS,                                           \
        shared_bytes_of<element, round, FLOAT_THREADS>()
#define SMALL(element)                                                                                                           \
    kernel_decode_fast<element, SMALL_ROUND, 0, SMALL_THREADS>, SMALL_THREADS,                                                   \
        shared_bytes_of<element, SMALL_ROUND, SMALL_THREADS>()
#define FAST(element) {LARGE(element, LARGE_ROUND)}, {LARGE(element, SMALL_ROUND)}, {SMALL(element)},
                                      FAST(GPU_ELEMENT_BF16) FAST(GPU_ELEMENT_F16) FAST(GPU_ELEMENT_F32)
                                          FAST(GPU_ELEMENT_F32_OF_BF16) FAST(GPU_ELEMENT_PALETTE16) FAST(GPU_ELEMENT_PALETTE32)
                                              FAST(GPU_ELEMENT_SCALED16) FAST(GPU_ELEMENT_SCALED32)
#undef ANY
#undef SPARSE
#undef SPARSE_LAYOUT
#undef LARGE
#undef SMALL
#undef FAST
};

bool cllm_gpu_decodes(const struct cllm_chunk *chunk)
{
    if (chunk->form == CLLM_FORM_SPARSE) return chunk->decoded_bytes <= GPU_SPARSE_BYTES_MAX;
    return chunk->form == CLLM_FORM_FLOAT || chunk->form == CLLM_FORM_SCALED || chunk->form == CLLM_FORM_RAW;
}

uint32_t cllm_gpu_run_chunks(const struct cllm_data *data, uint32_t first_chunk, uint32_t chunk_count, bool *decodes_out)
{
    const struct cllm_chunk *chunks = data->chunks + first_chunk;
    uint32_t count = 0;
    *decodes_out = chunk_count > 0 && cllm_gpu_decodes(chunks);
    while (count < chunk_count && cllm_gpu_decodes(&chunks[count]) == *decodes_out) count++;
    return count;
}

size_t cllm_gpu_scratch_bytes(size_t item_count, bool palettes)
{
    const size_t table_bytes = sizeof(struct gpu_table) + (palettes ? PALETTE_BYTES : 0);
    const size_t mask_table_bytes = sizeof(struct gpu_table);
    return (item_count * (sizeof(struct gpu_chunk) + table_bytes + mask_table_bytes) + 512) * 3 / 2;
}

/* ---------------------------------------------------------------------------------------------------------- describing */

static struct gpu_chunk describe_chunk(const struct cllm_data *data, const struct cllm_chunk *chunk)
{
    const bool has_palette = data->tables[chunk->table_index].value_bytes != 0;
    const struct cllm_layout layout = has_palette ? cllm_layout_of_palette(&data->layout) : data->layout;
    struct gpu_chunk described = {};
    described.stored_bytes = chunk->stored_bytes;
    described.element_count = chunk->decoded_bytes / layout.element_bytes;
    described.plane_bytes = (uint32_t)cllm_float_plane_bytes(&layout, described.element_count);
    described.layout = layout;
    return described;
}

/* Bytes from the 16-byte boundary at or before the end of the planes. */
static uint32_t stage_bytes(const struct gpu_chunk *chunk)
{
    return (chunk->stored_bytes - (chunk->plane_bytes & ~15u) + 15) & ~15u;
}

static_assert(sizeof(struct gpu_table) % 16 == 0, "tables are copied in pieces of 16 bytes");
static_assert(GPU_KERNELS == KERNEL_FAST + KERNEL_CLASSES * GPU_ELEMENTS, "a kernel for each class and kind of element");

/* What kernel_decode_fast calls a chunk's elements, or GPU_ELEMENTS. */
static unsigned find_element(const struct gpu_chunk *chunk, bool scaled)
{
    static const struct cllm_layout layouts[] = {
        {2, 7, 8, 0, 0}, {2, 8, 8, 0, 0}, {4, 23, 8, 0, 0}, {4, 23, 8, 16, 0}}; /* as enum gpu_element */
    struct cllm_layout layout = chunk->layout;
    layout.segment_log2 = 0;
    if (chunk->palette) {
        return layout.element_bytes == 2   ? (scaled ? GPU_ELEMENT_SCALED16 : GPU_ELEMENT_PALETTE16)
               : layout.element_bytes == 4 ? (scaled ? GPU_ELEMENT_SCALED32 : GPU_ELEMENT_PALETTE32)
                                           : GPU_ELEMENTS;
    }
    for (unsigned element = 0; element < sizeof layouts / sizeof *layouts; element++) {
        if (memcmp(&layouts[element], &layout, sizeof layout) == 0) return element;
    }
    return GPU_ELEMENTS;
}

/* The kernel for a chunk; kernel_decode_fast's comment says what it needs. */
static unsigned choose_kernel(const struct gpu_chunk *chunk, bool scaled)
{
    const unsigned segment_log2 = chunk->layout.segment_log2, element = find_element(chunk, scaled);
    if (element == GPU_ELEMENTS || segment_log2 < 7 || chunk->element_count % 8 != 0 || chunk->out_offset % 16 != 0 ||
        chunk->plane_bytes > chunk->stored_bytes || stage_bytes(chunk) > STAGE_BYTES_MAX) {
        return scaled ? KERNEL_ANY_SCALES : chunk->palette ? KERNEL_ANY_PALETTE : KERNEL_ANY;
    }
    const bool large = segment_log2 == LARGE_HALF_LOG2 + 1 && chunk->element_count > 8192;
    return KERNEL_FAST + KERNEL_CLASSES * element +
           (!large                              ? CLASS_SMALL
            : stage_bytes(chunk) <= TIGHT_BYTES ? CLASS_LARGE
                                                : CLASS_WIDE);
}

/* The table described last, of elements or of masks, and where. */
struct described_table {
    const struct cllm_table *table;
    uint32_t index;
};

/* Where describing has come to. Walked twice: to count, then to write. */
struct walk {
    struct gpu_chunk *chunks;      /* staged, in the order of the kernels; null while counting */
    struct gpu_table_seed *tables; /* staged */
    uint64_t *values;              /* staged, of palettes */
    uint32_t counts[GPU_KERNELS];  /* of descriptions */
    uint32_t next[GPU_KERNELS];    /* index of the next description */
    uint32_t stage[GPU_KERNELS];   /* most bytes of shared memory for code words or masks */
    uint32_t index;                /* of the chunk, in the order of the spans */
    struct described_table last, last_mask;
    uint32_t table_count;
    uint32_t palette_count;
    uint32_t palette_base; /* where values begin on the device, in 8 bytes from the tables; not 0 */
    struct cllm_gpu_batch_info info;
};

static void add_description(struct walk *walk, unsigned kernel, const struct gpu_chunk *described)
{
    walk->counts[kernel]++;
    if (walk->chunks) walk->chunks[walk->next[kernel]++] = *described;
}

/* Copies are cut into pieces, so that many blocks have part in a large one. */
static void add_copy(struct walk *walk, uint64_t stored_offset, uint64_t out_offset, uint32_t byte_count)
{
    for (uint32_t from = 0; from < byte_count; from += COPY_PIECE_BYTES) {
        struct gpu_chunk piece = {};
        piece.stored_offset = stored_offset + from;
        piece.out_offset = out_offset + from;
        piece.stored_bytes = byte_count - from < COPY_PIECE_BYTES ? byte_count - from : COPY_PIECE_BYTES;
        add_description(walk, KERNEL_COPY, &piece);
    }
}

/* All 256 values, whatever the symbols of the table are. */
static void add_values(struct walk *walk, const struct cllm_table *table)
{
    const size_t used = cllm_table_values_bytes(table) / table->value_bytes;
    for (size_t i = 0; i < 256 && walk->values; i++) {
        uint64_t value = 0;
        for (size_t b = 0; b < table->value_bytes && i < used; b++)
            value |= (uint64_t)table->values[i * table->value_bytes + b] << 8 * b;
        walk->values[256 * (size_t)walk->palette_count + i] = value;
    }
    walk->palette_count++;
}

/* Chunks that share a table nearly always follow each other. Returns its index. */
static uint32_t add_table(struct walk *walk, const struct cllm_table *table, bool rotates, struct described_table *last)
{
    if (last->table == table) return last->index;
    if (walk->tables) {
        struct gpu_table_seed *seed = &walk->tables[walk->table_count];
        memset(seed, 0, sizeof *seed);
        memcpy(seed->length, table->length, sizeof seed->length);
        seed->rotates = rotates;
    }
    if (table->value_bytes) add_values(walk, table);
    *last = {table, walk->table_count};
    return walk->table_count++;
}

static void add_float(struct walk *walk, const struct cllm_data *data, const struct cllm_chunk *chunk, uint64_t stored_offset,
                      uint64_t out_offset)
{
    struct gpu_chunk described = describe_chunk(data, chunk);
    described.stored_offset = stored_offset;
    described.out_offset = out_offset;
    described.index = walk->index;
    const struct cllm_table *table = &data->tables[chunk->table_index];
    described.table = add_table(walk, table, gpu_rotates(&described.layout), &walk->last);
    if (table->value_bytes) described.palette = walk->palette_base + 256 * (walk->palette_count - 1);
    unsigned kernel = choose_kernel(&described, chunk->form == CLLM_FORM_SCALED);
    uint32_t stage = kernel >= KERNEL_FAST ? stage_bytes(&described) + STAGE_PAD : 0;
    if (chunk->form == CLLM_FORM_SPARSE) {
        described.mask_table = add_table(walk, &data->tables[chunk->mask_table_index], false, &walk->last_mask);
        const unsigned element = find_element(&described, false);
        kernel = KERNEL_SPARSE + (element < GPU_ELEMENT_PALETTE16 ? element : KERNEL_SPARSE_ANY - KERNEL_SPARSE);
        if (described.palette) kernel = KERNEL_SPARSE_PALETTE;
        stage = gpu_sparse_bytes(kernel < KERNEL_SPARSE_ANY, described.element_count);
    }
    if (walk->stage[kernel] < stage) walk->stage[kernel] = stage;
    add_description(walk, kernel, &described);
}

static void extend(uint64_t *end, uint64_t candidate)
{
    if (*end < candidate) *end = candidate;
}

static enum cllm_status walk_span(struct walk *walk, const struct cllm_gpu_span *span, size_t span_index, struct cllm_error *err)
{
    const struct cllm_data *data = span->data;
    if (span->first_chunk > data->chunk_count || span->chunk_count > data->chunk_count - span->first_chunk ||
        span->stored_offset % CLLM_CHUNK_ALIGNMENT != 0) {
        return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "GPU batch: span %zu has chunks %u to %u of %u at offset %llu",
                         span_index, span->first_chunk, span->first_chunk + span->chunk_count, data->chunk_count,
                         (unsigned long long)span->stored_offset);
    }
    if (span->chunk_count >= CHUNKS_MAX - walk->index)
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "GPU batch: more than %u chunks", CHUNKS_MAX);
    const struct cllm_chunk *chunks = data->chunks + span->first_chunk;
    for (uint32_t k = 0; k < span->chunk_count; k++, walk->index++) {
        const uint64_t moved = (uint64_t)k * data->chunk_bytes, out = span->out_offset + moved;
        const uint64_t stored = span->stored_offset + (span->decoded ? moved : chunks[k].stored_offset - chunks[0].stored_offset);
        if (!span->decoded && !cllm_gpu_decodes(&chunks[k])) {
            return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET,
                             "GPU batch: span %zu: chunk %u has form %u, which is not for the GPU", span_index,
                             span->first_chunk + k, chunks[k].form);
        }
        const bool is_float = !span->decoded && cllm_form_has_table(chunks[k].form);
        if (is_float) add_float(walk, data, &chunks[k], stored, out);
        else add_copy(walk, stored, out, chunks[k].decoded_bytes);
        *(is_float        ? &walk->info.float_bytes
          : span->decoded ? &walk->info.decoded_bytes
                          : &walk->info.raw_bytes) += chunks[k].decoded_bytes;
        extend(&walk->info.out_bytes, out + chunks[k].decoded_bytes);
        extend(&walk->info.stored_bytes, stored + (((is_float ? chunks[k].stored_bytes : chunks[k].decoded_bytes) + 15u) & ~15u));
    }
    return CLLM_OK;
}

static enum cllm_status walk_spans(struct walk *walk, struct gpu_span_start *starts, const struct cllm_gpu_span *spans,
                                   size_t span_count, struct cllm_error *err)
{
    for (size_t s = 0; s < span_count; s++) {
        starts[s] = {walk->index, spans[s].first_chunk};
        enum cllm_status status = walk_span(walk, &spans[s], s, err);
        if (status) return status;
    }
    return CLLM_OK;
}

/* Values follow at a multiple of 16. */
static size_t seeds_size(uint32_t table_count)
{
    return ((size_t)table_count * sizeof(struct gpu_table_seed) + 15) & ~(size_t)15;
}

/* Room for what was counted: staged are chunks, the code lengths of tables and values; on the device chunks, whole tables, values
 * and a status word. */
static enum cllm_status reserve_batch(struct cllm_gpu_batch *batch, const struct walk *counted, uint32_t chunk_count,
                                      struct cllm_error *err)
{
    const size_t chunk_bytes = ((size_t)chunk_count * sizeof(struct gpu_chunk) + 255) & ~(size_t)255;
    const size_t values_bytes = (size_t)counted->palette_count * PALETTE_BYTES;
    const size_t seeds_bytes = seeds_size(counted->table_count);
    batch->tables_offset = chunk_bytes;
    batch->values_offset = chunk_bytes + (size_t)counted->table_count * sizeof(struct gpu_table);
    batch->status_offset = batch->values_offset + values_bytes;
    if ((batch->status_offset - chunk_bytes) / sizeof(uint64_t) > UINT32_MAX)
        return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET, "GPU batch: too many code tables: %u", counted->table_count);
    enum cllm_status status = gpu_reserve_pinned(batch->gpu, &batch->gpu->staging, chunk_bytes + seeds_bytes + values_bytes, err);
    if (!status) status = gpu_reserve_device(batch->gpu, &batch->d_memory, batch->status_offset + sizeof(uint32_t), err);
    return status;
}

/* Staged memory stays as it is until the device has fetched it. */
static enum cllm_status upload_batch(const struct cllm_gpu_batch *batch, const struct walk *walk, uint32_t chunk_count,
                                     struct cllm_error *err)
{
    const cudaStream_t stream = batch->gpu->stream;
    uint8_t *d_bytes = (uint8_t *)batch->d_memory.bytes;
    const uint32_t chunk_pieces = (uint32_t)(((size_t)chunk_count * sizeof(struct gpu_chunk) + 15) / 16);
    const uint32_t value_pieces = (uint32_t)((size_t)walk->palette_count * (PALETTE_BYTES / 16));
    const uint32_t pieces = chunk_pieces > value_pieces ? chunk_pieces : value_pieces, wanted = (pieces + 255) / 256;
    const uint32_t blocks = wanted < 1 ? 1 : wanted < FETCH_BLOCKS_MAX ? wanted : FETCH_BLOCKS_MAX;
    uint4 *d_values = (uint4 *)(d_bytes + batch->values_offset);
    uint32_t *d_status = (uint32_t *)(d_bytes + batch->status_offset);
    kernel_fetch_batch<<<blocks, 256, 0, stream>>>((const uint4 *)walk->chunks, (uint4 *)d_bytes, chunk_pieces,
                                                   (const uint4 *)walk->values, d_values, value_pieces, d_status);
    if (walk->table_count > 0) {
        struct gpu_table *d_tables = (struct gpu_table *)(d_bytes + batch->tables_offset);
        kernel_build_tables<<<walk->table_count, 256, 0, stream>>>(walk->tables, d_tables);
    }
    return cuda_try(cudaGetLastError(), "describe chunks", err);
}

static enum cllm_status reserve_starts(struct cllm_gpu_batch *batch, size_t span_count, struct cllm_error *err)
{
    batch->span_count = 0;
    if (span_count > batch->start_capacity) {
        free(batch->starts);
        batch->start_capacity = 0;
        batch->starts = (struct gpu_span_start *)calloc(span_count, sizeof *batch->starts);
        if (!batch->starts) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for %zu spans", span_count);
        batch->start_capacity = span_count;
    }
    batch->span_count = span_count;
    return CLLM_OK;
}

enum cllm_status gpu_batch_fill(struct cllm_gpu_batch *batch, const struct cllm_gpu_span *spans, size_t span_count,
                                struct cllm_error *err)
{
    struct walk counted = {}, walk = {};
    uint32_t chunk_count = 0;
    counted.palette_base = 1;
    enum cllm_status status = cuda_try(cudaSetDevice(batch->gpu->device), "use the device", err);
    if (!status) status = reserve_starts(batch, span_count, err);
    if (!status) status = walk_spans(&counted, batch->starts, spans, span_count, err);
    for (int k = 0; k < GPU_KERNELS; k++) {
        walk.next[k] = chunk_count;
        batch->launches[k] = {chunk_count, counted.counts[k], (uint32_t)kernels[k].shared_bytes + counted.stage[k]};
        chunk_count += counted.counts[k];
    }
    if (!status) status = reserve_batch(batch, &counted, chunk_count, err);
    if (status) return status;
    walk.chunks = (struct gpu_chunk *)batch->gpu->staging.bytes;
    walk.tables = (struct gpu_table_seed *)((uint8_t *)batch->gpu->staging.bytes + batch->tables_offset);
    walk.values = (uint64_t *)((uint8_t *)walk.tables + seeds_size(counted.table_count));
    walk.palette_base = (uint32_t)((batch->values_offset - batch->tables_offset) / sizeof(uint64_t));
    status = walk_spans(&walk, batch->starts, spans, span_count, err);
    batch->info = walk.info;
    batch->info.device_bytes = batch->d_memory.capacity;
    return status ? status : upload_batch(batch, &walk, chunk_count, err);
}

/* ------------------------------------------------------------------------------------------------------------ the public */

/* Blocks may use more shared memory than the default only after this, once per kernel and device. */
static enum cllm_status allow_shared_memory(struct cllm_error *err)
{
    enum cllm_status status = CLLM_OK;
    for (int k = KERNEL_ANY; k < GPU_KERNELS && !status; k++) {
        const size_t stage = k >= KERNEL_FAST         ? STAGE_BYTES_MAX + STAGE_PAD
                             : k >= KERNEL_SPARSE_ANY ? gpu_sparse_bytes(false, GPU_SPARSE_BYTES_MAX)
                             : k >= KERNEL_SPARSE     ? gpu_sparse_bytes(true, GPU_SPARSE_BYTES_MAX / 2)
                                                      : 0;
        const int bytes = (int)(kernels[k].shared_bytes + stage);
        status = cuda_try(cudaFuncSetAttribute(kernels[k].function, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
                          "reserve shared memory", err);
    }
    return status;
}

enum cllm_status gpu_batch_new(struct cllm_gpu *gpu, struct cllm_gpu_batch **batch_out, struct cllm_error *err)
{
    *batch_out = NULL;
    enum cllm_status status = cuda_try(cudaSetDevice(gpu->device), "use the device", err);
    if (!status) status = allow_shared_memory(err);
    if (status) return status;
    *batch_out = (struct cllm_gpu_batch *)calloc(1, sizeof **batch_out);
    if (!*batch_out) return cllm_fail(err, CLLM_E_NOMEM, CLLM_NO_OFFSET, "out of memory for a GPU batch");
    (*batch_out)->gpu = gpu;
    return CLLM_OK;
}

enum cllm_status cllm_gpu_batch_create(struct cllm_gpu *gpu, const struct cllm_gpu_span *spans, size_t span_count,
                                       struct cllm_gpu_batch **batch_out, struct cllm_error *err)
{
    struct cllm_gpu_batch *batch = NULL;
    *batch_out = NULL;
    enum cllm_status status = gpu_wait(gpu, err); /* staging memory may be on its way */
    if (!status) status = gpu_batch_new(gpu, &batch, err);
    if (!status) status = gpu_batch_fill(batch, spans, span_count, err);
    if (!status) status = gpu_wait(gpu, err);
    if (status) {
        cllm_gpu_batch_destroy(batch);
        return status;
    }
    *batch_out = batch;
    return CLLM_OK;
}

void cllm_gpu_batch_destroy(struct cllm_gpu_batch *batch)
{
    if (!batch) return;
    cudaSetDevice(batch->gpu->device);
    cudaFree(batch->d_memory.bytes); /* waits for the device */
    free(batch->starts);
    free(batch);
}

struct cllm_gpu_batch_info cllm_gpu_batch_info(const struct cllm_gpu_batch *batch)
{
    return batch->info;
}

/* The base addresses are not checked here: cllm_gpu_decode has none. */
enum cllm_status gpu_batch_launch(const struct cllm_gpu_batch *batch, cudaStream_t stream, const void *d_stored, void *d_out,
                                  struct cllm_error *err)
{
    uint8_t *d_bytes = (uint8_t *)batch->d_memory.bytes;
    const struct gpu_chunk *d_chunks = (const struct gpu_chunk *)d_bytes;
    const struct gpu_table *d_tables = (const struct gpu_table *)(d_bytes + batch->tables_offset);
    uint32_t *d_status = (uint32_t *)(d_bytes + batch->status_offset);
    const struct gpu_bases bases = {(const uint8_t *)d_stored, (uint8_t *)d_out};
    for (int k = 0; k < GPU_KERNELS; k++) {
        const struct gpu_launch *l = &batch->launches[k];
        if (l->count == 0) continue;
        kernels[k].function<<<l->count, kernels[k].threads, l->shared_bytes, stream>>>(d_chunks + l->first, bases, d_tables,
                                                                                       d_status);
    }
    return cuda_try(cudaGetLastError(), "start decoding", err);
}

enum cllm_status cllm_gpu_batch_decode(const struct cllm_gpu_batch *batch, void *stream, const void *d_stored, void *d_out,
                                       struct cllm_error *err)
{
    if ((uintptr_t)d_stored % 16 != 0 || (uintptr_t)d_out % 16 != 0)
        return cllm_fail(err, CLLM_E_USAGE, CLLM_NO_OFFSET, "GPU batch: addresses %p and %p are not multiples of 16", d_stored,
                         d_out);
    enum cllm_status status = cuda_try(cudaSetDevice(batch->gpu->device), "use the device", err);
    return status ? status : gpu_batch_launch(batch, stream ? (cudaStream_t)stream : batch->gpu->stream, d_stored, d_out, err);
}

/* Where the status word comes back to. */
static uint32_t *status_of(const struct cllm_gpu_batch *batch)
{
    return batch->gpu->status + (batch == batch->gpu->once);
}

enum cllm_status gpu_batch_download_status(const struct cllm_gpu_batch *batch, cudaStream_t stream, struct cllm_error *err)
{
    return cuda_try(cudaMemcpyAsync(status_of(batch), (uint8_t *)batch->d_memory.bytes + batch->status_offset, sizeof(uint32_t),
                                    cudaMemcpyDeviceToHost, stream),
                    "copy from the device", err);
}

enum cllm_status gpu_batch_judge(const struct cllm_gpu_batch *batch, size_t *bad_span_out, uint32_t *bad_chunk_out,
                                 struct cllm_error *err)
{
    static const char *const reasons[] = {"its head does not fit", "a segment's halves do not meet", "its masks do not fit",
                                          "a scale is negative or not finite"};
    const uint32_t word = *status_of(batch), index = word / GPU_REASONS;
    if (word == UINT32_MAX) return CLLM_OK;
    size_t span = 0;
    while (span + 1 < batch->span_count && batch->starts[span + 1].index <= index) span++;
    const uint32_t chunk = batch->starts[span].first_chunk + (index - batch->starts[span].index);
    if (bad_span_out) *bad_span_out = span;
    if (bad_chunk_out) *bad_chunk_out = chunk;
    return cllm_fail(err, CLLM_E_CORRUPT, CLLM_NO_OFFSET, "span %zu, chunk %u does not decode: %s", span, chunk,
                     reasons[word % GPU_REASONS]);
}

enum cllm_status cllm_gpu_batch_check(const struct cllm_gpu_batch *batch, void *stream_of_caller, size_t *bad_span_out,
                                      uint32_t *bad_chunk_out, struct cllm_error *err)
{
    const cudaStream_t stream = stream_of_caller ? (cudaStream_t)stream_of_caller : batch->gpu->stream;
    enum cllm_status status = cuda_try(cudaSetDevice(batch->gpu->device), "use the device", err);
    if (!status) status = gpu_batch_download_status(batch, stream, err);
    if (!status) {
        status =
            cuda_try(cudaMemsetAsync((uint8_t *)batch->d_memory.bytes + batch->status_offset, 0xFF, sizeof(uint32_t), stream),
                     "clear a status", err);
    }
    if (!status) status = cuda_try(cudaStreamSynchronize(stream), "finish its work", err);
    return status ? status : gpu_batch_judge(batch, bad_span_out, bad_chunk_out, err);
}
