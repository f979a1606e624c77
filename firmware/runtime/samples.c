/* SPDX-License-Identifier: Apache-2.0 */
/* The sample store: records in order of arrival, and what happens when it is full. A record is its parts, each with zeros up
 * to a multiple of 4, a tag and, where the loss is MSE, a target. */
#include "lmcu_strict.h"

#include "lmcu_mem.h"
#include "random.h"
#include "samples.h"
#include "train.h"

#define TAG_CLASS 0x00ffffffu
#define TAG_HELD_OUT 0x01000000u
#define TAG_FEATURES 0x02000000u /* the parts are what the prefix made, not the input */
#define CLASS_FULL 0x80000000u   /* in class_seen: it has been the largest class of a full store */

/* ---- records ---- */

static uint8_t *record(uint32_t index)
{
    return lmcu_model.store + (size_t)index * lmcu_model.record_bytes;
}

static uint32_t padded(uint32_t bytes)
{
    return (bytes + 3u) & ~3u;
}

static uint32_t tag_offset(void)
{
    uint32_t offset = 0u;
    for (uint32_t i = 0u; i < lmcu_model.part_count; ++i) {
        offset += padded(lmcu_model.parts[i].bytes);
    }
    return offset;
}

static uint32_t tag_of(uint32_t index)
{
    uint32_t tag;
    memcpy(&tag, record(index) + tag_offset(), 4u);
    return tag;
}

static void put_record(uint8_t *to, uint32_t tag, lmcu_label_t label)
{
    for (uint32_t i = 0u; i < lmcu_model.part_count; ++i) {
        const lmcu_part_t *part = &lmcu_model.parts[i];
        memset(to, 0, padded(part->bytes));
        memcpy(to, part->at, part->bytes);
        to += padded(part->bytes);
    }
    memcpy(to, &tag, 4u);
    if (lmcu_model.loss == LMCU_LOSS_MSE) {
        memcpy(to + 4, label.target, 4u * (size_t)lmcu_model.logit_count);
    }
}

bool lmcu_samples_load(uint32_t index, lmcu_label_t *label)
{
    const uint8_t *from = record(index);
    for (uint32_t i = 0u; i < lmcu_model.part_count; ++i) {
        const lmcu_part_t *part = &lmcu_model.parts[i];
        memcpy(part->at, from, part->bytes);
        from += padded(part->bytes);
    }
    if (lmcu_model.loss == LMCU_LOSS_MSE) {
        label->target = (const float *)(const void *)(from + 4);
    } else {
        memcpy(&label->class_index, from, 4u);
        label->class_index &= TAG_CLASS;
    }
    return true;
}

bool lmcu_samples_held_out(uint32_t index)
{
    return (tag_of(index) & TAG_HELD_OUT) != 0u;
}

uint32_t lmcu_samples_order(void)
{
    uint32_t count = 0u;
    for (uint32_t i = 0u; i < lmcu_context.stored; ++i) {
        if (!lmcu_samples_held_out(i)) {
            lmcu_model.order[count++] = (uint16_t)i;
        }
    }
    return count;
}

/* ---- who gives way ---- */

static uint32_t count_of(uint32_t class_index)
{
    uint32_t count = 0u;
    for (uint32_t i = 0u; i < lmcu_context.stored; ++i) {
        count += (tag_of(i) & TAG_CLASS) == class_index ? 1u : 0u;
    }
    return count;
}

/* The class with the most samples; of equal ones the first. */
static uint32_t largest_class(void)
{
    uint32_t largest = 0u, most = 0u;
    for (uint32_t c = 0u; c < lmcu_class_count(); ++c) {
        const uint32_t count = count_of(c);
        if (count > most) {
            largest = c;
            most = count;
        }
    }
    return largest;
}

/* The n-th oldest sample of a class that has more than n. */
static uint32_t nth_of(uint32_t class_index, uint32_t n)
{
    uint32_t i = 0u;
    while ((tag_of(i) & TAG_CLASS) != class_index || n-- > 0u) {
        ++i;
    }
    return i;
}

