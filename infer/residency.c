/* residency.c - see residency.h. Plans are tried from the fastest to the smallest; the first that fits is taken. */
#include "residency.h"

#include "bytes.h"

#define SLOT_BYTES (UINT64_C(8) << 20) /* takes longer to copy than to decode: bench/NOTES.md */
#define SLOT_COUNT 4u
#define MODEST_SLOT_BYTES (UINT64_C(4) << 20)
#define MODEST_SLOT_COUNT 4u /* holds what arrives while a layer is computed */
#define SMALLEST_SLOT_BYTES (UINT64_C(512) << 10)
#define SMALLEST_SLOT_COUNT 2u
#define LAYER_MATRICES 7 /* a part has at least one table of each matrix in it */
#define MODEST_SHARE 16  /* the budget's part that buffers may have where layers must be streamed for them */
#define LARGEST_SHARE 4  /* the same where otherwise prompts would go position by position */
#define SMALL_ALLOCATIONS_BYTES (UINT64_C(2) << 20) /* histograms, flags, logits */

const char *cllm_residency_name(enum cllm_residency residency)
{
    static const char *const names[] = {[CLLM_RESIDENCY_AUTO] = "auto",
                                        [CLLM_RESIDENCY_RAW] = "raw",
                                        [CLLM_RESIDENCY_PACKED] = "packed",
                                        [CLLM_RESIDENCY_STREAM] = "stream"};
    return names[residency];
}

bool cllm_residency_is_streamed(const struct cllm_residency_plan *plan, uint32_t layer_index)
{
    const uint64_t before = (uint64_t)layer_index * plan->streamed_count / plan->layer_count;
    const uint64_t with = ((uint64_t)layer_index + 1) * plan->streamed_count / plan->layer_count;
    return with > before;
}

