/* group.h - encodes a group of consecutive chunks of one data object: the unit of work of a packing thread. The chunks of a
 * group share its code tables, so that a table follows its part of a tensor and no tensor is read twice. */
#ifndef CLLM_GROUP_H
#define CLLM_GROUP_H

#include "cllm.h"
#include "plan.h"
#include "writer.h"

#define CLLM_GROUP_BYTES (UINT64_C(4) << 20) /* decoded bytes of a full group; a multiple of every chunk size in use */

struct cllm_group; /* buffers of one job; one thread at a time */
enum cllm_status cllm_group_create(struct cllm_group **group_out, struct cllm_error *err) CLLM_MUST_USE;
void cllm_group_destroy(struct cllm_group *group);

/* Where the caller puts the decoded bytes: room for CLLM_GROUP_BYTES. */
uint8_t *cllm_group_input(struct cllm_group *group);

/* Encodes `byte_count` bytes of the input by `plan`, decodes every chunk again and compares. The result is valid until the
 * next call. Fails with NOMEM, or INTERNAL where the self-check finds a difference. */
enum cllm_status cllm_group_encode(struct cllm_group *group, const struct cllm_plan *plan, size_t byte_count,
                                   struct cllm_error *err) CLLM_MUST_USE;

/* Chunks of the last encode, in order, sealed; their table_index, and mask_table_index, is one of the group's tables. */
const struct cllm_ready_chunk *cllm_group_chunks(const struct cllm_group *group, uint32_t *count_out);

/* The code tables that chunks of the last encode name, the one for masks behind the others. */
const struct cllm_table *cllm_group_tables(const struct cllm_group *group, uint32_t *count_out);

#endif