/* A number below `bound`, the same for the same sample on every machine. */
static uint32_t draw(uint32_t index, uint32_t bound)
{
    const uint32_t key = lmcu_rand_key(lmcu_context.settings.seed, LMCU_STREAM_STORE, lmcu_context.seen);
    return (uint32_t)(((uint64_t)lmcu_rand_at(key, index) * bound) >> 32);
}

/* Class-balancing reservoir sampling (Chrysakis and Moens, ICML 2020): a class that never was the largest takes a place of
 * the largest; within the others Vitter's algorithm R. */
static bool balanced_reservoir(uint32_t class_index, uint32_t *victim)
{
    uint32_t *seen = &lmcu_model.class_seen[class_index];
    const uint32_t largest = largest_class();
    lmcu_model.class_seen[largest] |= CLASS_FULL;
    if ((*seen & CLASS_FULL) == 0u) {
        *victim = nth_of(largest, draw(0u, count_of(largest)));
        return true;
    }
    const uint32_t mine = count_of(class_index);
    if (draw(0u, *seen & ~CLASS_FULL) >= mine) {
        return false;
    }
    *victim = nth_of(class_index, draw(1u, mine));
    return true;
}

/* The store is full. False: the new sample is not kept. */
static bool find_victim(uint32_t class_index, uint32_t *victim)
{
    const lmcu_store_policy_t *policy = &lmcu_context.store_policy;
    if (policy->policy == LMCU_STORE_RING) {
        *victim = policy->balance != 0u ? nth_of(largest_class(), 0u) : 0u;
        return true;
    }
    if (policy->balance != 0u) {
        return balanced_reservoir(class_index, victim);
    }
    *victim = draw(0u, lmcu_context.seen + 1u); /* Vitter, ACM TOMS 11(1), 1985, algorithm R */
    return *victim < lmcu_model.store_capacity;
}

static void remove_sample(uint32_t index)
{
    const uint32_t behind = lmcu_context.stored - index - 1u;
    memmove(record(index), record(index) + lmcu_model.record_bytes, (size_t)behind * lmcu_model.record_bytes);
    lmcu_context.stored -= 1u;
}

/* ---- what is offered ---- */

lmcu_status_t lmcu_store_configure(const lmcu_store_policy_t *policy)
{
    if (lmcu_busy()) {
        return LMCU_BUSY;
    }
    const bool classes = lmcu_model.loss == LMCU_LOSS_CROSS_ENTROPY && policy->policy != LMCU_STORE_STOP;
    if (policy->policy > LMCU_STORE_RESERVOIR || policy->balance > 1u || (policy->balance != 0u && !classes)) {
        return LMCU_BAD_ARGUMENT;
    }
    lmcu_context.store_policy = *policy;
    return LMCU_OK;
}

lmcu_status_t lmcu_store_sample(lmcu_label_t label)
{
    const lmcu_store_policy_t *policy = &lmcu_context.store_policy;
    const bool classes = lmcu_model.loss == LMCU_LOSS_CROSS_ENTROPY;
    if (lmcu_busy()) {
        return LMCU_BUSY;
    }
    const lmcu_status_t status = lmcu_check_label(label);
    if (status != LMCU_OK) {
        return status;
    }
    const bool full = lmcu_context.stored >= lmcu_model.store_capacity;
    if (lmcu_model.store_capacity == 0u || (full && policy->policy == LMCU_STORE_STOP)) {
        return LMCU_STORE_FULL;
    }
    uint32_t victim = 0u;
    if (classes) {
        lmcu_model.class_seen[label.class_index] += 1u;
    }
    const bool kept = !full || find_victim(classes ? label.class_index : 0u, &victim);
    if (kept) {
        uint32_t tag = classes ? label.class_index : 0u;
        tag |= policy->hold_out != 0u && lmcu_context.seen % policy->hold_out == policy->hold_out - 1u ? TAG_HELD_OUT : 0u;
        tag |= lmcu_model.cached != 0u ? TAG_FEATURES : 0u;
        if (full) {
            remove_sample(victim);
        }
        if (lmcu_model.cached != 0u) {
            lmcu_model_prefix();
        }
        put_record(record(lmcu_context.stored), tag, label);
        lmcu_context.stored += 1u;
    }
    lmcu_context.seen += 1u;
    return LMCU_OK;
}