/* Sizes come from files, but each of them fits them: no sum of a few overflows. */
static uint64_t granules(uint64_t byte_count)
{
    return (byte_count + CLLM_DEVICE_GRANULE_BYTES - 1) / CLLM_DEVICE_GRANULE_BYTES * CLLM_DEVICE_GRANULE_BYTES;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t resident_bytes(const struct cllm_residency_plan *plan, const struct cllm_residency_bytes *bytes)
{
    return plan->raw ? bytes->raw : bytes->packed;
}

/* What the layers add up to. */
struct layer_sums {
    uint64_t resident;   /* bytes that stay */
    uint64_t stored;     /* of streamed layers */
    uint64_t decoded;    /* of streamed layers */
    uint64_t scratch;    /* for the largest layer that is streamed, or packed while loading */
    uint64_t stored_max; /* of any layer */
};

static struct layer_sums sum_layers(const struct cllm_residency_request *request, const struct cllm_residency_plan *plan)
{
    struct layer_sums sums = {0};
    for (uint32_t i = 0; i < request->layer_count; i++) {
        const struct cllm_residency_bytes *layer = &request->layers[i];
        sums.stored_max = larger(sums.stored_max, layer->stored);
        if (cllm_residency_is_streamed(plan, i)) {
            sums.stored += layer->stored;
            sums.decoded += layer->raw;
        } else {
            sums.resident += resident_bytes(plan, layer);
        }
        if (!plan->raw) sums.scratch = larger(sums.scratch, layer->raw);
    }
    return sums;
}

/* A ring: how many slots of what size. */
struct slots {
    uint64_t bytes;
    uint32_t count;
};

/* The ring that is wanted where memory allows. */
static struct slots wanted_slots(const struct cllm_residency_request *request, const struct cllm_residency_plan *plan)
{
    const bool modest = plan->streamed_count > 0 && SLOT_COUNT * SLOT_BYTES > request->budget_bytes / MODEST_SHARE;
    return modest ? (struct slots){MODEST_SLOT_BYTES, MODEST_SLOT_COUNT} : (struct slots){SLOT_BYTES, SLOT_COUNT};
}

/* A slot that is not the last of its matrix lacks room for one more chunk. */
static uint64_t descriptor_bytes(const struct cllm_residency_request *request, const struct cllm_residency_plan *plan,
                                 const struct layer_sums *sums)
{
    const uint64_t filled = plan->slot_bytes > request->chunk_bytes ? plan->slot_bytes - request->chunk_bytes : 1;
    const uint64_t parts = sums->stored_max / larger(filled, request->chunk_bytes) + LAYER_MATRICES;
    return granules(plan->streamed_count * (request->descriptor_bytes + parts * request->part_bytes));
}

static double ceiling(const struct cllm_residency_request *request, const struct cllm_residency_plan *plan,
                      const struct layer_sums *sums)
{
    double seconds = 0;
    if (request->device_bytes_per_second > 0) {
        const uint64_t decoding = 2 * sums->stored + sums->decoded; /* written, read, written as elements */
        seconds = (double)(plan->read_bytes_per_token + decoding) / request->device_bytes_per_second;
    }
    if (request->link_bytes_per_second > 0) {
        const double copying = (double)plan->streamed_bytes_per_token / request->link_bytes_per_second;
        if (copying > seconds) seconds = copying;
    }
    return seconds > 0 ? 1 / seconds : 0;
}

/* Fills in all that follows from streamed_count, raw, embedding_on_host and forward, and the ring: no slot is larger than what
 * there is to put into it, none smaller than a chunk. */
static void complete(const struct cllm_residency_request *request, struct slots ring, struct cllm_residency_plan *plan)
{
    const struct layer_sums sums = sum_layers(request, plan);
    const struct cllm_residency_forward *forward = &plan->forward;
    plan->slot_count = ring.count;
    plan->slot_bytes = larger(smaller(ring.bytes, sums.stored_max), request->chunk_bytes);
    const uint64_t slots = granules(plan->slot_count * plan->slot_bytes);
    const uint64_t embedding = plan->embedding_on_host ? 0 : resident_bytes(plan, &request->embedding);
    const uint64_t unpacked = plan->raw ? 0 : larger(request->head.raw, plan->embedding_on_host ? 0 : request->embedding.raw);
    const uint64_t descriptors = descriptor_bytes(request, plan, &sums);

    plan->base_bytes = granules(resident_bytes(plan, &request->head) + embedding + request->vector_bytes);
    plan->layer_bytes = granules(sums.resident);
    plan->weight_bytes = plan->base_bytes + plan->layer_bytes + SMALL_ALLOCATIONS_BYTES;
    plan->stream_bytes = plan->streamed_count ? slots + granules(sums.scratch) + descriptors : 0;
    plan->total_bytes = plan->weight_bytes + plan->stream_bytes + granules(forward->cache_bytes) +
                        granules(forward->activation_bytes) + granules(forward->scratch_bytes);
    /* the head is packed before there are layers, layers before there is a cache */
    plan->peak_bytes = larger(plan->total_bytes, plan->base_bytes + SMALL_ALLOCATIONS_BYTES + slots + granules(unpacked));
    plan->peak_bytes = larger(plan->peak_bytes, plan->weight_bytes + slots + descriptors + granules(sums.scratch));
    plan->host_bytes = sums.stored + (plan->embedding_on_host ? request->embedding.raw : 0);
    plan->from_disk = plan->streamed_count > 0 && plan->host_bytes > request->host_bytes;
    if (plan->from_disk) plan->host_bytes -= sums.stored;
    plan->streamed_bytes_per_token = sums.stored;
    plan->read_bytes_per_token = resident_bytes(plan, &request->head) + sums.resident + sums.decoded + request->vector_bytes;
    plan->ceiling_per_second = ceiling(request, plan, &sums);
}

static bool fits(const struct cllm_residency_request *request, const struct cllm_residency_plan *plan)
{
    return plan->peak_bytes <= request->budget_bytes;
}

/* Layers that may stay at most and must stay at least. */
struct wish {
    uint32_t most;
    uint32_t least;
};

static struct wish wish_of(const struct cllm_residency_request *request)
{
    const uint32_t all = request->layer_count;
    const uint32_t cached = request->cache_layers < all ? request->cache_layers : all;
    const bool given = request->cache_layers != CLLM_CACHE_LAYERS_AUTO;
    switch (request->choice) {
    case CLLM_RESIDENCY_AUTO: return given ? (struct wish){cached, cached} : (struct wish){all, 0};
    case CLLM_RESIDENCY_STREAM: return given ? (struct wish){cached, cached} : (struct wish){0, 0};
    default: return (struct wish){all, all};
    }
}

/* Whether buffers of this forward pass take no more than this part of the budget. */
static bool is_modest(const struct cllm_residency_request *request, uint32_t forward_index, uint64_t share)
{
    const struct cllm_residency_forward *forward = &request->forwards[forward_index];
    return forward->activation_bytes + forward->scratch_bytes <= request->budget_bytes / share;
}

/* The plan with most resident layers, no more than wish.most, that fits with this forward pass. */
static bool try_fewer(const struct cllm_residency_request *request, struct wish wish, uint32_t forward_index,
                      struct cllm_residency_plan *plan)
{
    plan->forward = request->forwards[forward_index];
    for (uint32_t resident = wish.most + 1; resident-- > wish.least;) {
        plan->streamed_count = request->layer_count - resident;
        complete(request, wanted_slots(request, plan), plan);
        if (fits(request, plan)) return true;
    }
    return false;
}

/* The least memory that the wish allows. Smaller slots take less, but what describes their parts takes more; and a small model
 * takes less as it is than streamed. */
static bool try_smallest(const struct cllm_residency_request *request, struct wish wish, struct cllm_residency_plan *plan)
{
    const uint32_t residents[] = {wish.least, wish.most};
    struct cllm_residency_plan smallest = {.peak_bytes = UINT64_MAX};
    plan->embedding_on_host = request->embedding.raw > 0;
    plan->forward = request->forwards[request->forward_count - 1];
    for (unsigned i = 0; i < 2; i++) {
        for (uint64_t slot_bytes = SMALLEST_SLOT_BYTES; slot_bytes <= SLOT_BYTES; slot_bytes *= 2) {
            struct cllm_residency_plan candidate = *plan;
            candidate.streamed_count = request->layer_count - residents[i];
            complete(request, (struct slots){slot_bytes, SMALLEST_SLOT_COUNT}, &candidate);
            if (candidate.peak_bytes < smallest.peak_bytes) smallest = candidate;
        }
    }
    *plan = smallest;
    return fits(request, plan);
}

static bool try_plans(const struct cllm_residency_request *request, struct wish wish, struct cllm_residency_plan *plan)
{
    const struct wish all_wanted = {wish.most, wish.most};
    for (int on_host = 0; on_host < 2; on_host++) {
        plan->embedding_on_host = on_host && request->embedding.raw > 0;
        for (uint32_t i = 0; i < request->forward_count; i++) {
            if (try_fewer(request, all_wanted, i, plan)) return true;
        }
    }
    /* a prompt in tiles reads weights once a tile: worth some layers more to stream */
    const uint32_t last = request->forward_count - 1;
    for (uint64_t share = MODEST_SHARE; share >= LARGEST_SHARE; share /= 2) {
        for (uint32_t i = 0; i < last; i++) {
            if (is_modest(request, i, share) && try_fewer(request, wish, i, plan)) return true;
        }
    }
    if (try_fewer(request, wish, last, plan)) return true;
    return try_smallest(request, wish, plan);
}

enum cllm_status cllm_residency_decide(const struct cllm_residency_request *request, struct cllm_residency_plan *plan_out,
                                       struct cllm_error *err)
{
    const struct wish wish = wish_of(request);
    *plan_out = (struct cllm_residency_plan){.layer_count = request->layer_count, .raw = request->choice == CLLM_RESIDENCY_RAW};
    if (try_plans(request, wish, plan_out)) return CLLM_OK;
    const unsigned long long mib = 1 << 20;
    return cllm_fail(err, CLLM_E_LIMIT, CLLM_NO_OFFSET,
                     "found a budget of %llu MiB of device memory, expected at least %llu MiB for %u of %u layers, head, a cache "
                     "of %llu MiB and buffers",
                     (unsigned long long)request->budget_bytes / mib, (unsigned long long)(plan_out->peak_bytes + mib - 1) / mib,
                     request->layer_count - plan_out->streamed_count, request->layer_count,
                     (unsigned long long)plan_out->forward.cache_bytes / mib);
}
