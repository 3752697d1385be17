/* schedule.c: learning rates; see schedule.h. */
#include "train/schedule.h"

const char *lc_schedule_name(lc_schedule_kind kind) {
    static const char *const names[] = {"constant", "wsd", "cosine"};
    return kind < LC_SCHEDULE_COUNT ? names[kind] : "unknown";
}

/* cos(pi x) for 0 <= x <= 1, by its series around 1/2: libm may differ between machines. */
static double cos_pi(double x) {
    double a = (0.5 - x) * 3.14159265358979323846, square = a * a, term = a, sum = a;
    for (int i = 1; i <= 10; i++) {
        term *= -square / (double)(2 * i * (2 * i + 1));
        sum += term;
    }
    return sum; /* sin(pi (1/2 - x)) */
}

double lc_schedule_rate(const lc_schedule *s, int64_t step, int64_t steps) {
    double at = (double)step, all = (double)steps, up = s->warmup * all;
    if (at + 1 < up) return s->rate * (at + 1) / up;
    if (s->kind == LC_SCHEDULE_WSD) {
        double down = s->decay * all, left = all - at; /* left >= 1: the last step isn't at 0 */
        if (left >= down) return s->rate;
        return s->rate * (s->end + (1 - s->end) * left / down);
    }
    if (s->kind == LC_SCHEDULE_COSINE && all > up)
        return s->rate * (s->end + (1 - s->end) * 0.5 *
                                       (1 + cos_pi((at - up > 0 ? at - up : 0) / (all - up))));
    return s->rate;
}
