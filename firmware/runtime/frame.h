/* SPDX-License-Identifier: Apache-2.0 */
/* Frames on the line: COBS(header | payload | crc32) 00. Header: u8 protocol version, u8 type, u16 sequence; all
 * numbers little-endian; the CRC-32 covers header and payload. See docs/protocol.md. */
#ifndef LMCU_FRAME_H
#define LMCU_FRAME_H

#include "lmcu.h"

enum {
    LMCU_FRAME_HEADER = 4,
    LMCU_FRAME_CRC = 4,
    LMCU_FRAME_BYTES = LMCU_FRAME_HEADER + LMCU_MAX_PAYLOAD + LMCU_FRAME_CRC
};

/* A frame being received, decoded byte by byte. */
typedef struct {
    uint16_t count;  /* decoded bytes, the CRC included */
    uint8_t code;    /* of the COBS block at hand; 0 before the first */
    uint8_t left;    /* bytes that this block still owes */
    uint8_t broken;  /* too long: ignored up to the next 00 */
    uint8_t done;    /* the last push ended a frame: the next one starts anew */
    uint8_t pad_[2];
    uint8_t bytes[LMCU_FRAME_BYTES];
} lmcu_decoder_t;

enum { LMCU_PUSH_MORE = 0, LMCU_PUSH_FRAME = 1, LMCU_PUSH_BAD = 2 };

/* Takes one byte. FRAME: bytes[0 .. count - LMCU_FRAME_CRC) is a checked frame until the next push. BAD: a 00 ended
 * something that is no frame. Any byte sequence is safe; after every 00 the decoder starts anew. */
int lmcu_decoder_push(lmcu_decoder_t *decoder, uint8_t byte);

/* Appends the CRC to frame[0 .. count) (room for 4 more bytes); returns the new count. */
uint32_t lmcu_frame_seal(uint8_t *frame, uint32_t count);

/* Sends a sealed frame through the port. */
void lmcu_frame_send(const uint8_t *frame, uint32_t count);

#endif
