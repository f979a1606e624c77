/* SPDX-License-Identifier: Apache-2.0 */
/* Consistent Overhead Byte Stuffing (Cheshire and Baker, 1999): no 00 inside a frame, so that every 00 is a place to
 * resynchronize. A block is a code n followed by n - 1 bytes and, unless n is 255 or the frame ends, a 00. */
#include "lmcu_strict.h"

#include "frame.h"
#include "lmcu_port.h"

static void append(lmcu_decoder_t *d, uint8_t byte)
{
    if (d->count < LMCU_FRAME_BYTES) {
        d->bytes[d->count++] = byte;
    } else {
        d->broken = 1;
    }
}

static bool crc_fits(const lmcu_decoder_t *d)
{
    const uint32_t covered = (uint32_t)d->count - LMCU_FRAME_CRC;
    const uint8_t *crc = d->bytes + covered;
    const uint32_t sent = crc[0] | (uint32_t)crc[1] << 8 | (uint32_t)crc[2] << 16 | (uint32_t)crc[3] << 24;
    return lmcu_crc32(0, d->bytes, covered) == sent;
}

static int end_of_frame(lmcu_decoder_t *d)
{
    d->done = 1;
    if (d->code == 0) {
        return LMCU_PUSH_MORE; /* two 00 in a row: nothing between them */
    }
    if (d->broken || d->left != 0 || d->count < LMCU_FRAME_HEADER + LMCU_FRAME_CRC || !crc_fits(d)) {
        return LMCU_PUSH_BAD;
    }
    return LMCU_PUSH_FRAME;
}

int lmcu_decoder_push(lmcu_decoder_t *d, uint8_t byte)
{
    if (d->done) {
        d->count = 0;
        d->code = 0;
        d->left = 0;
        d->broken = 0;
        d->done = 0;
    }
    if (byte == 0) {
        return end_of_frame(d);
    }
    if (d->left == 0) {
        if (d->code != 0 && d->code != 255) {
            append(d, 0);
        }
        d->code = byte;
        d->left = (uint8_t)(byte - 1);
    } else {
        append(d, byte);
        d->left--;
    }
    return LMCU_PUSH_MORE;
}

uint32_t lmcu_frame_seal(uint8_t *frame, uint32_t count)
{
    const uint32_t crc = lmcu_crc32(0, frame, count);
    for (uint32_t i = 0; i < LMCU_FRAME_CRC; ++i) {
        frame[count + i] = (uint8_t)(crc >> (8 * i));
    }
    return count + LMCU_FRAME_CRC;
}

void lmcu_frame_send(const uint8_t *frame, uint32_t count)
{
    uint32_t at = 0;
    bool more = true;
    while (more) {
        uint32_t run = 0;
        while (at + run < count && run < 254 && frame[at + run] != 0) {
            run++;
        }
        const uint8_t code = (uint8_t)(run + 1);
        lmcu_port_write(&code, 1);
        lmcu_port_write(frame + at, run);
        at += run;
        more = at < count;
        if (more && run < 254) {
            at++; /* the 00 that the code stands for; if it is the last byte, an empty block follows */
        }
    }
    const uint8_t end = 0;
    lmcu_port_write(&end, 1);
}
