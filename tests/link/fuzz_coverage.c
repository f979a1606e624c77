/* SPDX-License-Identifier: Apache-2.0 */
/* Coverage-guided fuzzing (libFuzzer) of frame parser and command handler. An input is a list of records
 *
 *     u8 kind, u8 length (in fours), payload
 *
 * where kind is a message's number, sealed into a frame with the sequence that the device expects (bit 7: the one before,
 * which must not run again), or 0: the payload as raw bytes on the line. */
#include "fuzz_checks.h"

enum { LINE = 8192 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t hello[4] = {1, 2, 3, 4};
    static uint8_t line[LINE];
    fake_boot();
    uint32_t count = line_of(line, LINE, LMCU_PROTOCOL_VERSION, LMCU_MSG_HELLO, 0, hello, sizeof hello);
    feed_and_check(line, count, 40);
    while (size >= 2) {
        const uint32_t kind = data[0];
        const size_t wanted = 4u * (size_t)data[1];
        const uint32_t length = (uint32_t)(wanted < size - 2 ? wanted : size - 2);
        data += 2;
        size -= 2;
        if (kind == 0) {
            feed_and_check(data, length, 40);
        } else {
            const uint32_t sequence = lmcu_link.state.expected - (kind >> 7);
            count = line_of(line, LINE, LMCU_PROTOCOL_VERSION, kind & 127u, sequence, data, length);
            feed_and_check(line, count, 40);
        }
        data += length;
        size -= length;
    }
    return 0;
}
