/* gpu_device.h - memory, streams and events of one GPU, as the loader of weights needs them: the only names of CUDA that it and
 * the programs see. Streams are cudaStream_t, events cudaEvent_t.
 *
 * Built without CUDA, cllm_gpu_device_open fails with UNSUPPORTED, and nothing else can be called.
 * Thread rule: allocating and pinning is for one thread at a time, everything else for any.
 */
#ifndef CLLM_GPU_DEVICE_H
#define CLLM_GPU_DEVICE_H

#include "cllm.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cllm_gpu_device;

/* Fails with UNSUPPORTED (built without CUDA), DEVICE (no driver, no such GPU), NOMEM. */
enum cllm_status cllm_gpu_device_open(unsigned device_index, struct cllm_gpu_device **device_out,
                                      struct cllm_error *err) CLLM_MUST_USE;
void cllm_gpu_device_close(struct cllm_gpu_device *device); /* accepts null */

/* From now on a thread that waits for the device spins instead of sleeping: it takes a processor, and sees a token's logits some
 * microseconds earlier. Events sleep all the same. Failure costs speed, nothing else. */
void cllm_gpu_device_hurry(struct cllm_gpu_device *device);

const char *cllm_gpu_device_name(const struct cllm_gpu_device *device);

/* What the driver says about the whole device: other programs, and what the driver itself takes, are not free. */
struct cllm_gpu_device_memory {
    uint64_t free_bytes;
    uint64_t total_bytes;
};
enum cllm_status cllm_gpu_device_memory(struct cllm_gpu_device *device, struct cllm_gpu_device_memory *memory_out,
                                        struct cllm_error *err) CLLM_MUST_USE;

/* Bandwidths, measured in some tens of milliseconds with at most `limit_bytes` of device memory, which is given back. */
struct cllm_gpu_device_speed {
    double link_bytes_per_second; /* pinned host memory to the device */
    double copy_bytes_per_second; /* device to device, reading and writing both counted */
};
enum cllm_status cllm_gpu_device_measure(struct cllm_gpu_device *device, uint64_t limit_bytes,
                                         struct cllm_gpu_device_speed *speed_out, struct cllm_error *err) CLLM_MUST_USE;

/* Device memory. Fails with NOMEM, DEVICE. */
enum cllm_status cllm_gpu_device_allocate(struct cllm_gpu_device *device, uint64_t byte_count, void **d_memory_out,
                                          struct cllm_error *err) CLLM_MUST_USE;
void cllm_gpu_device_free(struct cllm_gpu_device *device, void *d_memory); /* accepts null; waits for the device */

/* Makes host memory of the caller reachable by copies at full speed, and by kernels at *d_memory_out (may be null). Must be
 * undone before it is freed. Fails with NOMEM, DEVICE. */
enum cllm_status cllm_gpu_device_pin(struct cllm_gpu_device *device, void *memory, uint64_t byte_count, void **d_memory_out,
                                     struct cllm_error *err) CLLM_MUST_USE;
void cllm_gpu_device_unpin(struct cllm_gpu_device *device, void *memory); /* accepts null */

enum cllm_status cllm_gpu_device_stream_create(struct cllm_gpu_device *device, void **stream_out,
                                               struct cllm_error *err) CLLM_MUST_USE;
void cllm_gpu_device_stream_destroy(struct cllm_gpu_device *device, void *stream);
enum cllm_status cllm_gpu_device_stream_finish(struct cllm_gpu_device *device, void *stream,
                                               struct cllm_error *err) CLLM_MUST_USE;

/* A timed event says when it happened; others are cheaper. */
enum cllm_status cllm_gpu_device_event_create(struct cllm_gpu_device *device, bool timed, void **event_out,
                                              struct cllm_error *err) CLLM_MUST_USE;
void cllm_gpu_device_event_destroy(struct cllm_gpu_device *device, void *event);
enum cllm_status cllm_gpu_device_event_record(struct cllm_gpu_device *device, void *event, void *stream,
                                              struct cllm_error *err) CLLM_MUST_USE;
/* The stream, or the calling thread (asleep), waits for the last record of the event; an event never recorded has happened. */
enum cllm_status cllm_gpu_device_event_wait(struct cllm_gpu_device *device, void *event, void *stream,
                                            struct cllm_error *err) CLLM_MUST_USE;
enum cllm_status cllm_gpu_device_event_finish(struct cllm_gpu_device *device, void *event, struct cllm_error *err) CLLM_MUST_USE;
/* Between two timed events that have happened. */
enum cllm_status cllm_gpu_device_event_seconds(struct cllm_gpu_device *device, void *start, void *end, double *seconds_out,
                                               struct cllm_error *err) CLLM_MUST_USE;

/* Copies in the order of the stream, between any kinds of memory. */
enum cllm_status cllm_gpu_device_copy(struct cllm_gpu_device *device, void *to, const void *from, uint64_t byte_count,
                                      void *stream, struct cllm_error *err) CLLM_MUST_USE;

#ifdef __cplusplus
}
#endif

#endif
