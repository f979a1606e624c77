/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes that the compiler's memory report and the firmware must agree on. lora_mcu reads these lines, so each
 * value is a plain decimal number; static assertions in the C files hold the real objects to them. */
#ifndef LMCU_CONFIG_H
#define LMCU_CONFIG_H

#define LMCU_PROTOCOL_VERSION 1
#define LMCU_FIRMWARE_MAJOR 0
#define LMCU_FIRMWARE_MINOR 1
#define LMCU_FIRMWARE_PATCH 0

#define LMCU_MAX_RANK 64
#define LMCU_DEPTHWISE_BLOCK 8  /* channels at once of a depthwise backward pass in place */
#define LMCU_MAX_PAYLOAD 1024   /* bytes of one frame's payload */
#define LMCU_WINDOW 8           /* responses kept, requests in flight */
#define LMCU_BAUD_WAIT_MS 2000  /* at another rate than the board's: so long without a whole frame, and it is given up */

#define LMCU_WATCHDOG_MS 8000   /* the watchdog's period: longer than any erase area's erase and any layer */

#define LMCU_CONTEXT_BYTES 256  /* lmcu_context: the training state */
#define LMCU_LINK_BYTES 2448    /* lmcu_link: frame buffers, sequence state, response cache */
#define LMCU_KEYED 0            /* 1: the device asks for a key (auth.c, sha256.c, key.c); `lora-mcu compile --key` */
#define LMCU_AUTH_BYTES 120     /* lmcu_auth, with a key: challenge and session key */
#define LMCU_NUMERICS_I16 0     /* 1: mode i16 (block.c, lora_i16.c), 0: mode f32; `lora-mcu compile --numerics` */
#define LMCU_SRAM_WEIGHTS 0     /* 1: adapted layers' weights stand in SRAM (merge.c); `lora-mcu compile --weights sram` */
#define LMCU_PORT_BYTES 128     /* lmcu_port_state: indices of the ring, tick count, ... */
#define LMCU_RX_RING_BYTES 2048 /* lmcu_rx_ring: filled by the UART interrupt */
#define LMCU_STACK_BYTES 4096   /* lmcu_stack: the reserve of the linker script */
#define LMCU_RAM_CODE_BYTES 512 /* lmcu_ram_code, ESP32-C3: what runs while flash is written */

#endif
