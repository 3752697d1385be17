/* schedule.c: rates over steps. */
#include "train/schedule.h"

/* cos(pi x), 0 <= x <= 1: minus the sine's series around the middle, 1e-16 off at most. */
static double cosine(double x) {
    double y = (x - 0.5) * 3.14159265358979323846, term = y, sum = y;
    for (int i = 2; i < 24; i += 2) {
        term *= -y * y / (double)(i * (i + 1));
        sum += term;
    }
    return -sum;
}

double lc_schedule_rate(const lc_schedule *s, uint64_t step) {
    if (step < s->warmup) return s->lr * (double)(step + 1) / (double)s->warmup;
    uint64_t from = s->warmup;
    if (s->kind == LC_SCHEDULE_CONSTANT) return s->lr;
    if (s->kind == LC_SCHEDULE_WSD && s->steps - from > s->cooldown) from = s->steps - s->cooldown;
    if (step < from || s->steps <= from) return s->lr;
    /* The last step has the last rate but a fraction, as if one more came. */
    double x = (double)(step - from) / (double)(s->steps - from);
    if (s->kind == LC_SCHEDULE_WSD) return s->lr + (s->lr_end - s->lr) * x;
    return s->lr_end + (s->lr - s->lr_end) * 0.5 * (1 + cosine(x));
}

double lc_bias_rate(double first, uint64_t halving, double floor, uint64_t step) {
    uint64_t n = halving ? step / halving : 0;
    for (; n && first > floor; n--) first *= 0.5;
    return first > floor ? first : floor;
}
