/* SPDX-License-Identifier: Apache-2.0 */
/* Takes the place of the firmware's main.c: prints the ticks that frames of two lengths take, from their bytes to the answer. */
#include "lmcu_port.h"
#include "../port/port_state.h"
#include "protocol.h"

enum { FRAME = LMCU_FRAME_BYTES, SHORT = 64, LONG = 1024 };

static uint8_t frame[FRAME], line[FRAME + 16];

static void put_line(const char *name, uint64_t value)
{
    uint8_t text[48], digits[20];
    uint32_t n = 0, count = 0;
    while (*name) {
        text[n++] = (uint8_t)*name++;
    }
    text[n++] = ' ';
    do {
        digits[count++] = (uint8_t)('0' + value % 10u);
        value /= 10u;
    } while (value != 0u);
    while (count > 0u) {
        text[n++] = digits[--count];
    }
    text[n++] = '\n';
    lmcu_port_write(text, n);
}

/* A frame as it comes over the line, COBS included. */
static uint32_t encode(uint32_t type, uint32_t sequence, uint32_t payload)
{
    frame[0] = LMCU_PROTOCOL_VERSION;
    frame[1] = (uint8_t)type;
    frame[2] = (uint8_t)sequence;
    frame[3] = (uint8_t)(sequence >> 8);
    for (uint32_t i = 0; i < payload; i++) {
        frame[4 + i] = i < 4 ? 0 : (uint8_t)(i * 7u);
    }
    const uint32_t count = lmcu_frame_seal(frame, 4 + payload);
    uint32_t out = 1, code = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (frame[i] != 0) {
            line[out++] = frame[i];
        }
        if (frame[i] == 0 || out - code == 255) {
            line[code] = (uint8_t)(out - code);
            code = out++;
        }
    }
    line[code] = (uint8_t)(out - code);
    line[out++] = 0;
    return out;
}

/* From the ring to the answer, in the pieces that the main loop takes. */
static uint64_t receive(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        lmcu_ring_put(line[i]);
    }
    const uint64_t start = lmcu_port_ticks();
    while (lmcu_link_poll()) {
    }
    return lmcu_port_ticks() - start;
}

int lmcu_main(void)
{
    lmcu_port_init();
    const lmcu_status_t status = lmcu_init();
    lmcu_link_init();
    uint8_t go;
    while (lmcu_port_read(&go, 1) == 0u) {
        lmcu_port_idle();
    }
    while (lmcu_port_read(&go, 1) != 0u) {
    }
    (void)receive(encode(LMCU_MSG_HELLO, 0, 4));
    lmcu_port_write((const uint8_t *)"\n", 1);
    const uint32_t sizes[3] = {SHORT, SHORT, LONG};
    for (uint32_t i = 0; i < 3; i++) { /* the first one fills no cache here, but shows that the second is like it */
        const uint32_t count = encode(LMCU_MSG_SAMPLE_DATA, 1 + i, sizes[i]);
        const uint64_t ticks = receive(count);
        lmcu_port_write((const uint8_t *)"\n", 1);
        put_line("bytes", count);
        put_line("ticks", ticks);
    }
    const uint64_t start = lmcu_port_ticks();
    for (uint32_t i = 0; i < 1000; i++) {
        lmcu_ring_put((uint8_t)i);
    }
    put_line("ring", lmcu_port_ticks() - start);
    put_line("status", (uint64_t)status);
    put_line("end", 0);
    for (;;) {
        lmcu_port_idle();
    }
}