void lmcu_store_clear(void)
{
    lmcu_run_stop();
    lmcu_samples_boot();
}

void lmcu_samples_boot(void)
{
    lmcu_context.stored = 0u;
    lmcu_context.seen = 0u;
    if (lmcu_model.class_seen != NULL) {
        memset(lmcu_model.class_seen, 0, 4u * (size_t)lmcu_class_count());
    }
}

/* ---- kept in flash ---- */

static uint32_t class_counts(void)
{
    return lmcu_model.class_seen != NULL ? lmcu_class_count() : 0u;
}

static void parts_of(lmcu_samples_head_t *head, lmcu_samples_part_t parts[LMCU_SAMPLES_PARTS])
{
    parts[0].at = (uint8_t *)(void *)head;
    parts[0].bytes = (uint32_t)sizeof *head;
    parts[1].at = (uint8_t *)(void *)lmcu_model.class_seen;
    parts[1].bytes = 4u * class_counts();
    parts[2].at = lmcu_model.store;
    parts[2].bytes = head->stored * lmcu_model.record_bytes;
}

void lmcu_samples_describe(lmcu_samples_head_t *head, lmcu_samples_part_t parts[LMCU_SAMPLES_PARTS])
{
    head->stored = lmcu_context.stored;
    head->seen = lmcu_context.seen;
    head->policy = lmcu_context.store_policy;
    head->record_bytes = lmcu_model.record_bytes;
    head->cached = lmcu_model.cached;
    head->classes = class_counts();
    parts_of(head, parts);
}

bool lmcu_samples_expect(lmcu_samples_head_t *head, lmcu_samples_part_t parts[LMCU_SAMPLES_PARTS])
{
    const bool mine = head->record_bytes == lmcu_model.record_bytes && head->cached == lmcu_model.cached &&
                      head->classes == class_counts();
    if (!mine || head->stored > lmcu_model.store_capacity || head->seen < head->stored) {
        return false;
    }
    parts_of(head, parts);
    return true;
}

static bool is_record(uint32_t index)
{
    const uint32_t tag = tag_of(index), features = lmcu_model.cached != 0u ? TAG_FEATURES : 0u;
    lmcu_label_t label = {tag & TAG_CLASS};
    if (lmcu_model.loss == LMCU_LOSS_MSE) {
        label.target = (const float *)(const void *)(record(index) + tag_offset() + 4u);
    }
    return (tag & ~(TAG_CLASS | TAG_HELD_OUT)) == features && lmcu_check_label(label) == LMCU_OK;
}

bool lmcu_samples_accept(const lmcu_samples_head_t *head)
{
    lmcu_context.stored = 0u;
    bool fine = lmcu_store_configure(&head->policy) == LMCU_OK;
    for (uint32_t i = 0u; fine && i < head->stored; ++i) {
        fine = is_record(i);
    }
    if (!fine) {
        const lmcu_store_policy_t none = {LMCU_STORE_STOP, 0u, 0u};
        lmcu_context.store_policy = none;
        lmcu_samples_boot();
        return false;
    }
    lmcu_context.stored = head->stored;
    lmcu_context.seen = head->seen;
    return true;
}

uint32_t lmcu_store_held_out(void)
{
    uint32_t count = 0u;
    for (uint32_t i = 0u; i < lmcu_context.stored; ++i) {
        count += lmcu_samples_held_out(i) ? 1u : 0u;
    }
    return count;
}
