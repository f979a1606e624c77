/* SPDX-License-Identifier: Apache-2.0 */
/* Coverage-guided fuzzing (libFuzzer) of frame parser and command handler. An input is a list of records
 *
 *     u8 kind, u8 length (in fours), payload
 *
 * where kind is a message's number, sealed into a frame with the sequence that the device expects (bit 7: the one before,
 * which must not run again), or 0: the payload as raw bytes on the line. With a key every frame gets its tag, but for those
 * with bit 6 set, which come from a stranger. */
#include "fuzz_stranger.h"

enum { LINE = 8192 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t hello[4] = {1, 2, 3, 4};
    static uint8_t line[LINE];
    fake_boot();
    uint32_t count = line_of(line, LINE, LMCU_PROTOCOL_VERSION, LMCU_MSG_HELLO, 0, hello, sizeof hello);
    feed_and_check(line, count, 40);
    if (LMCU_KEYED) {
        uint8_t tag[LMCU_TAG_BYTES];
        add_tag(LMCU_MSG_AUTH, 0, tag, 0);
        count = line_of(line, LINE, LMCU_PROTOCOL_VERSION, LMCU_MSG_AUTH, 0, tag, sizeof tag);
        feed_and_check(line, count, 40);
    }
    while (size >= 2) {
        const uint32_t kind = data[0];
        const size_t wanted = 4u * (size_t)data[1];
        const uint32_t length = (uint32_t)(wanted < size - 2 ? wanted : size - 2);
        data += 2;
        size -= 2;
        if (kind == 0) {
            feed_and_check(data, length, 40);
        } else {
            const uint16_t sequence = (uint16_t)(lmcu_link.state.expected - (kind >> 7));
            const bool stranger = LMCU_KEYED && (kind & 64u) != 0;
            const uint32_t type = kind & (LMCU_KEYED ? 63u : 127u);
            uint8_t payload[LMCU_MAX_PAYLOAD];
            memcpy(payload, data, length);
            const uint32_t tagged = LMCU_KEYED && !stranger ? add_tag(type, sequence, payload, length) : (uint32_t)length;
            static const uint8_t end = 0;
            feed_and_check(&end, 1, 40); /* of raw bytes before */
            count = line_of(line, LINE, LMCU_PROTOCOL_VERSION, type, sequence, payload, tagged);
            (stranger ? feed_from_stranger : feed_and_check)(line, count, 40);
        }
        data += length;
        size -= length;
    }
    return 0;
}
