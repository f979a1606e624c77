/* SPDX-License-Identifier: Apache-2.0 */
/* A flash that is a file of the host, through semihosting (Arm IHI 0072, sections 3 and 5): for
 * emulators only. It behaves as the part's flash: bits can only be cleared, and only an erase sets them. */
#include "lmcu_board.h"
#include "lmcu_port.h"
#include "port_state.h"

#define SYS_OPEN 0x01u
#define SYS_WRITE 0x05u /* returns how many bytes were not written */
#define SYS_READ 0x06u  /* likewise */
#define SYS_SEEK 0x0Au
#define MODE_UPDATE 3u /* "r+b" */
#define NO_FILE 0xFFFFFFFFu
#define MAX_UNIT 32u
#define BLANK_BYTES 256u

static uint32_t semihosting(uint32_t operation, const uint32_t *arguments)
{
    register uint32_t r0 __asm("r0") = operation;
    register const uint32_t *r1 __asm("r1") = arguments;
    __asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static uint32_t file(void)
{
    lmcu_port_fields_t *port = &lmcu_port_state.fields;
    if (port->flash_file == 0) {
        const char *name = lmcu_flash_file_name();
        uint32_t length = 0;
        while (name[length] != 0) {
            length++;
        }
        const uint32_t arguments[3] = {(uint32_t)(uintptr_t)name, MODE_UPDATE, length};
        port->flash_file = semihosting(SYS_OPEN, arguments);
    }
    return port->flash_file;
}

static bool seek(uint32_t half, uint32_t offset)
{
    const uint32_t arguments[2] = {file(), half * LMCU_BOARD_FLASH_HALF + offset};
    return arguments[0] != NO_FILE && semihosting(SYS_SEEK, arguments) == 0;
}

static bool transfer(uint32_t operation, const void *bytes, uint32_t count)
{
    const uint32_t arguments[3] = {file(), (uint32_t)(uintptr_t)bytes, count};
    return semihosting(operation, arguments) == 0;
}

bool lmcu_file_flash_read(uint32_t half, uint32_t offset, void *to, uint32_t count)
{
    return seek(half, offset) && transfer(SYS_READ, to, count);
}

bool lmcu_file_flash_erase(uint32_t half)
{
    uint8_t blank[BLANK_BYTES];
    for (uint32_t i = 0; i < BLANK_BYTES; i++) {
        blank[i] = 0xff;
    }
    bool done = seek(half, 0);
    for (uint32_t at = 0; done && at < LMCU_BOARD_FLASH_HALF; at += BLANK_BYTES) {
        done = transfer(SYS_WRITE, blank, BLANK_BYTES);
    }
    return done;
}

bool lmcu_file_flash_program(uint32_t half, uint32_t offset, const uint8_t *unit)
{
    uint8_t cells[MAX_UNIT];
    bool same = true;
    if (!lmcu_file_flash_read(half, offset, cells, LMCU_BOARD_FLASH_UNIT)) {
        return false;
    }
    for (uint32_t i = 0; i < LMCU_BOARD_FLASH_UNIT; i++) {
        cells[i] &= unit[i];
        same = same && cells[i] == unit[i];
    }
    return seek(half, offset) && transfer(SYS_WRITE, cells, LMCU_BOARD_FLASH_UNIT) && same;
}
