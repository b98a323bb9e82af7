/* progress.h - what a long operation shows, and how a signal ends it. Main thread only. */
#ifndef CLLM_CLI_PROGRESS_H
#define CLLM_CLI_PROGRESS_H

#include "cllm_progress.h"

#include <time.h>

/* From now on SIGINT, SIGTERM and SIGHUP are remembered instead of ending the process: the running operation is told to stop
 * through its progress and cleans up. A signal that is ignored stays ignored (nohup). SIGUSR1 asks for one line of progress. */
void cllm_signals_catch(void);

/* The signal that asked to stop, or 0. */
int cllm_signal_caught(void);

/* One operation. Hand &meter->progress to the library. */
struct cllm_meter {
    struct cllm_progress progress;
    const char *verb; /* "packing" */
    bool visible;     /* may draw on the terminal */
    struct timespec start;
    double drawn_seconds; /* since start, when the line was last drawn */
};

/* Starts the clock. The line is drawn on standard error once a second has passed, if that is a terminal and `wanted`. */
void cllm_meter_start(struct cllm_meter *meter, const char *verb, bool wanted);

/* Seconds since the start. */
double cllm_meter_seconds(const struct cllm_meter *meter);

/* Removes the line. */
void cllm_meter_stop(struct cllm_meter *meter);

#endif
