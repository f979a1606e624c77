/* SPDX-License-Identifier: Apache-2.0 */
/* The ring of received bytes: one writer (the serial interrupt, or whoever polls), one reader. */
#include "lmcu_port.h"
#include "port_state.h"

uint8_t lmcu_rx_ring[LMCU_RX_RING_BYTES] LMCU_ALIGNED(8);

typedef char lmcu_ring_is_a_power_of_two[(LMCU_RX_RING_BYTES & (LMCU_RX_RING_BYTES - 1)) == 0 ? 1 : -1];

/* A full ring drops the byte: the frame's CRC tells. */
void lmcu_ring_put(uint8_t byte)
{
    lmcu_port_fields_t *port = &lmcu_port_state.fields;
    const uint32_t head = port->rx_head;
    if (head - port->rx_tail < LMCU_RX_RING_BYTES) {
        lmcu_rx_ring[head % LMCU_RX_RING_BYTES] = byte;
        port->rx_head = head + 1;
    } else {
        port->rx_lost++;
    }
}

uint32_t lmcu_ring_take(uint8_t *buffer, uint32_t capacity)
{
    lmcu_port_fields_t *port = &lmcu_port_state.fields;
    const uint32_t head = port->rx_head;
    uint32_t tail = port->rx_tail;
    uint32_t count = 0;
    __asm volatile("" ::: "memory"); /* the ring's bytes are read after the head that announced them */
    while (tail != head && count < capacity) {
        buffer[count++] = lmcu_rx_ring[tail++ % LMCU_RX_RING_BYTES];
    }
    __asm volatile("" ::: "memory"); /* and before the tail that gives them up */
    port->rx_tail = tail;
    return count;
}
