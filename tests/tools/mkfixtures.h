/* mkfixtures.h - one row of the table of fixtures, and how each is made. */
#ifndef CLLM_MKFIXTURES_H
#define CLLM_MKFIXTURES_H

#include "container_builder.h"
#include "container_surgery.h"

struct fixture {
    const char *name;   /* of the file, without .cllm */
    const char *result; /* ok, format, unsupported, damaged, corrupt, limit */
    const char *step;   /* where it is found: open, verify */
    const char *what;   /* one sentence */
    void (*make)(const struct fixture *fixture, const char *path);
    /* For what overwrites one field: */
    enum test_record record;
    uint32_t index;
    size_t field;
    unsigned width;
    uint64_t value;
};

extern const struct fixture good_fixtures[];
extern const size_t good_fixture_count;
extern const struct fixture bad_fixtures[];
extern const size_t bad_fixture_count;

/* The containers that the others are made from. */
void make_base(const struct fixture *fixture, const char *path);
void make_empty_tensor(const struct fixture *fixture, const char *path);
void make_sparse(const struct fixture *fixture, const char *path);
void make_scaled(const struct fixture *fixture, const char *path);
void make_palettes(const struct fixture *fixture, const char *path);
void make_page_aligned(const struct fixture *fixture, const char *path);

/* Opens the container at `path` for surgery, and writes the result back. */
struct test_surgery open_for_surgery(const char *path);
void close_surgery(struct test_surgery *surgery, const char *path);

#endif
