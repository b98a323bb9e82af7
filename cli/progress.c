/* progress.c - the progress line, and signals. */
#include "progress.h"

#include "message.h"
#include "report.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static const double first_draw_seconds = 1.0;
static const double draw_interval_seconds = 0.2;

/* Written by the handlers, so global by nature. */
static volatile sig_atomic_t stop_signal;
static volatile sig_atomic_t line_wanted;

static void on_stop(int signal_number)
{
    stop_signal = signal_number;
}

static void on_line_wanted(int signal_number)
{
    (void)signal_number;
    line_wanted = 1;
}

void cllm_signals_catch(void)
{
    static const int stop_signals[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction stop = {.sa_handler = on_stop};
    for (unsigned i = 0; i < sizeof stop_signals / sizeof *stop_signals; i++) {
        struct sigaction before;
        if (sigaction(stop_signals[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(stop_signals[i], &stop, NULL);
    }
    struct sigaction line = {.sa_handler = on_line_wanted, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &line, NULL);
}

int cllm_signal_caught(void)
{
    return stop_signal;
}

double cllm_meter_seconds(const struct cllm_meter *meter)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - meter->start.tv_sec) + 1e-9 * (double)(now.tv_nsec - meter->start.tv_nsec);
}

static void format_left(double seconds, char *out, size_t out_bytes)
{
    unsigned long left = seconds < 0 || seconds > 359999 ? 359999 : (unsigned long)(seconds + 0.5);
    if (left >= 3600) snprintf(out, out_bytes, "%lu:%02lu:%02lu", left / 3600, left / 60 % 60, left % 60);
    else snprintf(out, out_bytes, "%lu:%02lu", left / 60, left % 60);
}

static void format_line(const struct cllm_meter *meter, double seconds, uint64_t done, uint64_t total, char *out,
                        size_t out_bytes)
{
    char done_text[32], total_text[32], rate_text[32], left_text[32] = "?";
    double rate = seconds > 0 ? (double)done / seconds : 0;
    if (rate > 0) format_left((double)(total - done) / rate, left_text, sizeof left_text);
    snprintf(out, out_bytes, "%s %.1f %%  %s of %s  %s/s  %s left", meter->verb,
             total ? 100.0 * (double)done / (double)total : 100.0, cllm_size_text(done, done_text),
             cllm_size_text(total, total_text), cllm_size_text((uint64_t)rate, rate_text), left_text);
}

static bool report_progress(void *user, uint64_t done_bytes, uint64_t total_bytes)
{
    struct cllm_meter *meter = user;
    if (stop_signal) return false;
    double seconds = cllm_meter_seconds(meter);
    bool draw = meter->visible && seconds >= first_draw_seconds && seconds - meter->drawn_seconds >= draw_interval_seconds;
    if (!draw && !line_wanted) return true;

    char line[160];
    format_line(meter, seconds, done_bytes < total_bytes ? done_bytes : total_bytes, total_bytes, line, sizeof line);
    if (line_wanted) {
        line_wanted = 0;
        cllm_message_progress_line(line);
    }
    if (draw) {
        meter->drawn_seconds = seconds;
        cllm_message_progress(line);
    }
    return true;
}

void cllm_meter_start(struct cllm_meter *meter, const char *verb, bool wanted)
{
    *meter = (struct cllm_meter){.progress = {report_progress, meter}, .verb = verb, .visible = wanted && isatty(STDERR_FILENO)};
    clock_gettime(CLOCK_MONOTONIC, &meter->start);
}

void cllm_meter_stop(struct cllm_meter *meter)
{
    if (meter->visible) cllm_message_progress(NULL);
}
