/* SPDX-License-Identifier: Apache-2.0 */
/* Throws hostile frames at the protocol: fuzz SEED FRAMES. Sanitizers and the invariants of fuzz_checks.h end it with an error; at the
 * end it prints, for every message, how often it was answered OK and how often refused. */
#include "fuzz_payloads.h"
#include "fuzz_stranger.h"

static const uint8_t types[] = {
#define LMCU_X(name, number, text) number,
    LMCU_MESSAGE_TABLE(LMCU_X)
#undef LMCU_X
};
static const char *const names[256] = {
#define LMCU_X(name, number, text) [number] = #name,
    LMCU_MESSAGE_TABLE(LMCU_X)
#undef LMCU_X
};
enum { TYPES = sizeof types, LINE = 8192 };

static uint32_t damaged;

static uint32_t hostile(uint8_t *p)
{
    const uint32_t count = below(3) ? below(80) : below(LMCU_MAX_PAYLOAD + 1);
    for (uint32_t i = 0; i < count; ++i) {
        p[i] = below(4) ? (uint8_t)below(256) : (below(2) ? 0xFF : 0);
    }
    return count;
}

static uint32_t pick_type(void)
{
    if (LMCU_KEYED && lmcu_auth.is_offered && below(3) == 0) {
        return LMCU_MSG_AUTH;
    }
    if (lmcu_context.transfer_open && below(3)) { /* three messages in a row are rare by chance */
        return below(2) ? LMCU_MSG_ADAPTER_DATA : LMCU_MSG_ADAPTER_COMMIT;
    }
    if (lmcu_link.state.output_ready && below(3) == 0) { /* most other messages forget the output */
        return LMCU_MSG_OUTPUT_READ;
    }
    return below(20) ? types[below(TYPES)] : below(256);
}

/* One frame as it goes over the line; with a key, of a host that has it or of a stranger. */
static uint32_t make_line(uint8_t *line, bool stranger)
{
    uint8_t payload[LMCU_MAX_PAYLOAD];
    const uint16_t expected = lmcu_link.state.expected;
    const uint32_t type = pick_type();
    const uint16_t sequence = (uint16_t)(below(8) ? expected : below(2) ? expected - 1u : below(65536));
    const uint32_t version = below(50) ? LMCU_PROTOCOL_VERSION : below(256);
    uint32_t count = below(3) ? sensible(type, payload) : hostile(payload);
    if (LMCU_KEYED && !stranger) {
        count = add_tag(type, sequence, payload, count);
    } else if (LMCU_KEYED && type != LMCU_MSG_HELLO && below(2)) {
        count = add_tag(type, sequence, payload, count);
        payload[count - 1 - below(LMCU_TAG_BYTES)] ^= (uint8_t)(1u << below(8)); /* all but one bit right */
    }
    return line_of(line, LINE, version, type, sequence, payload, count);
}

static uint32_t damage(uint8_t *line, uint32_t count)
{
    damaged++;
    switch (below(5)) {
    case 0:
        line[below(count)] ^= (uint8_t)(1u << below(8));
        return count;
    case 1:
        return below(count); /* cut short: the next frame grows onto it */
    case 2:
        line[below(count)] = 0;
        return count;
    case 3:
        memmove(line + count, line, count);
        return 2 * count;
    default:
        for (uint32_t i = 0; i < count; ++i) {
            line[i] = (uint8_t)(below(3) ? line[i] : below(256));
        }
        return count;
    }
}

int main(int argc, char **argv)
{
    static uint8_t line[2 * LINE];
    state = argc > 1 ? (uint32_t)strtoul(argv[1], NULL, 10) * 2654435761u | 1u : 1u;
    const uint32_t frames = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : 1000;
    fake_boot();
    for (uint32_t i = 0; i < frames; ++i) {
        const bool stranger = LMCU_KEYED && below(4) == 0;
        uint32_t count = make_line(line, stranger);
        if (!stranger && below(3) == 0) { /* what follows a damaged frame may complete it: a stranger's begins with no 00 */
            count = damage(line, count);
        }
        fake_ticks += below(200000); /* of a million a second: other speeds of the line are given up now and then */
        (stranger ? feed_from_stranger : feed_and_check)(line, count, 1 + count / 64 + below(3));
    }
    printf("frames %u damaged %u\n", frames, damaged);
    for (uint32_t i = 0; i < TYPES; ++i) {
        printf("%s %u %u\n", names[types[i]], answered_ok[types[i]], refused[types[i]]);
    }
    return 0;
}
